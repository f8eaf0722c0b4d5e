"""Training of separators: mixtures of different speakers, permutation-invariant losses."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from audiosr_cli.dsp.spectra import low_pass
from audiosr_cli.errors import UsageError
from audiosr_cli.models import Model, ModelSpec
from audiosr_cli.train import mixing
from audiosr_cli.train.checks import positive, within
from audiosr_cli.train.heads import ClusteringConfig, Heads
from audiosr_cli.train.losses import METRICS, multi_stage, pit, pit_items
from audiosr_cli.train.mixing import Mixing
from audiosr_cli.train.pairs import PairDifficulty, PairSampling
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks.acoustics import noise_and_rirs
from audiosr_cli.train.tasks.base import Batch, ForwardFn, Losses, PlainTask, Recordings
from audiosr_cli.train.tasks.valid_sets import set_improvement

# Relative width of the low-pass roll-off of the stages' targets.
_ROLL_OFF = 0.1


@dataclass(frozen=True)
class Separation(PlainTask):
    """Mixtures of several speakers; the loss is permutation-invariant (uPIT).

    A network with several stages, (B, stages * S, C, T) in training, is trained on the mean of the stages' losses
    (SFSRNet, "multi-loss"). The auxiliary losses and hard-pair sampling are off by default; they do not change the
    exported network, and a run can be resumed with or without them.

    Attributes:
        batch_size: Mixtures in the batch of each process.
        crop_s: Length of a mixture in seconds.
        loss: One of losses.METRICS.
        stage_bandwidths_hz: Bandwidth of the target of each stage in Hz; empty for full-band targets.
        half_resolution_weight: Weight of the same loss for estimates from the feature map one level below the top
            (spectral_unet only); 0 for none.
    """

    spec: ModelSpec
    batch_size: int
    crop_s: float
    mixing: Mixing = field(default_factory=Mixing)
    loss: Literal["si_snr", "si_snr_and_level", "snr", "thresholded_si_snr", "thresholded_snr"] = "si_snr_and_level"
    stage_bandwidths_hz: tuple[float, ...] = ()
    half_resolution_weight: float = 0.0
    clustering: ClusteringConfig = field(default_factory=ClusteringConfig)
    pair_sampling: PairSampling = field(default_factory=PairSampling)
    metric: str = "SI-SDRi (dB)"

    def __post_init__(self) -> None:
        positive(self, "batch_size", "crop_s")
        if any(hz <= 0 for hz in self.stage_bandwidths_hz):
            raise UsageError(f"stage_bandwidths_hz = {list(self.stage_bandwidths_hz)}: each must be above 0")
        within(self, 0, 1e6, "half_resolution_weight")
        if (
            self.pair_sampling.candidates
            and max(self.mixing.turns_prob, self.mixing.padded_prob, self.mixing.silent_source_prob) >= 1
        ):
            raise UsageError(
                f"[task.pair_sampling] candidates = {self.pair_sampling.candidates}: needs mixtures in which all "
                "speakers are always active; [task.mixing] turns_prob, padded_prob and silent_source_prob must be "
                "below 1"
            )

    @cached_property
    def difficulty(self) -> PairDifficulty | None:
        """The difficulty of pairs of speakers, if hard pairs are sampled."""
        return PairDifficulty(self.pair_sampling) if self.pair_sampling.candidates else None

    def heads(self, model: Model) -> Heads | None:
        """Create the heads for deep clustering and for estimates at half resolution, if they are switched on."""
        if not self.clustering.weight and not self.half_resolution_weight:
            return None
        return Heads(model, self.clustering, self.half_resolution_weight, self._pit)

    def batch(self, recordings: Recordings, generator: torch.Generator, ranks: Ranks) -> Batch:
        """Make mixtures (B, 1, T) and targets (B, S, T'), without the network's context."""
        length, context, train = self._length, self.spec.context, recordings.train
        noise, rirs = noise_and_rirs(self.mixing, recordings, self.spec)
        count, sources = self.batch_size * ranks.world, self.spec.sources
        chosen = self.difficulty.choose(train, count, sources, generator) if self.difficulty else None
        params = mixing.draw(self.mixing, train, sources, count, length, generator, noise, rirs, chosen)
        params = ranks.share(params, self.batch_size)
        mix, target = mixing.render(params, train, length, ranks.device, noise, rirs)
        batch = {"input": mix.unsqueeze(1), "target": target[..., context : length - context]}
        if self.difficulty:
            batch["speakers"] = train.speakers[params["recording"]].to(ranks.device)
            batch["overlapped"] = mixing.fully_overlapped(params, length).to(ranks.device)
        return batch

    @property
    def _length(self) -> int:
        return round(self.crop_s * self.spec.in_rate)

    def losses(self, forward: ForwardFn, batch: Batch) -> Losses:
        """Compute the negative metric of the best permutation of sources, in dB."""
        estimate, target = forward(batch["input"]).flatten(2), batch["target"]  # (B, stages * S, T), (B, S, T)
        stages = torch.split(estimate, target.shape[1], 1)
        loss = multi_stage(stages, self._stage_targets(target, len(stages)), self._pit)
        items = pit_items(stages[-1].detach(), target, METRICS[self.loss]) if self.difficulty else None
        return Losses({self.loss: loss}, stages[-1].flatten(0, 1), target.flatten(0, 1), items)

    def _pit(self, estimate: Tensor, target: Tensor) -> Tensor:
        return pit(estimate, target, METRICS[self.loss])

    def _stage_targets(self, target: Tensor, stages: int) -> list[Tensor]:
        """Band-limit ``target`` (B, S, T) to the bandwidth of each stage."""
        if not self.stage_bandwidths_hz:
            return [target] * stages
        if len(self.stage_bandwidths_hz) != stages:
            raise UsageError(
                f"stage_bandwidths_hz = {list(self.stage_bandwidths_hz)}: needs one value for each of {stages} stages"
            )
        rate, flat = self.spec.in_rate, target.flatten(0, 1)
        return [
            low_pass(flat, flat.new_full((1,), hz), flat.new_full((1,), _ROLL_OFF), rate).view_as(target)
            if hz < rate / 2
            else target
            for hz in self.stage_bandwidths_hz
        ]

    def score(self, model: Model, recordings: Recordings) -> float:
        """Compute the mean SI-SDR improvement over 40 fixed mixtures of validation speakers, ± 2.5 dB, 5.12 s each.

        For a model without context, mixtures are shortened to whole windows.
        """
        return set_improvement("plain", model, recordings.valid)

    def extra_scores(self, model: Model, recordings: Recordings) -> dict[str, float]:
        """Compute it over 24 mixtures each with turns, in rooms, and with noise if there is any."""
        valid, noise = recordings.valid, recordings.valid_noise
        names = ("turns", "noise", "rooms") if noise else ("turns", "rooms")
        return {f"SI-SDRi {name} (dB)": set_improvement(name, model, valid, noise) for name in names}
