"""The generator of AP-BWE (Lu et al., TASLP 2024, arXiv 2401.06387) with random weights, to compare its speed.

It has the published size and frames: two streams, one of log magnitudes and one of phases, each of which gets the sum
of both before every block. Losses, discriminators and trained weights are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_N_FFT, _HOP_LENGTH, _WINDOW = 1024, 80, 320


class ApBweBlock(nn.Module):
    """The residual branch of a ConvNeXt block, with an expansion of 3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 3 * width)
        self.narrow = nn.Linear(3 * width, width)

    def forward(self, h: Tensor) -> Tensor:
        """(1, L, C) → what is added to it, (1, L, C)."""
        residual: Tensor = self.narrow(F.gelu(self.wide(self.norm(self.depthwise(h.mT).mT))))
        return residual


class ApBwe(nn.Module):
    """The generator for 48 kHz: a hop of 80 samples, 512 channels, 8 pairs of blocks."""

    window: Tensor

    def __init__(self, width: int = 512, blocks: int = 8) -> None:
        super().__init__()
        bins = _N_FFT // 2 + 1
        self.register_buffer("window", torch.hann_window(_WINDOW))
        self.enter = nn.ModuleList(nn.Conv1d(bins, width, 7, padding=3) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.first, self.second = (nn.ModuleList(ApBweBlock(width) for _ in range(blocks)) for _ in range(2))
        self.heads = nn.ModuleList(nn.Linear(width, bins) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(1, 1, T) → (1, T')."""
        spectrum = torch.stft(x[:, 0], _N_FFT, _HOP_LENGTH, _WINDOW, self.window, return_complex=True)
        log_magnitude = (spectrum.abs() + 1e-4).log()
        first, second = (
            norm(enter(part).mT)
            for enter, norm, part in zip(self.enter, self.norms, (log_magnitude, spectrum.angle()), strict=False)
        )
        for first_block, second_block in zip(self.first, self.second, strict=True):
            first, second = first + second, second + first
            first, second = first + first_block(first), second + second_block(second)
        first, second = self.norms[2](first), self.norms[3](second)
        magnitude = (log_magnitude + self.heads[0](first).mT).exp()
        phase = torch.atan2(self.heads[1](second), self.heads[2](second)).mT
        return torch.istft(torch.polar(magnitude, phase), _N_FFT, _HOP_LENGTH, _WINDOW, self.window)
