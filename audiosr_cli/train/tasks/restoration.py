"""Restoring separated speakers: mixtures at full rate, and what a separator at a low rate makes of them."""

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
from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.losses import (
    best_assignment,
    log_spectral,
    multi_resolution_stft,
    pair_figures,
    si_snr_and_level,
)
from audiosr_cli.train.mixing import Mixing
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks.base import VALID_SEED, Adversary, Batch, Forward, Losses, Recordings
from audiosr_cli.train.tasks.surroundings import surroundings
from audiosr_cli.train.transfer import upload

_FLOOR = 1e-3  # of magnitudes whose logarithms are compared: silence is no ten times worse to miss than speech
_ROLL_OFF = 0.02  # at the cutoff of the narrowest recording of a mixture


@dataclass(frozen=True)
class Shares:
    """What each term of the loss counts: SI-SNR with level in dB, the distance of magnitudes, and the LSD."""

    si_snr: float = 0.1
    stft: float = 1.0
    lsd: float = 0.0

    def __post_init__(self) -> None:
        within(self, 0, float("inf"), *vars(self))
        if not any(vars(self).values()):
            raise UsageError("weights: one of si_snr, stft and lsd must be above 0")


@dataclass(frozen=True)
class Restoration:
    """Mixtures as ``mixing`` has them, through ``separator``: a bundled one by name, anybody's by path.

    Targets are in the order in which that separator answers. It is frozen, or learns with the network (``joint``).
    """

    spec: ModelSpec
    batch_size: int
    crop_s: float
    separator: str
    joint: bool = False
    mixing: Mixing = field(default_factory=Mixing)
    weights: Shares = field(default_factory=Shares)
    figure: str = "-LSD"

    def __post_init__(self) -> None:
        positive(self, "batch_size", "crop_s")
        parting, own = self.parting.spec, self.spec
        if parting.sources != own.sources or parting.task != "separate":
            raise UsageError(f"[task] separator = {self.separator!r}: does not part {own.sources} speakers")
        if not 0.8 * (cutoff := parting.out_rate / 2) <= own.cutoff_hz <= cutoff:
            raise UsageError(f"[model] cutoff_hz = {own.cutoff_hz:g}: the separator's sources end at {cutoff:g} Hz")
        if self.joint and parting.name == own.name:
            raise UsageError(f"[model] name = {own.name!r}: is the separator's, which learns beside it")

    @cached_property
    def parting(self) -> Model:
        """The separator."""
        network = load_model(self.separator).requires_grad_(self.joint)
        for part in network.modules():
            if isinstance(part, nn.RNNBase):  # cuDNN has no gradients for those otherwise
                part.train(self.joint)
        return network

    @property
    def partner(self) -> Model | None:
        """The separator, where it learns."""
        return self.parting if self.joint else None

    @property
    def adversary(self) -> Adversary | None:
        """None: what is restored lies in the mixture."""
        return None

    @property
    def difficulty(self) -> None:
        """None."""
        return None

    def heads(self, model: Model) -> None:
        """None."""
        del model

    def batch(self, recordings: Recordings, generator: torch.Generator, ranks: Ranks) -> Batch:
        """``input`` (B, 1, T): the mixture; ``target`` (B, S, T).

        Above the band of one of the speakers nobody has anything: highs that only others' recordings have would teach
        that some speakers have none.
        """
        if self.joint and ranks.world > 1:
            raise UsageError("[task] joint = true: the separator learns in one process only")
        length, train = round(self.crop_s * self.spec.in_rate), recordings.train
        noise, rooms = surroundings(self.mixing, recordings, self.spec)
        count = self.batch_size * ranks.world
        recipe = mixing.draw(self.mixing, train, self.spec.sources, count, length, generator, noise, rooms)
        recipe = ranks.share(recipe, self.batch_size)
        mix, sources = mixing.render(recipe, train, length, ranks.device, noise, rooms)
        band = (train.bandwidth[recipe["recording"]] * recipe["rate"].float()).amin(1)  # (B,)
        if bool((band < self.spec.in_rate / 2).any()):
            waves = torch.cat([mix.unsqueeze(1), sources], dim=1)  # (B, 1 + S, T)
            cutoff = upload(band.repeat_interleave(waves.shape[1]), ranks.device)
            narrow = low_pass(waves.flatten(0, 1), cutoff, torch.full_like(cutoff, _ROLL_OFF), self.spec.in_rate)
            mix, sources = narrow.view_as(waves)[:, 0], narrow.view_as(waves)[:, 1:]
        return {"input": mix.unsqueeze(1), "target": sources}

    def part(self, mix: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
        """Mixtures (B, T), sources (B, S, T) → mixtures with estimates (B, 1 + S, T), sources in the order of those."""
        parting, rate = self.parting.to(mix.device), self.spec.in_rate
        spec, length = parting.spec, mix.shape[-1]
        low = change_rate(mix, rate, spec.in_rate)
        windows = max(1, -(-low.shape[-1] // spec.core))  # a model without context takes whole ones
        room = windows * spec.core - low.shape[-1] if not spec.context else 0
        with torch.set_grad_enabled(self.joint and torch.is_grad_enabled()):
            made = parting(F.pad(low.unsqueeze(1), (spec.context, spec.context + room)))[:, :, 0, : low.shape[-1]]
        estimates = change_rate(made, spec.in_rate, rate)
        estimates = F.pad(estimates, (0, max(0, length - estimates.shape[-1])))[..., :length]
        order = best_assignment(pair_figures(sources, estimates.detach(), si_sdr))  # which source each estimate is
        return torch.cat([mix.unsqueeze(1), estimates], dim=1), sources.gather(1, order.unsqueeze(2).expand_as(sources))

    def losses(self, forward: Forward, batch: Batch) -> Losses:
        """Each estimate against its own source, less the context that it was made from."""
        heard, ordered = self.part(batch["input"][:, 0], batch["target"])
        context, length = self.spec.context, heard.shape[-1]
        estimate, target = forward(heard).flatten(2), ordered[..., context : length - context]  # (B, S, T)
        terms, w = {}, self.weights
        if w.si_snr:
            own = pair_figures(estimate, target, si_snr_and_level).diagonal(dim1=1, dim2=2)
            terms["si_snr"] = -w.si_snr * own.mean(1).clamp_max(30).mean()
        made, true = (
            estimate.flatten(1),
            target.flatten(1),
        )  # behind one another: a silent one is measured by the others
        if w.stft:
            terms["stft"] = w.stft * multi_resolution_stft(made, true, self.spec.in_rate, floor=_FLOOR)
        if w.lsd:
            terms["lsd"] = w.lsd * log_spectral(made, true, self.spec.in_rate)
        return Losses(terms, estimate.flatten(0, 1), target.flatten(0, 1))

    def score(self, model: Model, valid: Corpus) -> float:
        """Mean negative LSD over 20 fixed mixtures of the valid speakers, ± 2.5 dB, 4 s each.

        Up to where the band of the narrower recording ends, as in training.
        """
        spec, length = model.spec, 4 * model.spec.in_rate
        generator = torch.Generator().manual_seed(VALID_SEED)
        plain = Mixing(speed=0.0, level_db=(-20.0, -20.0))
        recipe = mixing.draw(plain, valid, spec.sources, 20, length, generator)
        mix, sources = mixing.render(recipe, valid, length, next(model.parameters()).device)
        band = (valid.bandwidth[recipe["recording"]].amin(1) / (spec.in_rate / 2)).clamp_max(1)  # (B,)
        found: list[float] = []
        with torch.no_grad():
            for part, true, high in zip(*(torch.split(x, 4) for x in (mix, sources, band)), strict=True):
                heard, ordered = self.part(part, true)
                made = model(F.pad(heard, (spec.context, spec.context)))[:, :, 0]  # (B, S, T)
                for estimate, target, end in zip(made, ordered, high.tolist(), strict=True):
                    found += [float(lsd(*pair, high=end)) for pair in zip(estimate, target, strict=True)]
        return -sum(found) / len(found)

    def extra_scores(self, model: Model, recordings: Recordings) -> dict[str, float]:  # noqa: ARG002
        """None."""
        return {}
