"""AudioUNet: audio super-resolution with a 1-D U-Net (Kuleshov, Enam & Ermon, ICLR 2017 workshop, arXiv 1708.00853)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.config import at_least, check, multiple, odd
from audiosr_cli.contract import ModelSpec
from audiosr_cli.models.base import Model
from audiosr_cli.models.layers import Grid, conv, crop, subpixel, to_map
from audiosr_cli.models.registry import register

# Length of the interpolation filter on each side, in input samples.
_HALF_TAPS = 16


@dataclass(frozen=True)
class AudioUNetConfig:
    """Configuration of an AudioUNet; the defaults are the paper's with four blocks (sec. 3).

    Args:
        sample_rate: Sample rate of the output in Hz.
        ratio: Output samples per input sample. Above 1 the network interpolates first, as the paper does with a spline.
        filters: Filters of each down block; the last number is the bottleneck's, too.
        kernels: Odd kernel of each down block; the last one is the bottleneck's, too.
        kernel_out: Odd kernel of the output layer.
        dropout: Dropout in the bottleneck and the up blocks.
        bias: Whether convolutions have biases. Without, the network is positively homogeneous: gain in is gain out,
            and silence stays silent.
        slope: Slope of the leaky ReLU below zero.
        core: Input samples that one window answers for; ``core * ratio`` is a multiple of ``stride``.
        name: Name of the model.

    Raises:
        UsageError: A value is impossible.
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
        at_least(self, 1, "sample_rate", "ratio", "filters", "core")
        odd(self, "kernels", "kernel_out")
        check(
            len(self.filters) == len(self.kernels) >= 1,
            f"filters = {list(self.filters)}, kernels = {list(self.kernels)}: must have one number per block each",
        )
        check(0 <= self.dropout < 1, f"dropout = {self.dropout:g}: must be at least 0 and below 1")
        multiple(self.core * self.ratio, self.stride, "core · ratio", "2 ^ (blocks + 1)")
        multiple(self.sample_rate, self.ratio, "sample_rate", "ratio")

    @property
    def stride(self) -> int:
        """Output samples per bottleneck sample."""
        return int(2 ** (len(self.filters) + 1))

    @property
    def reach(self) -> int:
        """Output samples that the valid convolutions consume before the first output sample."""
        grid = Grid()
        for kernel in (*self.kernels, self.kernels[-1]):
            grid = grid.conv(kernel, stride=2)
        for kernel in reversed(self.kernels):
            grid = grid.conv(kernel).upsampled()
        return grid.conv(self.kernel_out).offset

    @property
    def context(self) -> int:
        """Input samples on each side that only inform the output."""
        return -(-(self.reach + 2 * self.stride) // self.ratio) + (_HALF_TAPS if self.ratio > 1 else 0)

    @property
    def spec(self) -> ModelSpec:
        """The contract with the engine."""
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


class SincInterpolation(nn.Module):
    """Interpolate by ``ratio`` with a Hann-windowed sinc of 32 taps, polyphase, without padding.

    The paper uses a cubic spline. A sinc leaves weaker images, and streams just as well.
    """

    taps: Tensor

    def __init__(self, ratio: int) -> None:
        super().__init__()
        position = torch.arange(ratio)[:, None] / ratio - torch.arange(1 - _HALF_TAPS, _HALF_TAPS + 1)
        taps = torch.sinc(position) * torch.cos(torch.pi * position / (2 * _HALF_TAPS)).square()
        self.register_buffer("taps", (taps / taps.sum(1, keepdim=True)).unsqueeze(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, T) → (B, 1, (T - 31) * ratio); the first output sample is at input sample 15."""
        return F.conv1d(x, self.taps).transpose(1, 2).flatten(1).unsqueeze(1)


@register("audio_unet", AudioUNetConfig)
class AudioUNet(Model):
    """The U-Net of the paper, sec. 3: strided convolutions down, subpixel shuffling up, an additive skip over all.

    Deviations: valid padding instead of zeros, so that streaming equals one pass; leaky ReLUs as in the published code;
    interpolation by a sinc; biases are optional.
    """

    config: AudioUNetConfig

    def __init__(self, config: AudioUNetConfig) -> None:
        super().__init__(config)
        c = config
        self.interpolate = SincInterpolation(c.ratio) if c.ratio > 1 else None
        widths, kernels = (1, *c.filters, c.filters[-1]), (*c.kernels, c.kernels[-1])
        blocks = range(len(kernels))
        self.down = nn.ModuleList(conv(widths[i], widths[i + 1], kernels[i], stride=2, bias=c.bias) for i in blocks)
        self.up = nn.ModuleList()
        width = widths[-1]
        for i in reversed(range(len(c.filters))):  # mirrors down block i; the skip is added after the shuffle
            self.up.append(conv(width, 2 * c.filters[i], kernels[i], bias=c.bias))
            width = 2 * c.filters[i]
        self.head = conv(width, 2, c.kernel_out, bias=c.bias)
        self.dropout = nn.Dropout(c.dropout)
        for layer in (*self.down, *self.up):
            nn.init.kaiming_normal_(layer.weight, a=c.slope)
        nn.init.normal_(self.head.weight, std=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, T) at ``in_rate`` → (B, 1, 1, (T - 2 * context) * ratio)."""
        c, grid, target = self.config, Grid(), Grid(self.config.reach)
        length = (x.shape[-1] - 2 * c.context) * c.ratio
        start = c.context * c.ratio - target.offset  # first input sample of the network, in output samples
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
        output = crop(h, grid, target, length) + crop(mix, Grid(), target, length)
        return output.float()  # (B, 1, 1, T * ratio)
