"""Voices: vectors that lie close for one speaker and apart for two."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from audiosr_cli.errors import TrainingError
from audiosr_cli.models import Model, ModelSpec
from audiosr_cli.train.checks import positive, within
from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks.base import VALID_SEED, Adversary, Batch, Forward, Losses, Recordings
from audiosr_cli.train.transfer import upload

_DRAWS = 8  # of two crops of every valid speaker


@dataclass(frozen=True)
class Embedding:
    """Two crops of each of ``batch_size`` speakers, each of one recording, as tracking meets them.

    Another voice is heard behind each crop, ``leak_db`` below it: what separators leave. Speed and pitch change within
    1 ± ``speed``, which makes more voices of few. ``sharpness`` is the factor of the cosines in the loss.
    """

    spec: ModelSpec
    batch_size: int
    crop_s: float
    leak_db: tuple[float, float] = (5.0, 30.0)
    sharpness: float = 12.0
    speed: float = 0.1
    figure: str = "pairs told apart (%)"

    def __post_init__(self) -> None:
        positive(self, "batch_size", "crop_s", "sharpness")
        within(self, 2, 1e6, "batch_size")
        within(self, 0, 0.5, "speed")

    @property
    def adversary(self) -> Adversary | None:
        """None."""
        return None

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
        """``input`` (2 · speakers, 1, T): first crops, then second ones."""
        length, count, people = round(self.crop_s * self.spec.in_rate), self.batch_size, recordings.valid.chance > 0
        if int(people.sum()) < 2:
            raise TrainingError("[data] valid: two speakers or more are wanted, to be told apart")
        for _ in range(ranks.rank + 1):  # every rank draws the speakers of those before it, too
            recipe = recordings.train.draw(1, 2 * length, generator, count, self.speed)
            share = torch.rand(count, generator=generator)
        low, high = self.leak_db
        gain = upload(torch.pow(10, -(low + (high - low) * share) / 20), ranks.device)
        waves = recordings.train.render(recipe, 2 * length, ranks.device)[0]  # (speakers, 2T)
        waves = waves / waves.square().mean(1, keepdim=True).sqrt().clamp_min(1e-4)
        crops = torch.split(waves, length, 1)  # each with somebody else behind it, or the leak would tell who it is
        mixed = [crop + gain[:, None] * crop.roll(shift, 0) for crop, shift in zip(crops, (1, -1), strict=True)]
        return {"input": torch.cat(mixed).unsqueeze(1)}

    def losses(self, forward: Forward, batch: Batch) -> Losses:
        """Cross-entropy of each crop's own speaker among this rank's (angular prototypical loss, Chung et al. 2020)."""
        first, second = forward(batch["input"]).chunk(2)
        likeness = self.sharpness * first @ second.T
        own = torch.arange(len(first), device=first.device)
        loss = (F.cross_entropy(likeness, own) + F.cross_entropy(likeness.T, own)) / 2
        return Losses({"prototypes": loss}, first, second)

    def score(self, model: Model, valid: Corpus) -> float:
        """Of all pairs of valid speakers: how many have their two crops each assigned rightly, in percent."""
        length, right, total = round(self.crop_s * self.spec.in_rate), 0, 0
        generator = torch.Generator().manual_seed(VALID_SEED)
        device = next(model.parameters()).device
        for _ in range(_DRAWS):
            recipe = valid.draw(1, 2 * length, generator, int((valid.chance > 0).sum()))
            waves = valid.render(recipe, 2 * length, device)[0]  # (speakers, 2T)
            with torch.no_grad():
                first, second = model(torch.cat(torch.split(waves, length, 1)).unsqueeze(1)).chunk(2)
            likeness = first @ second.T
            own = likeness.diagonal()
            margin = own.unsqueeze(0) + own.unsqueeze(1) - likeness - likeness.T
            above = torch.ones_like(margin, dtype=torch.bool).triu(1)
            right, total = right + int((margin[above] > 0).sum()), total + int(above.sum())
        return 100 * right / total

    def extra_scores(self, model: Model, recordings: Recordings) -> dict[str, float]:  # noqa: ARG002
        """None."""
        return {}
