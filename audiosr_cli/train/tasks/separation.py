"""Separation: mixtures of distinct speakers, permutation-invariant losses."""

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
from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.heads import Clustering, Heads
from audiosr_cli.train.losses import FIGURES, multi_stage, pit, pit_items
from audiosr_cli.train.mixing import Mixing
from audiosr_cli.train.pairs import PairDifficulty, Pairs
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks.base import Adversary, Batch, Forward, Losses, Recordings
from audiosr_cli.train.tasks.surroundings import surroundings
from audiosr_cli.train.tasks.valid_sets import set_improvement

_ROLL_OFF = 0.1  # of the stages' targets


@dataclass(frozen=True)
class Separation:
    """Mixtures as ``mixing`` has them; ``loss`` is one of losses.FIGURES, under uPIT.

    A network that answers in stages, (B, stages * S, C, T) in training, has the mean of their losses; ``stage_hz``
    gives each the bandwidth of its target, otherwise all have the whole one (SFSRNet, "multi-loss").

    Three aids of training, all off by default; they change no exported weights, and a run can be resumed with and
    without them. ``half_resolution_weight`` is what the same loss counts of an answer from the feature map one level
    below the top (SpectralUNet only). ``clustering``: see heads.Clustering; ``pairs``: see pairs.Pairs.
    """

    spec: ModelSpec
    batch_size: int
    crop_s: float
    mixing: Mixing = field(default_factory=Mixing)
    loss: Literal["si_snr", "si_snr_and_level", "snr", "thresholded_si_snr", "thresholded_snr"] = "si_snr_and_level"
    stage_hz: tuple[float, ...] = ()
    half_resolution_weight: float = 0.0
    clustering: Clustering = field(default_factory=Clustering)
    pairs: Pairs = field(default_factory=Pairs)
    figure: str = "SI-SDRi (dB)"

    def __post_init__(self) -> None:
        positive(self, "batch_size", "crop_s")
        if any(hz <= 0 for hz in self.stage_hz):
            raise UsageError(f"stage_hz = {list(self.stage_hz)}: each must be above 0")
        within(self, 0, 1e6, "half_resolution_weight")
        if self.pairs.candidates and max(self.mixing.turns, self.mixing.short, self.mixing.absent) >= 1:
            raise UsageError(
                f"[task.pairs] candidates = {self.pairs.candidates}: learns from mixtures in which all speak all "
                "the time; [task.mixing] turns, short and absent must be below 1"
            )

    @property
    def adversary(self) -> Adversary | None:
        """None: voices are there already."""
        return None

    @property
    def partner(self) -> Model | None:
        """None."""
        return None

    @cached_property
    def difficulty(self) -> PairDifficulty | None:
        """How hard speakers are together, where partners are drawn by it."""
        return PairDifficulty(self.pairs) if self.pairs.candidates else None

    def heads(self, model: Model) -> Heads | None:
        """Fresh heads for deep clustering and for the answer at half resolution, where they are switched on."""
        if not self.clustering.weight and not self.half_resolution_weight:
            return None
        return Heads(model, self.clustering, self.half_resolution_weight, self._pit)

    def batch(self, recordings: Recordings, generator: torch.Generator, ranks: Ranks) -> Batch:
        """The crop is what the model hears: its context is cut from the target."""
        length, context, train = self._length, self.spec.context, recordings.train
        noise, rooms = surroundings(self.mixing, recordings, self.spec)
        count, speakers = self.batch_size * ranks.world, self.spec.sources
        who = self.difficulty.choose(train, count, speakers, generator) if self.difficulty else None
        recipe = mixing.draw(self.mixing, train, speakers, count, length, generator, noise, rooms, who)
        recipe = ranks.share(recipe, self.batch_size)
        mix, sources = mixing.render(recipe, train, length, ranks.device, noise, rooms)
        batch = {"input": mix.unsqueeze(1), "target": sources[..., context : length - context]}
        if self.difficulty:
            batch["speakers"] = train.speakers[recipe["recording"]].to(ranks.device)
            batch["overlapped"] = mixing.fully_overlapped(recipe, length).to(ranks.device)
        return batch

    @property
    def _length(self) -> int:
        return round(self.crop_s * self.spec.in_rate)

    def losses(self, forward: Forward, batch: Batch) -> Losses:
        """Negative figure of the best order of sources, in dB."""
        estimate, target = forward(batch["input"]).flatten(2), batch["target"]  # (B, stages * S, T), (B, S, T)
        stages = torch.split(estimate, target.shape[1], 1)
        loss = multi_stage(stages, self._goals(target, len(stages)), self._pit)
        items = pit_items(stages[-1].detach(), target, FIGURES[self.loss]) if self.difficulty else None
        return Losses({self.loss: loss}, stages[-1].flatten(0, 1), target.flatten(0, 1), items)

    def _pit(self, estimate: Tensor, target: Tensor) -> Tensor:
        return pit(estimate, target, FIGURES[self.loss])

    def _goals(self, target: Tensor, stages: int) -> list[Tensor]:
        """What each stage aims at: ``target`` (B, S, T) up to the stage's bandwidth."""
        if not self.stage_hz:
            return [target] * stages
        if len(self.stage_hz) != stages:
            raise UsageError(f"stage_hz = {list(self.stage_hz)}: the network answers {stages} times")
        rate, flat = self.spec.in_rate, target.flatten(0, 1)
        return [
            low_pass(flat, flat.new_full((1,), hz), flat.new_full((1,), _ROLL_OFF), rate).view_as(target)
            if hz < rate / 2
            else target
            for hz in self.stage_hz
        ]

    def score(self, model: Model, valid: Corpus) -> float:
        """Mean SI-SDR improvement over 40 fixed mixtures of the valid speakers, ± 2.5 dB, 5.12 s each.

        A model without context takes whole windows only, so its mixtures are as many of those as fit.
        """
        return set_improvement("plain", model, valid)

    def extra_scores(self, model: Model, recordings: Recordings) -> dict[str, float]:
        """The same over 24 mixtures each with turns, in rooms, and with valid noise where the config names some."""
        valid, noise = recordings.valid, recordings.valid_noise
        names = ("turns", "noise", "rooms") if noise else ("turns", "rooms")
        return {f"SI-SDRi {name} (dB)": set_improvement(name, model, valid, noise) for name in names}
