"""Wave-U-Net: a U-Net on waveforms (Stoller, Ewert & Dixon, ISMIR 2018, arXiv 1806.03185)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.config import at_least, check, multiple, odd
from audiosr_cli.contract import ModelSpec
from audiosr_cli.models.base import Model, check_separator, separator_spec
from audiosr_cli.models.layers import Grid, across_ranks, conv, crop, interleave, to_map
from audiosr_cli.models.registry import register

# Blocks; 2^24 samples are six minutes at 48 kHz, so no signal has that many levels.
_DEEPEST = 24


@dataclass(frozen=True)
class WaveUNetConfig:
    """Configuration of a Wave-U-Net; the defaults are the paper's M3 with two sources.

    Args:
        sample_rate: Sample rate in Hz.
        sources: Number of sources.
        channels: Channels of the mixture and of each source.
        depth: Number of down blocks (paper: L).
        filters: Block l has ``filters * l`` filters (paper: F_c).
        kernel_down: Odd kernel of the down blocks.
        kernel_up: Odd kernel of the up blocks.
        valid: Convolutions without padding, which need real samples around the target (sec. 3.2.2). Otherwise every
            layer pads with zeros.
        difference: The last source is the mixture minus the others (sec. 3.2.1).
        learned_upsampling: Interpolate with a trained weight per channel (sec. 3.2.4).
        output: "tanh" as the paper's baseline; "clip" is linear in training and clips to [-1, 1] in evaluation, as the
            paper does with the difference layer; "linear" never changes the level.
        bias: Whether convolutions have biases. Without, and with "linear", the network is positively homogeneous: gain
            in is gain out.
        norm: Divide each channel by its RMS after every convolution, see ``ChannelScale``.
        slope: Slope of the leaky ReLU below zero.
        core: Samples that one window answers for, a multiple of 2^depth.
        overlap: Samples that two neighbouring windows have in common, a multiple of 2^depth.
        name: Name of the model.

    Raises:
        UsageError: A value is impossible.
    """

    sample_rate: int = 22050
    sources: int = 2
    channels: int = 1
    depth: int = 12
    filters: int = 24
    kernel_down: int = 15
    kernel_up: int = 5
    valid: bool = True
    difference: bool = True
    learned_upsampling: bool = False
    output: Literal["tanh", "clip", "linear"] = "tanh"
    bias: bool = True
    norm: bool = False
    slope: float = 0.2
    core: int = 16384
    overlap: int = 0
    name: str = "wave_u_net"

    def __post_init__(self) -> None:
        at_least(self, 1, "depth", "sources", "channels", "filters")
        check(self.depth <= _DEEPEST, f"depth = {self.depth}: must be at most {_DEEPEST}")
        check(self.sources > self.difference, f"sources = {self.sources}: must be at least 2 with difference = true")
        odd(self, "kernel_down", "kernel_up")
        check_separator(self)
        multiple(self.core, self.stride, "core", "2 ^ depth")
        multiple(self.overlap, self.stride, "overlap", "2 ^ depth")

    @property
    def stride(self) -> int:
        """Input samples per bottleneck sample; windows start at multiples of it."""
        return int(2**self.depth)

    @property
    def reach(self) -> int:
        """Samples that the valid convolutions consume before the first output sample."""
        grid = Grid()
        for _ in range(self.depth):
            grid = Grid(grid.conv(self.kernel_down).offset, grid.step * 2)
        grid = grid.conv(self.kernel_down)
        for _ in range(self.depth):
            grid = grid.upsampled().conv(self.kernel_up)
        return grid.offset

    @property
    def context(self) -> int:
        """Samples on each side that only inform the output: the reach, and what decimation may lose at the end."""
        return self.reach + 2 * self.stride if self.valid else 0

    @property
    def spec(self) -> ModelSpec:
        """The contract with the engine."""
        return separator_spec(self, self.channels)


class Upsample1d(nn.Module):
    """Double the rate of a map by interpolation between neighbours (sec. 3.2.4).

    Linear, or learned: the new sample is σ(w)·x_t + (1 - σ(w))·x_{t+1} with a weight per channel. With valid padding
    T samples become 2T - 2; otherwise the last sample is repeated and they become 2T.
    """

    def __init__(self, channels: int, learned: bool, valid: bool) -> None:
        super().__init__()
        self.valid = valid
        self.weight = nn.Parameter(torch.zeros(1, channels, 1, 1)) if learned else None

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, 1, T) → (B, C, 1, 2T - 2), or 2T without valid padding."""
        now, after = h[..., :-1], h[..., 1:]
        if not self.valid:
            now, after = h, torch.cat([after, h[..., -1:]], dim=-1)
        share = 0.5 if self.weight is None else torch.sigmoid(self.weight).to(h.dtype)
        return interleave(now, after + share * (now - after))


class ChannelScale(nn.Module):
    """Divide each channel by its RMS: batch normalisation (Ioffe & Szegedy 2015) without means and biases.

    In training the RMS is that over time and the batch of all ranks. In evaluation it is the running average, which is
    a constant per channel, so streaming stays exact and the network homogeneous.
    """

    mean_square: Tensor

    def __init__(self, channels: int, momentum: float = 0.02) -> None:
        super().__init__()
        self.momentum = momentum
        self.gain = nn.Parameter(torch.ones(channels))
        self.register_buffer("mean_square", torch.ones(channels))

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, 1, T) → the same shape."""
        mean_square = self.mean_square
        if self.training:
            mean_square = across_ranks(h.float().square().mean((0, 2, 3)))
            with torch.no_grad():
                self.mean_square.lerp_(mean_square, self.momentum)
        return h * (self.gain * (mean_square + 1e-8).rsqrt()).to(h.dtype)[:, None, None]


@register("wave_u_net", WaveUNetConfig)
class WaveUNet(Model):
    """The Wave-U-Net (sec. 3).

    Deviations: slope, biases, norm and overlap are configurable, and the difference layer's output is clipped only with
    ``output = "clip"``.
    """

    config: WaveUNetConfig

    def __init__(self, config: WaveUNetConfig) -> None:
        super().__init__(config)
        c = config
        widths = [c.channels] + [c.filters * (level + 1) for level in range(c.depth + 1)]
        options = {"valid": c.valid, "bias": c.bias}
        self.down = nn.ModuleList(conv(widths[i], widths[i + 1], c.kernel_down, **options) for i in range(c.depth))
        self.bottleneck = conv(widths[c.depth], widths[c.depth + 1], c.kernel_down, **options)
        levels = range(c.depth, 0, -1)
        self.upsample = nn.ModuleList(Upsample1d(widths[i + 1], c.learned_upsampling, c.valid) for i in levels)
        self.up = nn.ModuleList(conv(widths[i] + widths[i + 1], widths[i], c.kernel_up, **options) for i in levels)
        estimated = c.sources - 1 if c.difference else c.sources
        self.head = conv(widths[1] + c.channels, estimated * c.channels, 1, bias=c.bias)
        scaled = [*widths[1:], *(widths[i] for i in levels)] if c.norm else []
        self.scale = nn.ModuleList(ChannelScale(width) for width in scaled)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=c.slope)
        nn.init.xavier_normal_(self.head.weight)

    def _activate(self, h: Tensor, layer: int) -> Tensor:
        if self.config.norm:
            h = self.scale[layer](h)
        return F.leaky_relu(h, self.config.slope, inplace=not h.requires_grad)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, S, C, T - 2 * context); without valid padding T is a multiple of 2^depth."""
        c, grid, target = self.config, Grid(), Grid(self.config.reach if self.config.valid else 0)
        length = x.shape[-1] - 2 * c.context
        mix = to_map(x[..., c.context - target.offset :])
        h, skips = mix, []
        for i, layer in enumerate(self.down):
            h, grid = self._activate(layer(h), i), grid.conv(c.kernel_down, valid=c.valid)
            skips.append((h, grid))
            h, grid = h[..., ::2], Grid(grid.offset, grid.step * 2)
        h, grid = self._activate(self.bottleneck(h), c.depth), grid.conv(c.kernel_down, valid=c.valid)
        for i, (upsample, layer) in enumerate(zip(self.upsample, self.up, strict=True), c.depth + 1):
            h, grid = upsample(h), grid.upsampled()
            skip, skip_grid = skips.pop()
            skip = crop(skip, skip_grid, grid, h.shape[-1])
            h, grid = self._activate(layer(torch.cat([skip, h], dim=1)), i), grid.conv(c.kernel_up, valid=c.valid)
        h, mix = crop(h, grid, target, length), crop(mix, Grid(), target, length)
        return self._outputs(self.head(torch.cat([h, mix], dim=1)), mix)

    def _outputs(self, h: Tensor, mix: Tensor) -> Tensor:
        c, mix = self.config, mix.squeeze(2)  # (B, C, T)
        sources = h.float().reshape(len(h), -1, c.channels, h.shape[-1])  # (B, S or S-1, C, T)
        if c.output == "tanh":
            sources = torch.tanh(sources)
        if c.difference:
            sources = torch.cat([sources, (mix - sources.sum(1)).unsqueeze(1)], dim=1)
        return sources.clamp(-1, 1) if c.output == "clip" and not self.training else sources
