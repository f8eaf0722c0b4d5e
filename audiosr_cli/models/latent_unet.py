"""The U-Net of AudioSR's latent diffusion (Liu et al. 2023, arXiv 2309.07314, after Rombach et al. 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.config import at_least, check, multiple
from audiosr_cli.models.mel_vae import MelGroupNorm, ResnetBlock


@dataclass(frozen=True)
class LatentUNetConfig:
    """Configuration of a LatentUNet; the defaults are AudioSR-basic's.

    Args:
        latent: Channels of the latent. The input has twice as many: the noisy latent and the condition.
        width: Channels of the first level, even.
        multipliers: Level l has ``width * multipliers[l]`` channels.
        blocks: Residual blocks per level on the way down; one more on the way up.
        attention_from: First level with transformers behind its residual blocks.
        transformers: Transformers behind each such block.
        head: Features of an attention head.

    Raises:
        UsageError: A value is impossible.
    """

    latent: int = 16
    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 3, 5)
    blocks: int = 2
    attention_from: int = 1
    transformers: int = 2
    head: int = 32

    def __post_init__(self) -> None:
        check(bool(self.multipliers), "multipliers = []: must have at least one number")
        at_least(self, 1, "latent", "width", "blocks", "head", "multipliers")
        at_least(self, 0, "attention_from", "transformers")
        check(self.width % 2 == 0, f"width = {self.width}: must be even")
        for multiplier in self.multipliers:
            multiple(self.width * multiplier, self.head, f"width · {multiplier}", "head")

    @property
    def stride(self) -> int:
        """Both the frames and the rows of a latent are a multiple of this."""
        return 1 << (len(self.multipliers) - 1)


class TimestepResnetBlock(nn.Module):
    """The residual block of the autoencoder, with the embedded step added between its convolutions."""

    def __init__(self, inputs: int, outputs: int, time: int) -> None:
        super().__init__()
        self.residual, self.time = ResnetBlock(inputs, outputs, steady=False), nn.Linear(time, outputs)
        nn.init.zeros_(self.residual.conv2.weight)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """(B, C, L, M) and (B, H) → (B, C', L, M)."""
        return self.residual(h, self.time(F.silu(time))[:, :, None, None])


class MultiHeadSelfAttention(nn.Module):
    """Self-attention over all cells, with heads of ``head`` features."""

    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        self.head = head
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        """(B, cells, C) → the same shape."""
        q, k, v = (part(h).unflatten(2, (-1, self.head)).transpose(1, 2) for part in (self.q, self.k, self.v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class SpatialTransformer(nn.Module):
    """Two self-attention layers and a gated feed-forward network over all cells of a level.

    In other latent diffusion models the second layer is cross-attention to a text. AudioSR has no text.
    """

    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        self.norm = MelGroupNorm(width, False)
        self.enter, self.leave = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.attentions = nn.ModuleList(MultiHeadSelfAttention(width, head) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.wide, self.narrow = nn.Linear(width, 8 * width), nn.Linear(4 * width, width)
        nn.init.zeros_(self.leave.weight)

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, L, M) → the same shape."""
        x = self.enter(self.norm(h)).flatten(2).transpose(1, 2)
        for norm, attention in zip(self.norms, self.attentions, strict=False):
            x = x + attention(norm(x))
        value, gate = self.wide(self.norms[2](x)).chunk(2, dim=2)
        x = x + self.narrow(value * F.gelu(gate))
        return h + self.leave(x.transpose(1, 2).unflatten(2, h.shape[2:]))


class UNetBlock(nn.Module):
    """A residual block and the transformers behind it."""

    def __init__(self, inputs: int, outputs: int, attends: bool, config: LatentUNetConfig) -> None:
        super().__init__()
        self.residual = TimestepResnetBlock(inputs, outputs, 4 * config.width)
        count = config.transformers if attends else 0
        self.transformers = nn.ModuleList(SpatialTransformer(outputs, config.head) for _ in range(count))

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """(B, C, L, M) and (B, H) → (B, C', L, M)."""
        h = self.residual(h, time)
        for transformer in self.transformers:
            h = transformer(h)
        return h


class LatentUNet(nn.Module):
    """The U-Net: estimates the velocity of a noisy latent, given the condition and the step."""

    def __init__(self, config: LatentUNetConfig) -> None:
        super().__init__()
        self.config = c = config
        widths = [c.width * m for m in c.multipliers]
        self.time = nn.Sequential(nn.Linear(c.width, 4 * c.width), nn.SiLU(), nn.Linear(4 * c.width, 4 * c.width))
        self.enter = nn.Conv2d(2 * c.latent, widths[0], 3, padding=1)
        self.down, self.shrink, self.up, self.grow = (nn.ModuleList() for _ in range(4))
        skips, width = [widths[0]], widths[0]
        for level, level_width in enumerate(widths):
            for _ in range(c.blocks):
                self.down.append(UNetBlock(width, level_width, level >= c.attention_from, c))
                skips.append(width := level_width)
            if level + 1 < len(widths):
                self.shrink.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                skips.append(width)
        self.middle = UNetBlock(width, width, True, c)
        self.after = TimestepResnetBlock(width, width, 4 * c.width)
        for level, level_width in reversed(list(enumerate(widths))):
            for _ in range(c.blocks + 1):
                self.up.append(UNetBlock(width + skips.pop(), level_width, level >= c.attention_from, c))
                width = level_width
            if level:
                self.grow.append(nn.Conv2d(width, width, 3, padding=1))
        self.leave = nn.Sequential(MelGroupNorm(width, False), nn.SiLU(), nn.Conv2d(width, c.latent, 3, padding=1))

    def forward(self, noisy: Tensor, condition: Tensor, step: Tensor) -> Tensor:
        """Estimate the velocity.

        Args:
            noisy: (B, latent, L, M).
            condition: (B, latent, L, M).
            step: (B,), from 0 to 1000.

        Returns:
            (B, latent, L, M).
        """
        count = self.config.blocks
        time = self.time(timestep_embedding(step, self.config.width))
        h = self.enter(torch.cat([noisy, condition], dim=1))
        skips = [h]
        for i, block in enumerate(self.down):
            if i and i % count == 0:
                skips.append(h := self.shrink[i // count - 1](h))
            skips.append(h := block(h, time))
        h = self.after(self.middle(h, time), time)
        for i, block in enumerate(self.up):
            if i and i % (count + 1) == 0:
                h = self.grow[i // (count + 1) - 1](F.interpolate(h, scale_factor=2.0))
            h = block(torch.cat([h, skips.pop()], dim=1), time)
        return self.leave(h)


def timestep_embedding(step: Tensor, width: int) -> Tensor:
    """Return cosines and sines (B, width) of ``step`` (B,), periods 2π to 20000π (Vaswani et al. 2017, sec. 3.5)."""
    half = width // 2
    rate = torch.exp(-math.log(10000) / half * torch.arange(half, device=step.device))
    angle = step.float().unsqueeze(1) * rate
    return torch.cat([angle.cos(), angle.sin()], dim=1)
