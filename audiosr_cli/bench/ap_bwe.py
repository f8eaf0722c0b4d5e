"""What costs of AP-BWE's generator (Lu et al., TASLP 2024, arXiv 2401.06387): a peer to measure, not a model of ours.

Two streams, of log-magnitudes and of phases, that hear each other before every block. It is the published size with
the published frames; losses, discriminators and trained weights are not here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_N_FFT, _HOP_LENGTH, _WINDOW = 1024, 80, 320


class Block(nn.Module):
    """ConvNeXt's, its MLP three times as wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 3 * width)
        self.narrow = nn.Linear(3 * width, width)

    def forward(self, h: Tensor) -> Tensor:
        """What is added to (1, L, C)."""
        made: Tensor = self.narrow(F.gelu(self.wide(self.norm(self.depthwise(h.mT).mT))))
        return made


class ApBwe(nn.Module):
    """The generator at 48 kHz: frames every 80 samples, 512 channels, 8 pairs of blocks; random weights."""

    window: Tensor

    def __init__(self, width: int = 512, blocks: int = 8) -> None:
        super().__init__()
        bins = _N_FFT // 2 + 1
        self.register_buffer("window", torch.hann_window(_WINDOW))
        self.enter = nn.ModuleList(nn.Conv1d(bins, width, 7, padding=3) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.first, self.second = (nn.ModuleList(Block(width) for _ in range(blocks)) for _ in range(2))
        self.heads = nn.ModuleList(nn.Linear(width, bins) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(1, 1, T) → (1, T')."""
        spectrum = torch.stft(x[:, 0], _N_FFT, _HOP_LENGTH, _WINDOW, self.window, return_complex=True)
        size = (spectrum.abs() + 1e-4).log()
        first, second = (
            norm(enter(part).mT)
            for enter, norm, part in zip(self.enter, self.norms, (size, spectrum.angle()), strict=False)
        )
        for one, other in zip(self.first, self.second, strict=True):
            first, second = first + second, second + first
            first, second = first + one(first), second + other(second)
        first, second = self.norms[2](first), self.norms[3](second)
        made = (size + self.heads[0](first).mT).exp()
        phase = torch.atan2(self.heads[1](second), self.heads[2](second)).mT
        return torch.istft(torch.polar(made, phase), _N_FFT, _HOP_LENGTH, _WINDOW, self.window)
