"""HiFi-GAN's generator (Kong, Kim & Bae 2020, arXiv 2010.05646): waveforms from log mels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SLOPE = 0.1  # of the leaky ReLU


@dataclass(frozen=True)
class HiFiGANConfig:
    """Every number of a HiFiGAN; the defaults are AudioSR-basic's, for 48 kHz.

    Frames of ``mels`` become ``width`` features; layer l makes ``rates[l]`` of each one and halves the features. Then
    residual blocks, one a kernel, with ``dilations``, are averaged.
    """

    mels: int = 256
    width: int = 1536
    rates: tuple[int, ...] = (6, 5, 4, 2, 2)
    kernels: tuple[int, ...] = (3, 7, 11, 15)
    dilations: tuple[int, ...] = (1, 3, 5)

    def __post_init__(self) -> None:
        assert min(*self.rates, *self.dilations, self.mels) >= 1 and all(kernel % 2 for kernel in self.kernels)
        assert self.width % (1 << len(self.rates)) == 0

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return math.prod(self.rates)


class Residual(nn.Module):
    """Dilated convolutions, each with an undilated one behind it, beside shortcuts."""

    def __init__(self, width: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.dilated = nn.ModuleList(
            nn.Conv1d(width, width, kernel, dilation=d, padding=d * (kernel // 2)) for d in dilations
        )
        self.plain = nn.ModuleList(nn.Conv1d(width, width, kernel, padding=kernel // 2) for _ in dilations)

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, T) → the same shape."""
        for dilated, plain in zip(self.dilated, self.plain, strict=True):
            h = h + plain(F.leaky_relu(dilated(F.leaky_relu(h, _SLOPE)), _SLOPE))
        return h


class HiFiGAN(nn.Module):
    """The generator."""

    def __init__(self, config: HiFiGANConfig) -> None:
        super().__init__()
        self.config = c = config
        widths = [c.width >> i for i in range(len(c.rates) + 1)]
        self.enter, self.leave = (
            nn.Conv1d(c.mels, widths[0], 7, padding=3),
            nn.Conv1d(widths[-1], 1, 7, padding=3),
        )
        self.ups = nn.ModuleList(
            nn.ConvTranspose1d(a, b, 2 * rate, rate, padding=rate // 2 + rate % 2, output_padding=rate % 2)
            for a, b, rate in zip(widths, widths[1:], c.rates, strict=False)
        )
        self.blocks = nn.ModuleList(
            Residual(width, kernel, c.dilations) for width in widths[1:] for kernel in c.kernels
        )

    def forward(self, mel: Tensor) -> Tensor:
        """(B, mels, L) → (B, L * hop_length), within ±1."""
        h = self.enter(mel)
        count = len(self.config.kernels)
        for i, up in enumerate(self.ups):
            h = up(F.leaky_relu(h, _SLOPE))
            h = torch.stack([block(h) for block in self.blocks[i * count : (i + 1) * count]]).mean(0)
        return torch.tanh(self.leave(F.leaky_relu(h)))[:, 0]
