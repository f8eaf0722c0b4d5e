"""AudioSR's autoencoder of mel spectrograms (Liu et al. 2023, arXiv 2309.07314, after Rombach et al. 2022).

Convolutions over frames and mels halve both three times; a latent is a normal distribution of every cell left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 32  # of channels that are normalised together


@dataclass(frozen=True)
class MelVAEConfig:
    """Every number of a MelVAE; the defaults are AudioSR-basic's.

    Level l has ``width * multipliers[l]`` channels and ``blocks`` residual blocks on the way down, one more on the way
    up; between two levels frames and mels are halved. ``attention`` puts one layer of it in the middle. ``steady``
    normalises every frame by itself, so that a frame does not depend on what else is in its window.
    """

    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    blocks: int = 2
    latent: int = 16
    attention: bool = True
    steady: bool = False

    def __post_init__(self) -> None:
        assert self.multipliers and min(self.width, self.blocks, self.latent, *self.multipliers) >= 1

    @property
    def stride(self) -> int:
        """Frames, and mels, that one cell of the latent stands for."""
        return 1 << (len(self.multipliers) - 1)


class Norm(nn.GroupNorm):
    """Group norm over frames and mels, or over the mels of each frame."""

    def __init__(self, width: int, steady: bool) -> None:
        super().__init__(next(groups for groups in (GROUPS, 8, 4, 2, 1) if width % groups == 0), width, eps=1e-6)
        self.steady = steady

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, L, M) → the same shape."""
        if not self.steady:
            return super().forward(h)
        frames = h.transpose(1, 2).flatten(0, 1)  # (B * L, C, M)
        return super().forward(frames).unflatten(0, (h.shape[0], h.shape[2])).transpose(1, 2)


class Residual(nn.Module):
    """Two normalised convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, steady: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = Norm(inputs, steady), Norm(outputs, steady)
        self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, h: Tensor, between: Tensor | float = 0.0) -> Tensor:
        """(B, C, L, M) → (B, C', L, M); ``between`` is added between the convolutions."""
        inner = self.conv1(F.silu(self.norm1(h))) + between
        return self.shortcut(h) + self.conv2(F.silu(self.norm2(inner)))


class Attention(nn.Module):
    """One head over all cells."""

    def __init__(self, width: int, steady: bool) -> None:
        super().__init__()
        self.norm = Norm(width, steady)
        self.q, self.k, self.v, self.out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, L, M) → the same shape."""
        inner = self.norm(h)
        q, k, v = (part(inner).flatten(2).transpose(1, 2).contiguous() for part in (self.q, self.k, self.v))
        made = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).unflatten(2, h.shape[2:])
        return h + self.out(made)


class Halve(nn.Module):
    """A convolution with stride 2 that looks ahead."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, L, M) → (B, C, L / 2, M / 2)."""
        return self.conv(F.pad(h, (0, 1, 0, 1)))


class Double(nn.Module):
    """Every cell four times, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, L, M) → (B, C, 2 L, 2 M)."""
        return self.conv(F.interpolate(h, scale_factor=2.0))


class Latent(NamedTuple):
    """A normal distribution of every cell: both (B, latent, L / stride, M / stride)."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """A draw from it, of standard normal ``noise``."""
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def divergence(self) -> Tensor:
        """Kullback-Leibler divergence from the standard normal distribution, nats a cell."""
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance).mean()


def _middle(width: int, config: MelVAEConfig) -> list[nn.Module]:
    attention = [Attention(width, config.steady)] if config.attention else []
    return [Residual(width, width, config.steady), *attention, Residual(width, width, config.steady)]


class MelVAE(nn.Module):
    """The autoencoder. Log mels (B, 1, L, M) in and out, L and M multiples of ``config.stride``."""

    def __init__(self, config: MelVAEConfig) -> None:
        super().__init__()
        self.config = c = config
        widths = [c.width * m for m in c.multipliers]
        down: list[nn.Module] = [nn.Conv2d(1, widths[0], 3, padding=1)]
        for level, width in enumerate(widths):
            before = widths[max(level - 1, 0)]
            down += [Residual(width if i else before, width, c.steady) for i in range(c.blocks)]
            down += [Halve(width)] if level + 1 < len(widths) else []
        down += [*_middle(widths[-1], c), Norm(widths[-1], c.steady), nn.SiLU()]
        self.encoder = nn.Sequential(*down, nn.Conv2d(widths[-1], 2 * c.latent, 3, padding=1))
        self.moments, self.enter = nn.Conv2d(2 * c.latent, 2 * c.latent, 1), nn.Conv2d(c.latent, c.latent, 1)
        up: list[nn.Module] = [nn.Conv2d(c.latent, widths[-1], 3, padding=1), *_middle(widths[-1], c)]
        for level, width in reversed(list(enumerate(widths))):
            before = widths[min(level + 1, len(widths) - 1)]
            up += [Residual(width if i else before, width, c.steady) for i in range(c.blocks + 1)]
            up += [Double(width)] if level else []
        up += [Norm(widths[0], c.steady), nn.SiLU(), nn.Conv2d(widths[0], 1, 3, padding=1)]
        self.decoder = nn.Sequential(*up)

    def encode(self, mel: Tensor) -> Latent:
        """(B, 1, L, M) → what it may be in the latent space."""
        mean, log_variance = self.moments(self.encoder(mel)).chunk(2, dim=1)
        return Latent(mean, log_variance.clamp(-30, 20))

    def decode(self, latent: Tensor) -> Tensor:
        """(B, latent, L / stride, M / stride) → (B, 1, L, M)."""
        return self.decoder(self.enter(latent))
