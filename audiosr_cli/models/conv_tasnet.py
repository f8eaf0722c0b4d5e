"""Conv-TasNet: masks over a learned encoding, from dilated convolutions (Luo & Mesgarani 2019, arXiv 1809.07454)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.contract import ModelSpec
from audiosr_cli.models.base import Model, separator_spec
from audiosr_cli.models.fused import depthwise, norm_act
from audiosr_cli.models.layers import Decoder, Encoder
from audiosr_cli.models.registry import register


@dataclass(frozen=True)
class ConvTasNetConfig:
    """Every number of a Conv-TasNet, by the paper's letters (tab. I); the defaults are its best.

    ``filters`` N, ``kernel`` L and ``stride`` of the encoder, ``width`` B, ``hidden`` H, ``skip`` Sc, ``taps`` P,
    ``blocks`` X in each of ``repeats`` R. ``mask`` is what bounds the masks. ``context``, ``core`` and ``overlap``
    are how it streams, in samples: its norms hear the whole window.
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
        assert min(self.sources, self.filters, self.stride, self.width, self.hidden, self.skip, self.blocks) >= 1
        assert self.kernel >= self.stride and self.taps % 2 == 1 and min(self.taps, self.repeats) >= 1
        assert self.context >= 0 and self.core + 2 * self.context >= self.kernel

    @property
    def spec(self) -> ModelSpec:
        """The contract that follows."""
        return separator_spec(self)


def _norm(channels: int) -> nn.GroupNorm:
    """Global layer normalisation (eq. 8)."""
    return nn.GroupNorm(1, channels, eps=1e-8)


class Block(nn.Module):
    """A 1-D block (fig. 1C): widen, convolve each channel, and answer to the next block and to the masks."""

    def __init__(self, config: ConvTasNetConfig, dilation: int) -> None:
        super().__init__()
        c, reach = config, dilation * (config.taps // 2)
        self.widen, self.act1, self.norm1 = nn.Conv1d(c.width, c.hidden, 1), nn.PReLU(), _norm(c.hidden)
        self.depthwise = nn.Conv1d(c.hidden, c.hidden, c.taps, padding=reach, dilation=dilation, groups=c.hidden)
        self.act2, self.norm2 = nn.PReLU(), _norm(c.hidden)
        self.residual, self.skip = nn.Conv1d(c.hidden, c.width, 1), nn.Conv1d(c.hidden, c.skip, 1)

    def forward(self, h: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """Add what this block has for the next one, and for the masks: (B, L, width), (B, L, skip) → the same."""
        inner = norm_act(pointwise(h, self.widen), self.norm1, inner=self.act1.weight)
        inner = norm_act(depthwise(inner, self.depthwise), self.norm2, inner=self.act2.weight)
        # One product for both, which reads its input once, and whose gradient is not a sum of two.
        weight = torch.cat([self.residual.weight, self.skip.weight])[:, :, 0]
        bias = torch.cat([part.bias for part in (self.residual, self.skip) if part.bias is not None])
        both = F.linear(inner, weight, bias)
        residual, skip = both.split([h.shape[2], total.shape[2]], dim=2)
        return h + residual, total + skip


def pointwise(h: Tensor, conv: nn.Conv1d) -> Tensor:
    """A convolution of kernel 1 on a features-last map: (B, L, C) → (B, L, C')."""
    return F.linear(h, conv.weight[:, :, 0], conv.bias)


@register("conv_tasnet", ConvTasNetConfig)
class ConvTasNet(Model):
    """The network, as Asteroid builds it: its encoder is linear, its last residual is not heard."""

    config: ConvTasNetConfig

    def __init__(self, config: ConvTasNetConfig) -> None:
        super().__init__(config)
        c = config
        self.encoder, self.decoder = Encoder(c.filters, c.kernel, c.stride), Decoder(c.filters, c.kernel, c.stride)
        self.norm, self.bottleneck = _norm(c.filters), nn.Conv1d(c.filters, c.width, 1)
        self.blocks = nn.ModuleList(Block(c, 2 ** (i % c.blocks)) for i in range(c.blocks * c.repeats))
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
        made = self.decoder((mask * encoded.unsqueeze(1)).flatten(0, 1), x.shape[-1])  # (B * S, T)
        return made.unflatten(0, mask.shape[:2])[:, :, None, c.context : x.shape[-1] - c.context]
