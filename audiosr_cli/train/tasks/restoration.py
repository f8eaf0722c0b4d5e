"""Training of restorers: full-band speakers from a full-band mixture and a separator's narrow-band estimates."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.checkpoints.store import load_model
from audiosr_cli.dsp.metrics import lsd, si_sdr
from audiosr_cli.dsp.spectra import change_rate, low_pass
from audiosr_cli.errors import UsageError
from audiosr_cli.models import Model, ModelSpec
from audiosr_cli.train import mixing
from audiosr_cli.train.checks import positive, within
from audiosr_cli.train.losses import (
    best_permutation,
    log_spectral,
    multi_resolution_stft,
    pairwise_metric,
    si_snr_and_level,
)
from audiosr_cli.train.mixing import Mixing
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks.acoustics import noise_and_rirs
from audiosr_cli.train.tasks.base import VALID_SEED, Batch, ForwardFn, Losses, PlainTask, Recordings
from audiosr_cli.train.transfer import upload

# Smallest magnitude in the STFT loss, so that errors in silence do not outweigh errors in speech.
_FLOOR = 1e-3
# Relative width of the low-pass roll-off at the bandwidth of the narrowest recording of a mixture.
_ROLL_OFF = 0.02


@dataclass(frozen=True)
class RestorationLossWeights:
    """Weights of the losses; 0 leaves out a loss.

    Attributes:
        si_snr: SI-SNR with level, in dB.
        stft: Multi-resolution STFT loss.
        lsd: Log-spectral distance.
    """

    si_snr: float = 0.1
    stft: float = 1.0
    lsd: float = 0.0

    def __post_init__(self) -> None:
        within(self, 0, float("inf"), *vars(self))
        if not any(vars(self).values()):
            raise UsageError("loss_weights: one of si_snr, stft and lsd must be above 0")


@dataclass(frozen=True)
class Restoration(PlainTask):
    """Mixtures of several speakers, separated at a low sample rate by a trained separator.

    Targets are in the order of the separator's estimates.

    Attributes:
        batch_size: Mixtures in the batch of each process.
        crop_s: Length of a mixture in seconds.
        separator: Name of a bundled separator, or path of a checkpoint.
        joint: Whether the separator is trained jointly; otherwise it is frozen.
    """

    spec: ModelSpec
    batch_size: int
    crop_s: float
    separator: str
    joint: bool = False
    mixing: Mixing = field(default_factory=Mixing)
    loss_weights: RestorationLossWeights = field(default_factory=RestorationLossWeights)
    metric: str = "-LSD"

    def __post_init__(self) -> None:
        positive(self, "batch_size", "crop_s")
        separator, own = self.separator_model.spec, self.spec
        if separator.sources != own.sources or separator.task != "separate":
            raise UsageError(f"[task] separator = {self.separator!r}: must be a separator of {own.sources} speakers")
        if not 0.8 * (cutoff := separator.out_rate / 2) <= own.cutoff_hz <= cutoff:
            raise UsageError(
                f"[model] cutoff_hz = {own.cutoff_hz:g}: must be between {0.8 * cutoff:g} and {cutoff:g}, "
                "the Nyquist frequency of the separator"
            )
        if self.joint and separator.name == own.name:
            raise UsageError(
                f"[model] name = {own.name!r}: is the name of the separator, which is saved beside it; use another"
            )

    @cached_property
    def separator_model(self) -> Model:
        """The separator."""
        network = load_model(self.separator).requires_grad_(self.joint)
        for module in network.modules():
            if isinstance(module, nn.RNNBase):  # cuDNN computes gradients of RNNs in training mode only
                module.train(self.joint)
        return network

    @property
    def joint_model(self) -> Model | None:
        """The separator, if it is trained jointly."""
        return self.separator_model if self.joint else None

    def batch(self, recordings: Recordings, generator: torch.Generator, ranks: Ranks) -> Batch:
        """Make ``input`` (B, 1, T), the mixtures, and ``target`` (B, S, T).

        Each mixture is band-limited to its narrowest recording. Otherwise the network would learn that some speakers
        have no highs.
        """
        if self.joint and ranks.world > 1:
            raise UsageError(
                "[task] joint = true: the separator can be trained in a single process only; run without torchrun"
            )
        length, train = round(self.crop_s * self.spec.in_rate), recordings.train
        noise, rirs = noise_and_rirs(self.mixing, recordings, self.spec)
        count = self.batch_size * ranks.world
        params = mixing.draw(self.mixing, train, self.spec.sources, count, length, generator, noise, rirs)
        params = ranks.share(params, self.batch_size)
        mix, sources = mixing.render(params, train, length, ranks.device, noise, rirs)
        band = (train.bandwidth[params["recording"]] * params["rate"].float()).amin(1)  # (B,)
        if bool((band < self.spec.in_rate / 2).any()):
            waves = torch.cat([mix.unsqueeze(1), sources], dim=1)  # (B, 1 + S, T)
            cutoff = upload(band.repeat_interleave(waves.shape[1]), ranks.device)
            narrow = low_pass(waves.flatten(0, 1), cutoff, torch.full_like(cutoff, _ROLL_OFF), self.spec.in_rate)
            mix, sources = narrow.view_as(waves)[:, 0], narrow.view_as(waves)[:, 1:]
        return {"input": mix.unsqueeze(1), "target": sources}

    def separate(self, mix: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
        """Separate mixtures (B, T) of sources (B, S, T) → [mixture, estimates] (B, 1 + S, T), ordered sources."""
        separator, rate = self.separator_model.to(mix.device), self.spec.in_rate
        spec, length = separator.spec, mix.shape[-1]
        low = change_rate(mix, rate, spec.in_rate)
        windows = max(1, -(-low.shape[-1] // spec.core))  # a model without context needs whole windows
        padding = windows * spec.core - low.shape[-1] if not spec.context else 0
        with torch.set_grad_enabled(self.joint and torch.is_grad_enabled()):
            padded = F.pad(low.unsqueeze(1), (spec.context, spec.context + padding))
            separated = separator(padded)[:, :, 0, : low.shape[-1]]
        estimates = change_rate(separated, spec.in_rate, rate)
        estimates = F.pad(estimates, (0, max(0, length - estimates.shape[-1])))[..., :length]
        order = best_permutation(pairwise_metric(sources, estimates.detach(), si_sdr))  # the source of each estimate
        return torch.cat([mix.unsqueeze(1), estimates], dim=1), sources.gather(1, order.unsqueeze(2).expand_as(sources))

    def losses(self, forward: ForwardFn, batch: Batch) -> Losses:
        """Compute the losses of each estimate and its source, without the context."""
        inputs, ordered = self.separate(batch["input"][:, 0], batch["target"])
        context, length = self.spec.context, inputs.shape[-1]
        estimate, target = forward(inputs).flatten(2), ordered[..., context : length - context]  # (B, S, T)
        terms, w = {}, self.loss_weights
        if w.si_snr:
            own = pairwise_metric(estimate, target, si_snr_and_level).diagonal(dim1=1, dim2=2)
            terms["si_snr"] = -w.si_snr * own.mean(1).clamp_max(30).mean()
        # Sources are concatenated, so that errors in a silent one are relative to the level of the others.
        joined, joined_target = estimate.flatten(1), target.flatten(1)
        if w.stft:
            terms["stft"] = w.stft * multi_resolution_stft(joined, joined_target, self.spec.in_rate, floor=_FLOOR)
        if w.lsd:
            terms["lsd"] = w.lsd * log_spectral(joined, joined_target, self.spec.in_rate)
        return Losses(terms, estimate.flatten(0, 1), target.flatten(0, 1))

    def score(self, model: Model, recordings: Recordings) -> float:
        """Compute the mean negative LSD over 20 fixed mixtures of validation speakers, ± 2.5 dB, 4 s each.

        Only the bandwidth of the narrowest recording of a mixture counts, as in training.
        """
        valid = recordings.valid
        spec, length = model.spec, 4 * model.spec.in_rate
        generator = torch.Generator().manual_seed(VALID_SEED)
        fixed_level = Mixing(speed_perturbation=0.0, level_db=(-20.0, -20.0))
        params = mixing.draw(fixed_level, valid, spec.sources, 20, length, generator)
        mix, sources = mixing.render(params, valid, length, next(model.parameters()).device)
        band = (valid.bandwidth[params["recording"]].amin(1) / (spec.in_rate / 2)).clamp_max(1)  # (B,)
        distances: list[float] = []
        with torch.no_grad():
            for mixes, references, bands in zip(*(torch.split(x, 4) for x in (mix, sources, band)), strict=True):
                inputs, ordered = self.separate(mixes, references)
                estimates = model(F.pad(inputs, (spec.context, spec.context)))[:, :, 0]  # (B, S, T)
                for estimate, target, high in zip(estimates, ordered, bands.tolist(), strict=True):
                    distances += [float(lsd(*pair, high=high)) for pair in zip(estimate, target, strict=True)]
        return -sum(distances) / len(distances)
