"""The generator of HiFi-GAN (Kong, Kim & Bae 2020, arXiv 2010.05646): a vocoder for log mel spectrograms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.config import at_least, multiple, odd

# Slope of the leaky ReLUs below zero, as in the published code.
_SLOPE = 0.1


@dataclass(frozen=True)
class HiFiGANConfig:
    """Configuration of a HiFiGAN; the defaults are AudioSR-basic's, for 48 kHz.

    Args:
        mels: Mel bands of a frame.
        width: Features before the first upsampling layer; each layer halves them.
        rates: Upsampling factor of each layer.
        kernels: Odd kernels of the residual blocks behind each layer, whose outputs are averaged.
        dilations: Dilations within each residual block.

    Raises:
        UsageError: A value is impossible.
    """

    mels: int = 256
    width: int = 1536
    rates: tuple[int, ...] = (6, 5, 4, 2, 2)
    kernels: tuple[int, ...] = (3, 7, 11, 15)
    dilations: tuple[int, ...] = (1, 3, 5)

    def __post_init__(self) -> None:
        at_least(self, 1, "rates", "dilations", "mels", "width")
        odd(self, "kernels")
        multiple(self.width, 1 << len(self.rates), "width", "2 ^ (number of rates)")

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return math.prod(self.rates)


class MultiDilationBlock(nn.Module):
    """Residual block (sec. 2.2, fig. 1): pairs of a dilated and an undilated convolution, a shortcut around each."""

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
    """The generator: transposed convolutions, each followed by multi-receptive-field fusion (sec. 2.2)."""

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
            MultiDilationBlock(width, kernel, c.dilations) for width in widths[1:] for kernel in c.kernels
        )

    def forward(self, mel: Tensor) -> Tensor:
        """(B, mels, L) → (B, L * hop_length), within ±1."""
        h = self.enter(mel)
        count = len(self.config.kernels)
        for i, up in enumerate(self.ups):
            h = up(F.leaky_relu(h, _SLOPE))
            h = torch.stack([block(h) for block in self.blocks[i * count : (i + 1) * count]]).mean(0)
        return torch.tanh(self.leave(F.leaky_relu(h)))[:, 0]
