"""How recordings are band-limited for super-resolution."""

from __future__ import annotations

import torch
from torch import Tensor


def random_edges(count: int, low: float, high: float, usual: tuple[float, ...], generator: torch.Generator) -> Tensor:
    """Band edges (B,) in Hz: half of them one of ``usual``, half log-uniform between ``low`` and ``high``."""
    spread = torch.rand(count, generator=generator)
    edges = low * (high / low) ** spread
    picks = torch.tensor(usual)[torch.randint(0, len(usual), (count,), generator=generator)]
    return torch.where(torch.rand(count, generator=generator) < 0.5, picks, edges)
