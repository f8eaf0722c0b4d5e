"""AudioSR's variational autoencoder of mel spectrograms (Liu et al. 2023, arXiv 2309.07314).

The architecture is that of latent diffusion (Rombach et al. 2022): a 2-D convolutional encoder that halves frames and
mels between its levels, a diagonal Gaussian for every cell of the latent, and a mirrored decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.config import at_least, check

# Groups of channels of a group norm, as published; narrower layers have the most of the others that divides them.
_GROUPS = (32, 8, 4, 2, 1)


@dataclass(frozen=True)
class MelVAEConfig:
    """Configuration of a MelVAE; the defaults are AudioSR-basic's.

    Args:
        width: Channels of the first level.
        multipliers: Level l has ``width * multipliers[l]`` channels; frames and mels are halved between levels.
        blocks: Residual blocks per level of the encoder; the decoder has one more.
        latent: Channels of the latent.
        attention: Whether the middle has a self-attention block.
        steady: Normalise every frame by itself, so that it does not depend on the rest of its window.

    Raises:
        UsageError: A value is impossible.
    """

    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    blocks: int = 2
    latent: int = 16
    attention: bool = True
    steady: bool = False

    def __post_init__(self) -> None:
        check(bool(self.multipliers), "multipliers = []: must have at least one number")
        at_least(self, 1, "width", "blocks", "latent", "multipliers")

    @property
    def stride(self) -> int:
        """Frames per frame of the latent; also mels per row."""
        return 1 << (len(self.multipliers) - 1)


class MelGroupNorm(nn.GroupNorm):
    """Group norm with statistics over frames and mels or, with ``steady``, over the mels of each frame."""

    def __init__(self, width: int, steady: bool) -> None:
        super().__init__(next(groups for groups in _GROUPS if width % groups == 0), width, eps=1e-6)
        self.steady = steady

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, L, M) → the same shape."""
        if not self.steady:
            return super().forward(h)
        frames = h.transpose(1, 2).flatten(0, 1)  # (B * L, C, M)
        return super().forward(frames).unflatten(0, (h.shape[0], h.shape[2])).transpose(1, 2)


class ResnetBlock(nn.Module):
    """Two convolutions, each behind a norm and SiLU, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, steady: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = MelGroupNorm(inputs, steady), MelGroupNorm(outputs, steady)
        self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, h: Tensor, between: Tensor | float = 0.0) -> Tensor:
        """(B, C, L, M) → (B, C', L, M); ``between`` is added to the output of the first convolution."""
        inner = self.conv1(F.silu(self.norm1(h))) + between
        return self.shortcut(h) + self.conv2(F.silu(self.norm2(inner)))


class AttentionBlock(nn.Module):
    """Self-attention with one head over all cells, behind a norm, and a shortcut."""

    def __init__(self, width: int, steady: bool) -> None:
        super().__init__()
        self.norm = MelGroupNorm(width, steady)
        self.q, self.k, self.v, self.out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, L, M) → the same shape."""
        inner = self.norm(h)
        q, k, v = (part(inner).flatten(2).transpose(1, 2).contiguous() for part in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).unflatten(2, h.shape[2:])
        return h + self.out(attended)


class Downsample2d(nn.Module):
    """A convolution with stride 2, padded at the end only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, L, M) → (B, C, L / 2, M / 2)."""
        return self.conv(F.pad(h, (0, 1, 0, 1)))


class Upsample2d(nn.Module):
    """Nearest-neighbour upsampling by 2, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, L, M) → (B, C, 2 L, 2 M)."""
        return self.conv(F.interpolate(h, scale_factor=2.0))


class DiagonalGaussian(NamedTuple):
    """A normal distribution for every cell of the latent; both fields are (B, latent, L / stride, M / stride)."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Return a sample, given standard normal ``noise`` of the same shape."""
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def kl_divergence(self) -> Tensor:
        """Return the Kullback-Leibler divergence from the standard normal distribution, nats per cell: ()."""
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance).mean()


def _middle(width: int, config: MelVAEConfig) -> list[nn.Module]:
    attention = [AttentionBlock(width, config.steady)] if config.attention else []
    return [ResnetBlock(width, width, config.steady), *attention, ResnetBlock(width, width, config.steady)]


class MelVAE(nn.Module):
    """The autoencoder: log mels (B, 1, L, M) in and out, L and M multiples of ``config.stride``."""

    def __init__(self, config: MelVAEConfig) -> None:
        super().__init__()
        self.config = c = config
        widths = [c.width * m for m in c.multipliers]
        down: list[nn.Module] = [nn.Conv2d(1, widths[0], 3, padding=1)]
        for level, width in enumerate(widths):
            before = widths[max(level - 1, 0)]
            down += [ResnetBlock(width if i else before, width, c.steady) for i in range(c.blocks)]
            down += [Downsample2d(width)] if level + 1 < len(widths) else []
        down += [*_middle(widths[-1], c), MelGroupNorm(widths[-1], c.steady), nn.SiLU()]
        self.encoder = nn.Sequential(*down, nn.Conv2d(widths[-1], 2 * c.latent, 3, padding=1))
        self.moments, self.enter = nn.Conv2d(2 * c.latent, 2 * c.latent, 1), nn.Conv2d(c.latent, c.latent, 1)
        up: list[nn.Module] = [nn.Conv2d(c.latent, widths[-1], 3, padding=1), *_middle(widths[-1], c)]
        for level, width in reversed(list(enumerate(widths))):
            before = widths[min(level + 1, len(widths) - 1)]
            up += [ResnetBlock(width if i else before, width, c.steady) for i in range(c.blocks + 1)]
            up += [Upsample2d(width)] if level else []
        up += [MelGroupNorm(widths[0], c.steady), nn.SiLU(), nn.Conv2d(widths[0], 1, 3, padding=1)]
        self.decoder = nn.Sequential(*up)

    def encode(self, mel: Tensor) -> DiagonalGaussian:
        """(B, 1, L, M) → the distribution of the latent."""
        mean, log_variance = self.moments(self.encoder(mel)).chunk(2, dim=1)
        return DiagonalGaussian(mean, log_variance.clamp(-30, 20))

    def decode(self, latent: Tensor) -> Tensor:
        """(B, latent, L / stride, M / stride) → (B, 1, L, M)."""
        return self.decoder(self.enter(latent))
