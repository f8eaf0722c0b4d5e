"""AudioUNet: audio super-resolution with a 1-D U-Net (Kuleshov, Enam & Ermon, ICLR 2017 workshop, arXiv 1708.00853)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.contract import ModelSpec
from audiosr_cli.models.base import Model
from audiosr_cli.models.layers import Grid, conv, crop, subpixel, to_map
from audiosr_cli.models.registry import register

_HALF_TAPS = 16  # input samples on each side that the interpolation to the target rate looks at


@dataclass(frozen=True)
class AudioUNetConfig:
    """Every number of an AudioUNet; the defaults are the paper's with four blocks (sec. 3).

    ``ratio`` 2, 4 or 6 interpolates inside the network, as the paper's spline does before it; with 1 the
    input is already at the target rate. ``filters`` and ``kernels`` hold one entry a down block (the last
    of each serves the bottleneck, too), ``kernel_out`` is the output layer's. ``bias = False`` makes
    the network positively homogeneous: gain in is gain out, silence stays silent. ``core`` is what one
    window yields, in input samples; ``core * ratio`` is a multiple of ``stride``.
    """

    sample_rate: int = 48000
    ratio: int = 1
    filters: tuple[int, ...] = (128, 256, 512, 512)
    kernels: tuple[int, ...] = (65, 33, 17, 9)
    kernel_out: int = 9
    dropout: float = 0.5
    bias: bool = True
    slope: float = 0.2
    core: int = 32768
    name: str = "audio_unet"

    def __post_init__(self) -> None:
        assert len(self.filters) == len(self.kernels) >= 1 and self.ratio >= 1
        assert all(kernel % 2 == 1 for kernel in (*self.kernels, self.kernel_out))
        assert self.core * self.ratio % self.stride == 0

    @property
    def stride(self) -> int:
        """Output samples per bottleneck sample."""
        return int(2 ** (len(self.filters) + 1))

    @property
    def reach(self) -> int:
        """Output samples that valid padding takes before the first output sample, interpolation left out."""
        grid = Grid()
        for kernel in (*self.kernels, self.kernels[-1]):
            grid = grid.conv(kernel, stride=2)
        for kernel in reversed(self.kernels):
            grid = grid.conv(kernel).upsampled()
        return grid.conv(self.kernel_out).offset

    @property
    def context(self) -> int:
        """Input samples wanted on both sides."""
        return -(-(self.reach + 2 * self.stride) // self.ratio) + (_HALF_TAPS if self.ratio > 1 else 0)

    @property
    def spec(self) -> ModelSpec:
        """The contract that follows."""
        return ModelSpec(
            name=self.name,
            task="upsample",
            in_rate=self.sample_rate // self.ratio,
            ratio=self.ratio,
            sources=1,
            channels=1,
            window=self.core + 2 * self.context,
            context=self.context,
            hop=self.core,
        )


class Interpolate(nn.Module):
    """Polyphase interpolation by ``ratio`` with a Hann-windowed sinc of 32 taps, without padding.

    The paper interpolates with a cubic spline; a sinc leaves weaker images and streams as well.
    """

    taps: Tensor

    def __init__(self, ratio: int) -> None:
        super().__init__()
        position = torch.arange(ratio)[:, None] / ratio - torch.arange(1 - _HALF_TAPS, _HALF_TAPS + 1)
        taps = torch.sinc(position) * torch.cos(torch.pi * position / (2 * _HALF_TAPS)).square()
        self.register_buffer("taps", (taps / taps.sum(1, keepdim=True)).unsqueeze(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, T) → (B, 1, (T - 31) * ratio); the first sample stands at input sample 15."""
        return F.conv1d(x, self.taps).transpose(1, 2).flatten(1).unsqueeze(1)


@register("audio_unet", AudioUNetConfig)
class AudioUNet(Model):
    """The network. Deviations from the paper: valid padding instead of zeros (so that it streams exactly),
    leaky units as in the published code, interpolation by a sinc, biases configurable.
    """

    config: AudioUNetConfig

    def __init__(self, config: AudioUNetConfig) -> None:
        super().__init__(config)
        c = config
        self.interpolate = Interpolate(c.ratio) if c.ratio > 1 else None
        widths, kernels = (1, *c.filters, c.filters[-1]), (*c.kernels, c.kernels[-1])
        blocks = range(len(kernels))
        self.down = nn.ModuleList(conv(widths[i], widths[i + 1], kernels[i], stride=2, bias=c.bias) for i in blocks)
        self.up = nn.ModuleList()
        made = widths[-1]
        for i in reversed(range(len(c.filters))):  # the mirror of down block i, its skip comes after the shuffle
            self.up.append(conv(made, 2 * c.filters[i], kernels[i], bias=c.bias))
            made = 2 * c.filters[i]
        self.head = conv(made, 2, c.kernel_out, bias=c.bias)
        self.dropout = nn.Dropout(c.dropout)
        for layer in (*self.down, *self.up):
            nn.init.kaiming_normal_(layer.weight, a=c.slope)
        nn.init.normal_(self.head.weight, std=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, T) at ``in_rate`` → (B, 1, 1, (T - 2 * context) * ratio)."""
        c, grid, target = self.config, Grid(), Grid(self.config.reach)
        length = (x.shape[-1] - 2 * c.context) * c.ratio
        start = c.context * c.ratio - target.offset  # where the network's input starts, in output samples
        if self.interpolate is not None:
            x, start = self.interpolate(x), start - (_HALF_TAPS - 1) * c.ratio
        mix = to_map(x[..., start:])
        h, skips = mix, []
        for layer, kernel in zip(self.down, (*c.kernels, c.kernels[-1]), strict=True):
            h, grid = F.leaky_relu(layer(h), c.slope), grid.conv(kernel, stride=2)
            skips.append((h, grid))
        h, _ = skips.pop()
        h = self.dropout(h)
        for layer, kernel in zip(self.up, reversed(c.kernels), strict=True):
            h, grid = subpixel(F.leaky_relu(self.dropout(layer(h)), c.slope)), grid.conv(kernel).upsampled()
            skip = crop(*skips.pop(), grid, h.shape[-1])
            h = torch.cat([h, skip], dim=1)
        h, grid = subpixel(self.head(h)), grid.conv(c.kernel_out).upsampled()
        made = crop(h, grid, target, length) + crop(mix, Grid(), target, length)
        return made.float()  # (B, 1, 1, T * ratio)
