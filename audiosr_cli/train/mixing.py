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
    level_db: float = 5.0,
    speed: float = 0.05,
) -> Tensor:
    """Sources (B, S, T) of distinct speakers; their sum is the mixture.

    Every source gets an RMS level drawn evenly within ± ``level_db`` / 2 of a common one, a random
    polarity and a speed within ± ``speed``; the mixture's peak lies between 0.03 and 0.9.
    """
    recordings = corpus.draw(count, generator, sources)
    waves = corpus.crops(recordings.flatten(), length, generator, speed).unflatten(0, (count, sources))  # (B, S, T)
    level = (torch.rand(count, sources, 1, generator=generator) - 0.5) * level_db
    sign = torch.randint(0, 2, (count, sources, 1), generator=generator) * 2 - 1
    rms = waves.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-4)
    waves = waves / rms * 10 ** (level / 20) * sign
    peak = waves.sum(1, keepdim=True).abs().amax(-1, keepdim=True).clamp_min(1e-4)
    return waves / peak * (0.03 + 0.87 * torch.rand(count, 1, 1, generator=generator))
