"""Training of upsamplers: band-limited recordings, spectral losses, discriminators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import mean

import torch
from torch import Tensor
from torch.nn import functional as F

from audiosr_cli.dsp.metrics import lsd
from audiosr_cli.dsp.spectra import low_pass
from audiosr_cli.errors import TrainingError, UsageError
from audiosr_cli.models import Model, ModelSpec
from audiosr_cli.train import augment, bandlimit
from audiosr_cli.train.augment import Augmentation
from audiosr_cli.train.bandlimit import Degradation
from audiosr_cli.train.checks import positive, within
from audiosr_cli.train.corpus import FULL_BAND, RandomParameters
from audiosr_cli.train.empty_bins import fill_empty_bins
from audiosr_cli.train.gan import AdversarialConfig, DiscriminatorConfig
from audiosr_cli.train.losses import complex_stft, log_mel, log_spectral, multi_resolution_stft
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks.base import VALID_SEED, Batch, ForwardFn, Losses, PlainTask, Recordings
from audiosr_cli.train.transfer import upload

# Speed and pitch are multiplied by a factor within 1 ± this.
_SPEED_PERTURBATION = 0.05
# Range of the gain in dB.
_GAIN_DB = (-18.0, 6.0)
# Cutoffs in Hz and relative roll-off of the validation inputs.
_VALID_CUTOFFS_HZ = (4000.0, 8000.0)
_VALID_ROLL_OFF = 0.09
# Largest relative error of the cutoff that a network with a cutoff input gets, as detection is not exact.
_CUTOFF_ERROR = 0.02
# FFT sizes of the STFT loss; short ones resolve pulses, which are noise to long ones.
_FFT_SIZES = (128, 256, 512, 1024, 2048)
# Longest FFT of the losses and the score.
_LONGEST_FFT = 2048


@dataclass(frozen=True)
class UpsamplingLossWeights:
    """Weights of the losses; 0 leaves out a loss. The last two need discriminators, which are trained beside the model.

    Attributes:
        lsd: Log-spectral distance.
        stft: Multi-resolution STFT loss.
        complex: L1 of the complex spectrum.
        mel: L1 of log mel magnitudes.
        adversarial: Adversarial loss.
        feature_matching: Feature matching loss.
    """

    lsd: float = 1.0
    stft: float = 1.0
    complex: float = 0.1
    mel: float = 0.0
    adversarial: float = 0.0
    feature_matching: float = 0.0

    def __post_init__(self) -> None:
        within(self, 0, float("inf"), *vars(self))
        if not any((self.lsd, self.stft, self.complex, self.mel)):
            raise UsageError("loss_weights: one of lsd, stft, complex and mel must be above 0")


@dataclass(frozen=True)
class Upsampling(PlainTask):
    """Band-limited recordings; nothing above the bandwidth of the original recording is a target.

    Attributes:
        batch_size: Recordings in the batch of each process.
        crop_s: Length of a crop in seconds.
        fill_empty_bins: Whether noise fills what lossy coding emptied above 10 kHz, at the level below it, in training
            and in the score. Otherwise the network learns that noise floors end there.
        balanced_score: Whether full-band recordings (95 % of half the rate or more) and the others weigh the same in
            the score; otherwise every recording does.
        coded_prob: Probability that the input comes from the recording's copy in ``[data.coded]``, where it has one.
    """

    spec: ModelSpec
    batch_size: int
    crop_s: float
    fill_empty_bins: bool = False
    balanced_score: bool = False
    coded_prob: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    degradation: Degradation = field(default_factory=Degradation)
    loss_weights: UpsamplingLossWeights = field(default_factory=UpsamplingLossWeights)
    discriminators: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    metric: str = "-LSD"

    def __post_init__(self) -> None:
        positive(self, "batch_size", "crop_s")
        within(self, 0, 1, "coded_prob")
        if self.spec.uses_position:
            raise UsageError(f"[task] name = 'upsample': {self.spec.name} is trained with name = 'audiosr'")

    @property
    def adversarial(self) -> AdversarialConfig | None:
        """The discriminators, if their losses have a weight."""
        w = self.loss_weights
        return (
            AdversarialConfig(self.discriminators, w.adversarial, w.feature_matching)
            if w.adversarial or w.feature_matching
            else None
        )

    def batch(self, recordings: Recordings, generator: torch.Generator, ranks: Ranks) -> Batch:
        """Make ``input`` (B, 1, T) and ``target`` (B, T'), as long as the model's output for the crop.

        ``band`` (B,) is the bandwidth of the targets in Hz, unless all are full-band; ``cutoff`` (B,) is that of the
        inputs, if the model uses it.
        """
        spec, count = self.spec, self.batch_size * ranks.world
        length = round(self.crop_s * spec.out_rate) // spec.ratio * spec.ratio
        params = ranks.share(self._draw(recordings, count, length, generator), self.batch_size)
        waves, narrow = self._render(params, recordings, length, ranks.device)
        cut, band = spec.context * spec.ratio, params["band"]
        batch = {"input": narrow[:, None, :: spec.ratio], "target": waves[:, cut : length - cut]}
        if spec.uses_cutoff:
            detected = bandlimit.content_bandwidth(params) * params["cutoff_error"]
            batch["cutoff"] = upload(torch.minimum(detected, params["input_band"]), ranks.device)
        if bool((band < spec.out_rate / 2).any()):
            batch["band"] = upload(band, ranks.device)
        return batch

    def _draw(self, recordings: Recordings, count: int, length: int, generator: torch.Generator) -> RandomParameters:
        """Draw the random parameters of ``count`` crops; what is off draws nothing."""
        corpus, coded = recordings.train, recordings.coded
        params = corpus.draw(count, length, generator, speed=_SPEED_PERTURBATION)
        recording, rate = params["recording"][:, 0], params["rate"][:, 0].float()
        params["band"] = params["input_band"] = corpus.bandwidth[recording] * rate
        params |= bandlimit.draw(self.degradation, count, generator, params["band"])
        params["cutoff"] = params["cutoff"].clamp_max(self.spec.in_rate / 2)
        low, high = _GAIN_DB
        gain = torch.pow(10, (low + (high - low) * torch.rand(count, generator=generator)) / 20)
        params["gain"] = gain * ((torch.rand(count, generator=generator) < 0.5) * 2.0 - 1)
        params["cutoff_error"] = 1 + _CUTOFF_ERROR * (2 * torch.rand(count, generator=generator) - 1)
        if self.augmentation.active:
            params |= augment.draw(self.augmentation, count, generator)
        if self.fill_empty_bins:
            params["fill_seed"] = torch.randint(1 << 62, (count,), generator=generator)
        if self.coded_prob and coded is not None:
            band = coded.bandwidth[recording] * rate
            params["coded"] = (torch.rand(count, generator=generator) < self.coded_prob) & (band > 0)
            params["input_band"] = torch.where(params["coded"], band.minimum(params["band"]), params["band"])
            if "noise_db" in params:  # noise would have been coded, too
                params["noise_db"] = torch.where(params["coded"], -torch.inf, params["noise_db"])
        return params

    def _render(
        self, params: RandomParameters, recordings: Recordings, length: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Render the crops of ``params``: targets and band-limited inputs, (B, T) each."""
        rate = self.spec.out_rate
        waves = recordings.train.render(params, length, device)[:, 0]
        if self.fill_empty_bins:
            waves = fill_empty_bins(waves, rate, _seeded(int(params["fill_seed"][0])))
        waves = wide = self._augmented(waves, params)
        if recordings.coded is not None and "coded" in params and bool(params["coded"].any()):
            chosen = params["coded"].nonzero()[:, 0]
            own = {key: value[chosen] for key, value in params.items()}
            copies = self._augmented(recordings.coded.render(own, length, device)[:, 0], own)
            wide = waves.index_copy(0, upload(chosen, device), copies)
        return waves, bandlimit.band_limit(wide, {key: params[key] for key in bandlimit.KEYS}, rate)

    def _augmented(self, waves: Tensor, params: RandomParameters) -> Tensor:
        if self.augmentation.active:
            waves = augment.render(waves, params, self.spec.out_rate)
        return waves * upload(params["gain"], waves.device).unsqueeze(1)

    def losses(self, forward: ForwardFn, batch: Batch) -> Losses:
        """Compute the losses, each up to the bandwidth of the recording."""
        estimate, target = forward(batch["input"], **self._arguments(batch)).flatten(1), batch["target"]  # (B, T)
        rate, w = self.spec.out_rate, self.loss_weights
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
        if band is not None and self.adversarial:  # discriminators must not see highs that the target lacks
            estimate, target = (low_pass(x, band, torch.full_like(band, 0.02), rate) for x in (estimate, target))
        return Losses(terms, estimate, target)

    def _arguments(self, batch: Batch) -> dict[str, Tensor]:
        """Return the network's arguments besides its input."""
        return {"cutoff_hz": batch["cutoff"]} if self.spec.uses_cutoff else {}

    def score(self, model: Model, recordings: Recordings) -> float:
        """Compute the mean negative LSD for cutoffs of 4 and 8 kHz over up to 20 validation recordings of up to 4 s.

        The LSD is defined as in AP-BWE; only the bandwidth of each recording counts. Raises TrainingError if no
        recording has at least 0.1 s.
        """
        valid = recordings.valid
        spec, device = model.spec, next(model.parameters()).device
        distances: dict[bool, list[float]] = {}  # by whether the recording is full-band
        unit = spec.ratio * 16
        long = (valid.lengths >= max(0.1 * spec.out_rate, 2 * _LONGEST_FFT)).nonzero()[:, 0]
        if not len(long):
            raise TrainingError("[data] valid: no recording is long enough for scoring (0.1 s)")
        for k in long[torch.linspace(0, len(long) - 1, min(20, len(long))).long()].tolist():
            start, length = int(valid.starts[k]), min(int(valid.lengths[k]), 4 * spec.out_rate) // unit * unit
            wave = valid.samples[start : start + length].to(device).float()[None] / 32768
            if self.fill_empty_bins:
                wave = fill_empty_bins(wave, spec.out_rate, _seeded(VALID_SEED))
            for cutoff in sorted({min(cutoff, spec.in_rate / 2) for cutoff in _VALID_CUTOFFS_HZ}):
                cut, roll_off = (torch.tensor([value], device=device) for value in (cutoff, _VALID_ROLL_OFF))
                low = low_pass(wave, cut, roll_off, spec.out_rate)
                params = {
                    "cutoff": cut,
                    "roll_off": roll_off,
                    "resampler": torch.ones(1, dtype=torch.bool, device=device),
                }
                arguments = {"cutoff_hz": bandlimit.content_bandwidth(params)} if spec.uses_cutoff else {}
                with torch.no_grad():
                    estimate = model(F.pad(low[:, None, :: spec.ratio], (spec.context, spec.context)), **arguments)
                band = float(valid.bandwidth[k]) / (spec.out_rate / 2)
                group = self.balanced_score and band >= FULL_BAND
                distances.setdefault(group, []).append(float(lsd(estimate.flatten(), wave[0], high=band)))
        return -mean(mean(values) for values in distances.values())


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
