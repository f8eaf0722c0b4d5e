"""The network that AudioSR's diffusion asks (Liu et al. 2023, arXiv 2309.07314, after Rombach et al. 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.models.mel_vae import Norm, Residual


@dataclass(frozen=True)
class LatentUNetConfig:
    """Every number of a LatentUNet; the defaults are AudioSR-basic's.

    Level l has ``width * multipliers[l]`` channels and ``blocks`` residual blocks on the way down, one more on the way
    up. From level ``attention_from`` on, ``transformers`` follow each, with heads of ``head`` features. ``latent``
    channels come in twice, noisy and of the condition.
    """

    latent: int = 16
    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 3, 5)
    blocks: int = 2
    attention_from: int = 1
    transformers: int = 2
    head: int = 32

    def __post_init__(self) -> None:
        assert self.multipliers and min(self.latent, self.width, self.blocks, self.head, *self.multipliers) >= 1
        assert self.width % 2 == 0 and all(self.width * m % self.head == 0 for m in self.multipliers)

    @property
    def stride(self) -> int:
        """What lengths and heights of latents are multiples of."""
        return 1 << (len(self.multipliers) - 1)


class TimedResidual(nn.Module):
    """The autoencoder's residual block, with the time added between its convolutions."""

    def __init__(self, inputs: int, outputs: int, time: int) -> None:
        super().__init__()
        self.residual, self.time = Residual(inputs, outputs, steady=False), nn.Linear(time, outputs)
        nn.init.zeros_(self.residual.conv2.weight)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """(B, C, L, M) and (B, H) → (B, C', L, M)."""
        return self.residual(h, self.time(F.silu(time))[:, :, None, None])


class SelfAttention(nn.Module):
    """Heads of ``head`` features over all cells."""

    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        self.head = head
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        """(B, cells, C) → the same shape."""
        q, k, v = (part(h).unflatten(2, (-1, self.head)).transpose(1, 2) for part in (self.q, self.k, self.v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """Two layers of attention and a gated MLP over all cells of a level.

    The second layer is where published models of its kind listen to a text; AudioSR has none and hears itself.
    """

    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        self.norm = Norm(width, False)
        self.enter, self.leave = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.attentions = nn.ModuleList(SelfAttention(width, head) for _ in range(2))
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


class Level(nn.Module):
    """A residual block, and the transformers behind it."""

    def __init__(self, inputs: int, outputs: int, attends: bool, config: LatentUNetConfig) -> None:
        super().__init__()
        self.residual = TimedResidual(inputs, outputs, 4 * config.width)
        count = config.transformers if attends else 0
        self.transformers = nn.ModuleList(Transformer(outputs, config.head) for _ in range(count))

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """(B, C, L, M) and (B, H) → (B, C', L, M)."""
        h = self.residual(h, time)
        for transformer in self.transformers:
            h = transformer(h)
        return h


class LatentUNet(nn.Module):
    """The network: which way to go from a noisy latent, told the condition and the time."""

    def __init__(self, config: LatentUNetConfig) -> None:
        super().__init__()
        self.config = c = config
        widths = [c.width * m for m in c.multipliers]
        self.time = nn.Sequential(nn.Linear(c.width, 4 * c.width), nn.SiLU(), nn.Linear(4 * c.width, 4 * c.width))
        self.enter = nn.Conv2d(2 * c.latent, widths[0], 3, padding=1)
        self.down, self.shrink, self.up, self.grow = (nn.ModuleList() for _ in range(4))
        kept, width = [widths[0]], widths[0]
        for level, wanted in enumerate(widths):
            for _ in range(c.blocks):
                self.down.append(Level(width, wanted, level >= c.attention_from, c))
                kept.append(width := wanted)
            if level + 1 < len(widths):
                self.shrink.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                kept.append(width)
        self.middle = Level(width, width, True, c)
        self.after = TimedResidual(width, width, 4 * c.width)
        for level, wanted in reversed(list(enumerate(widths))):
            for _ in range(c.blocks + 1):
                self.up.append(Level(width + kept.pop(), wanted, level >= c.attention_from, c))
                width = wanted
            if level:
                self.grow.append(nn.Conv2d(width, width, 3, padding=1))
        self.leave = nn.Sequential(Norm(width, False), nn.SiLU(), nn.Conv2d(width, c.latent, 3, padding=1))

    def forward(self, noisy: Tensor, condition: Tensor, step: Tensor) -> Tensor:
        """Two (B, latent, L, M) and ``step`` (B,), from 0 to 1000 → (B, latent, L, M)."""
        count = self.config.blocks
        time = self.time(time_waves(step, self.config.width))
        h = self.enter(torch.cat([noisy, condition], dim=1))
        kept = [h]
        for i, block in enumerate(self.down):
            if i and i % count == 0:
                kept.append(h := self.shrink[i // count - 1](h))
            kept.append(h := block(h, time))
        h = self.after(self.middle(h, time), time)
        for i, block in enumerate(self.up):
            if i and i % (count + 1) == 0:
                h = self.grow[i // (count + 1) - 1](F.interpolate(h, scale_factor=2.0))
            h = block(torch.cat([h, kept.pop()], dim=1), time)
        return self.leave(h)


def time_waves(step: Tensor, width: int) -> Tensor:
    """Cosines and sines of ``step`` (B,), periods from 2π to 20000π: (B, width) (Vaswani et al. 2017, sec. 3.5)."""
    half = width // 2
    rate = torch.exp(-math.log(10000) / half * torch.arange(half, device=step.device))
    angle = step.float().unsqueeze(1) * rate
    return torch.cat([angle.cos(), angle.sin()], dim=1)
