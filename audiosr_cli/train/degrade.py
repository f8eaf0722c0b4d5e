"""Band-limiting for super-resolution, as tensor work on whole batches."""

from __future__ import annotations

import torch
from torch import Tensor


def low_pass(waves: Tensor, edge: Tensor, roll_off: Tensor, sample_rate: int) -> Tensor:
    """Waves (B, T) without what lies above ``edge`` (B,) Hz, with zero phase.

    The response falls as a raised cosine from 1 at ``edge * (1 - roll_off)`` to 0 at ``edge``;
    ``roll_off`` (B,) lies in (0, 1]. The ends of the wave wrap around (circular convolution).
    """
    length = waves.shape[-1]
    frequency = torch.fft.rfftfreq(length, 1 / sample_rate)  # (F,)
    below = (1 - frequency / edge[:, None]) / roll_off[:, None]
    response = (1 - torch.cos(torch.pi * below.clamp(0, 1))) / 2
    made: Tensor = torch.fft.irfft(torch.fft.rfft(waves) * response, length)
    return made


def random_edges(count: int, low: float, high: float, usual: tuple[float, ...], generator: torch.Generator) -> Tensor:
    """Band edges (B,) in Hz: half of them one of ``usual``, half log-uniform between ``low`` and ``high``."""
    spread = torch.rand(count, generator=generator)
    edges = low * (high / low) ** spread
    picks = torch.tensor(usual)[torch.randint(0, len(usual), (count,), generator=generator)]
    return torch.where(torch.rand(count, generator=generator) < 0.5, picks, edges)
