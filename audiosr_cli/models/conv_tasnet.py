"""Conv-TasNet: masks on a learned encoding, by dilated convolutions (Luo & Mesgarani 2019, arXiv 1809.07454)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.config import at_least, check, odd
from audiosr_cli.contract import ModelSpec
from audiosr_cli.models.base import Model, check_separator, separator_spec
from audiosr_cli.models.fused import depthwise, norm_act
from audiosr_cli.models.layers import Decoder, Encoder
from audiosr_cli.models.registry import register


@dataclass(frozen=True)
class ConvTasNetConfig:
    """Configuration of a Conv-TasNet; the defaults are the paper's best. Its letters (tab. I) are in parentheses.

    Args:
        sample_rate: Sample rate in Hz.
        sources: Number of sources (C).
        filters: Filters of the encoder (N).
        kernel: Length of a filter in samples (L).
        stride: Samples from one frame of the encoding to the next (L / 2).
        width: Channels between two blocks (B).
        hidden: Channels inside a block (H).
        skip: Channels of the skip connections, from which the masks are computed (Sc).
        taps: Odd kernel of the depthwise convolutions (P).
        blocks: Blocks per repeat; their dilations are 1, 2, 4, … (X).
        repeats: Repeats of the blocks (R).
        mask: Activation of the masks.
        context: Samples on each side of a window that only inform the output. Norms are over the whole window.
        core: Samples that one window answers for.
        overlap: Samples that two neighbouring windows have in common.
        name: Name of the model.

    Raises:
        UsageError: A value is impossible.
    """

    sample_rate: int = 8000
    sources: int = 2
    filters: int = 512
    kernel: int = 16
    stride: int = 8
    width: int = 128
    hidden: int = 512
    skip: int = 128
    taps: int = 3
    blocks: int = 8
    repeats: int = 3
    mask: Literal["relu", "sigmoid"] = "sigmoid"
    context: int = 8000
    core: int = 32000
    overlap: int = 8000
    name: str = "conv_tasnet"

    def __post_init__(self) -> None:
        at_least(self, 1, "filters", "stride", "width", "hidden", "skip", "blocks", "repeats")
        at_least(self, self.stride, "kernel")
        odd(self, "taps")
        check_separator(self)
        window = self.core + 2 * self.context
        check(window >= self.kernel, f"core + 2 · context = {window}: must be at least kernel = {self.kernel}")

    @property
    def spec(self) -> ModelSpec:
        """The contract with the engine."""
        return separator_spec(self)


def _norm(channels: int) -> nn.GroupNorm:
    """Global layer normalisation (eq. 8)."""
    return nn.GroupNorm(1, channels, eps=1e-8)


class TCNBlock(nn.Module):
    """The 1-D block of the temporal convolutional network (fig. 1C), with a residual and a skip output."""

    def __init__(self, config: ConvTasNetConfig, dilation: int) -> None:
        super().__init__()
        c, reach = config, dilation * (config.taps // 2)
        self.widen, self.act1, self.norm1 = nn.Conv1d(c.width, c.hidden, 1), nn.PReLU(), _norm(c.hidden)
        self.depthwise = nn.Conv1d(c.hidden, c.hidden, c.taps, padding=reach, dilation=dilation, groups=c.hidden)
        self.act2, self.norm2 = nn.PReLU(), _norm(c.hidden)
        self.residual, self.skip = nn.Conv1d(c.hidden, c.width, 1), nn.Conv1d(c.hidden, c.skip, 1)

    def forward(self, h: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """Add this block's residual to ``h`` (B, L, width) and its skip output to ``total`` (B, L, skip)."""
        inner = norm_act(pointwise(h, self.widen), self.norm1, inner=self.act1.weight)
        inner = norm_act(depthwise(inner, self.depthwise), self.norm2, inner=self.act2.weight)
        # One matrix product for both outputs: it reads its input once, and its gradient is not a sum of two.
        weight = torch.cat([self.residual.weight, self.skip.weight])[:, :, 0]
        bias = torch.cat([part.bias for part in (self.residual, self.skip) if part.bias is not None])
        both = F.linear(inner, weight, bias)
        residual, skip = both.split([h.shape[2], total.shape[2]], dim=2)
        return h + residual, total + skip


def pointwise(h: Tensor, conv: nn.Conv1d) -> Tensor:
    """Apply a convolution of kernel 1 to a features-last map: (B, L, C) → (B, L, C')."""
    return F.linear(h, conv.weight[:, :, 0], conv.bias)


@register("conv_tasnet", ConvTasNetConfig)
class ConvTasNet(Model):
    """The network as Asteroid builds it: the encoder is linear, and the residual of the last block is unused."""

    config: ConvTasNetConfig

    def __init__(self, config: ConvTasNetConfig) -> None:
        super().__init__(config)
        c = config
        self.encoder, self.decoder = Encoder(c.filters, c.kernel, c.stride), Decoder(c.filters, c.kernel, c.stride)
        self.norm, self.bottleneck = _norm(c.filters), nn.Conv1d(c.filters, c.width, 1)
        self.blocks = nn.ModuleList(TCNBlock(c, 2 ** (i % c.blocks)) for i in range(c.blocks * c.repeats))
        self.blocks[-1].residual.requires_grad_(False)
        self.prelu, self.mask = nn.PReLU(), nn.Conv1d(c.skip, c.sources * c.filters, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, T) → (B, S, 1, T - 2 * context)."""
        c, encoded = self.config, self.encoder(x)  # (B, L, N)
        h = pointwise(norm_act(encoded, self.norm), self.bottleneck)
        total = h.new_zeros((*h.shape[:2], c.skip))
        for block in self.blocks:
            h, total = block(h, total)
        mask = pointwise(F.prelu(total, self.prelu.weight.to(total.dtype)), self.mask)
        mask = mask.unflatten(2, (c.sources, -1)).transpose(1, 2)  # (B, S, L, N)
        mask = torch.sigmoid(mask) if c.mask == "sigmoid" else F.relu(mask)
        estimates = self.decoder((mask * encoded.unsqueeze(1)).flatten(0, 1), x.shape[-1])  # (B * S, T)
        return estimates.unflatten(0, mask.shape[:2])[:, :, None, c.context : x.shape[-1] - c.context]
