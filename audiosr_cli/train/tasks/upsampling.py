"""Upsampling: band-limited recordings, spectral losses, discriminators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from audiosr_cli.dsp.metrics import lsd
from audiosr_cli.dsp.spectra import low_pass
from audiosr_cli.errors import TrainingError, UsageError
from audiosr_cli.models import Model, ModelSpec
from audiosr_cli.train import bandlimit
from audiosr_cli.train.bandlimit import Degradation
from audiosr_cli.train.checks import positive, within
from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.discriminators import Critics
from audiosr_cli.train.losses import complex_stft, log_mel, log_spectral, multi_resolution_stft
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks.base import Adversary, Batch, Forward, Losses, Recordings
from audiosr_cli.train.transfer import upload

_SPEED = 0.05
_GAIN_DB = (-18.0, 6.0)
_VALID_CUTOFFS = (4000.0, 8000.0)
_VALID_ROLL_OFF = 0.09
_MISJUDGED = 0.02  # how far off the cutoff may be that a network is told, as a share of it
_FFT_SIZES = (128, 256, 512, 1024, 2048)  # of the losses; short ones hear pulses that long ones take for noise
_LONGEST_FFT = 2048  # of the losses and the score


@dataclass(frozen=True)
class Weights:
    """What each term of the loss counts; 0 leaves it out. The last two train discriminators beside the model."""

    lsd: float = 1.0
    stft: float = 1.0
    complex: float = 0.1
    mel: float = 0.0
    adversarial: float = 0.0
    features: float = 0.0

    def __post_init__(self) -> None:
        within(self, 0, float("inf"), *vars(self))
        if not any((self.lsd, self.stft, self.complex, self.mel)):
            raise UsageError("weights: one of lsd, stft, complex and mel must be above 0")


@dataclass(frozen=True)
class Upsampling:
    """Recordings as ``degradation`` has them. What lies above a recording's own band is never a target."""

    spec: ModelSpec
    batch_size: int
    crop_s: float
    degradation: Degradation = field(default_factory=Degradation)
    weights: Weights = field(default_factory=Weights)
    critics: Critics = field(default_factory=Critics)
    figure: str = "-LSD"

    def __post_init__(self) -> None:
        positive(self, "batch_size", "crop_s")
        if self.spec.uses_position:
            raise UsageError(f"[task] name = 'upsample': {self.spec.name} learns by the task 'audiosr'")

    @property
    def adversary(self) -> Adversary | None:
        """Discriminators where their terms count."""
        w = self.weights
        return Adversary(self.critics, w.adversarial, w.features) if w.adversarial or w.features else None

    @property
    def partner(self) -> Model | None:
        """None."""
        return None

    @property
    def difficulty(self) -> None:
        """None."""
        return None

    def heads(self, model: Model) -> None:
        """None."""
        del model

    def batch(self, recordings: Recordings, generator: torch.Generator, ranks: Ranks) -> Batch:
        """The target is as long as what the model returns for the crop.

        ``band`` (B,) is where it ends, unless full, and ``cutoff`` (B,) where the input does, if the model asks.
        """
        spec, corpus, count = self.spec, recordings.train, self.batch_size * ranks.world
        length = round(self.crop_s * spec.out_rate) // spec.ratio * spec.ratio
        recipe = corpus.draw(count, length, generator, speed=_SPEED) | bandlimit.draw(
            self.degradation, count, generator
        )
        low, high = _GAIN_DB
        gain = torch.pow(10, (low + (high - low) * torch.rand(count, generator=generator)) / 20)
        recipe["gain"] = gain * ((torch.rand(count, generator=generator) < 0.5) * 2.0 - 1)
        recipe["misjudged"] = 1 + _MISJUDGED * (2 * torch.rand(count, generator=generator) - 1)
        recipe = ranks.share(recipe, self.batch_size)
        waves = corpus.render(recipe, length, ranks.device)[:, 0] * upload(recipe["gain"], ranks.device).unsqueeze(1)
        recipe["cutoff"] = recipe["cutoff"].clamp_max(spec.in_rate / 2)
        narrow = bandlimit.band_limit(waves, {key: recipe[key] for key in bandlimit.KEYS}, spec.out_rate)
        band = corpus.bandwidth[recipe["recording"][:, 0]] * recipe["rate"][:, 0].float()
        cut = spec.context * spec.ratio
        batch = {"input": narrow[:, None, :: spec.ratio], "target": waves[:, cut : length - cut]}
        if spec.uses_cutoff:
            judged = bandlimit.where_content_ends(recipe) * recipe["misjudged"]
            batch["cutoff"] = upload(torch.minimum(judged, band), ranks.device)
        if bool((band < spec.out_rate / 2).any()):
            batch["band"] = upload(band, ranks.device)
        return batch

    def losses(self, forward: Forward, batch: Batch) -> Losses:
        """LSD, multi-resolution magnitudes, complex spectrum and mels, each below the recording's band."""
        estimate, target = forward(batch["input"], **self._arguments(batch)).flatten(1), batch["target"]  # (B, T)
        rate, w = self.spec.out_rate, self.weights
        band = batch.get("band")
        distances: dict[str, tuple[float, Callable[..., Tensor]]] = {
            "lsd": (w.lsd, log_spectral),
            "stft": (w.stft, partial(multi_resolution_stft, sizes=_FFT_SIZES)),
            "complex": (w.complex, complex_stft),
            "mel": (w.mel, log_mel),
        }
        terms = {
            name: weight * distance(estimate, target, rate, band)
            for name, (weight, distance) in distances.items()
            if weight
        }
        if band is not None and self.adversary:  # nor may discriminators see what the truth cannot have
            estimate, target = (low_pass(x, band, torch.full_like(band, 0.02), rate) for x in (estimate, target))
        return Losses(terms, estimate, target)

    def _arguments(self, batch: Batch) -> dict[str, Tensor]:
        """What the network is given of a batch beside its input."""
        return {"cutoff_hz": batch["cutoff"]} if self.spec.uses_cutoff else {}

    def score(self, model: Model, valid: Corpus) -> float:
        """Negative LSD (AP-BWE definition), mean of 4 and 8 kHz cutoffs over up to 20 valid recordings of up to 4 s.

        Only the band of each recording counts. Raises TrainingError where none is longer than 0.1 s.
        """
        spec, device, found = model.spec, next(model.parameters()).device, []
        unit = spec.ratio * 16
        long = (valid.lengths >= max(0.1 * spec.out_rate, 2 * _LONGEST_FFT)).nonzero()[:, 0]
        if not len(long):
            raise TrainingError("none of the valid recordings is long enough to be scored (0.1 s)")
        for k in long[torch.linspace(0, len(long) - 1, min(20, len(long))).long()].tolist():
            start, length = int(valid.starts[k]), min(int(valid.lengths[k]), 4 * spec.out_rate) // unit * unit
            wave = valid.samples[start : start + length].to(device).float()[None] / 32768
            for cutoff in sorted({min(cutoff, spec.in_rate / 2) for cutoff in _VALID_CUTOFFS}):
                cut, roll_off = (torch.tensor([value], device=device) for value in (cutoff, _VALID_ROLL_OFF))
                low = low_pass(wave, cut, roll_off, spec.out_rate)
                known = {"cutoff": cut, "roll_off": roll_off, "plain": torch.ones(1, dtype=torch.bool, device=device)}
                arguments = {"cutoff_hz": bandlimit.where_content_ends(known)} if spec.uses_cutoff else {}
                with torch.no_grad():
                    estimate = model(F.pad(low[:, None, :: spec.ratio], (spec.context, spec.context)), **arguments)
                band = float(valid.bandwidth[k]) / (spec.out_rate / 2)
                found.append(float(lsd(estimate.flatten(), wave[0], high=band)))
        return -sum(found) / len(found)

    def extra_scores(self, model: Model, recordings: Recordings) -> dict[str, float]:  # noqa: ARG002
        """None."""
        return {}
