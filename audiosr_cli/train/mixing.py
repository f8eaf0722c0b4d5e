"""Dynamic mixing: every batch is a new set of mixtures."""

from __future__ import annotations

import torch
from torch import Tensor

from audiosr_cli.train.data import Corpus


def mixtures(
    corpus: Corpus,
    count: int,
    length: int,
    generator: torch.Generator,
    sources: int = 2,
    spread_db: float = 5.0,
    speed: float = 0.05,
    level_db: tuple[float, float] = (-20.0, -20.0),
) -> Tensor:
    """Sources (B, S, T) of distinct speakers; their sum is the mixture.

    Every source gets an RMS level drawn evenly within ± ``spread_db`` / 2 of a common one, a random
    polarity and a speed within ± ``speed``; the mixture's RMS lies within ``level_db`` (dBFS).
    """
    recordings = corpus.draw(count, generator, sources)
    waves = corpus.crops(recordings.flatten(), length, generator, speed).reshape(count, sources, length)
    level = (torch.rand(count, sources, 1, generator=generator) - 0.5) * spread_db
    sign = torch.randint(0, 2, (count, sources, 1), generator=generator) * 2 - 1
    waves = waves / _rms(waves) * torch.pow(10.0, level / 20) * sign
    low, high = level_db
    joint = low + (high - low) * torch.rand(count, 1, 1, generator=generator)
    return waves / _rms(waves.sum(1, keepdim=True)) * torch.pow(10.0, joint / 20)


def _rms(waves: Tensor) -> Tensor:
    return waves.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-4)
