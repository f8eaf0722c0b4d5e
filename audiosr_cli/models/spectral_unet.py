"""SpectralUNet: complex masks for the bins of a spectrogram, by a 2-D U-Net with attention over time at its bottom.

Our own. Its parts are known ones: a U-Net over time and frequency whose blocks are plain convolutions (Choi et al.,
ISMIR 2020, arXiv 1912.02591), attention where the map is smallest (Rouard, Massa & Défossez 2023, arXiv 2211.08553),
complex masks (Williamson, Wang & Wang 2016). Dense convolutions on few bins keep a CPU at its peak rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.contract import ModelSpec
from audiosr_cli.models.base import Model, separator_spec
from audiosr_cli.models.fused import norm_act
from audiosr_cli.models.layers import Frames, TransformerLayer, layout
from audiosr_cli.models.registry import register

_SLOPE = 0.1
_COMPRESSION = 0.3  # the network sees magnitudes to this power
_GROUP = 8  # channels that are normalised together


@dataclass(frozen=True)
class SpectralUNetConfig:
    """Every number of a SpectralUNet.

    Frames of ``n_fft`` every ``hop_length``. The lowest ``fine`` bins are seen one by one, the others in groups of
    ``group``. Level l of the U-Net has ``widths[l]`` channels; between two levels bins are halved and frames divided
    by ``time_strides``. At the bottom ``layers`` transformer layers of ``hidden`` features and ``heads`` heads hear
    the whole window. Sources sum to the mixture in use only, or in training as well (``consistency`` "always").
    ``context``, ``core`` and ``overlap`` are how it streams, in samples.
    """

    sample_rate: int = 16000
    sources: int = 2
    n_fft: int = 512
    hop_length: int = 256
    fine: int = 128
    group: int = 4
    widths: tuple[int, ...] = (24, 48, 96, 128)
    time_strides: tuple[int, ...] = (2, 2, 1)
    hidden: int = 256
    layers: int = 3
    heads: int = 4
    consistency: Literal["use", "always"] = "use"
    context: int = 16384
    core: int = 65536
    overlap: int = 8192
    name: str = "spectral_unet"

    def __post_init__(self) -> None:
        assert len(self.widths) == len(self.time_strides) + 1 and self.sources >= 2
        assert min(self.n_fft, self.hop_length, self.group, self.hidden, self.layers, self.heads) >= 1
        assert min(*self.widths, *self.time_strides) >= 1 and self.context >= 0
        assert all(width % min(_GROUP, width) == 0 for width in self.widths)
        assert self.n_fft % (2 * self.hop_length) == 0
        assert 0 < self.fine <= self.n_fft // 2 and (self.n_fft // 2 - self.fine) % self.group == 0
        assert self.rows % 2 ** len(self.time_strides) == 0
        assert self.hidden % (2 * self.heads) == 0

    @property
    def rows(self) -> int:
        """How many single bins and groups there are: the height of the uppermost map."""
        return self.fine + (self.n_fft // 2 - self.fine) // self.group

    @property
    def spec(self) -> ModelSpec:
        """The contract that follows."""
        return separator_spec(self)


def _conv(inputs: int, outputs: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> nn.Conv2d:
    """A convolution over (frames, bins); where it does not stride, zeros keep the size."""
    padding = (kernel[0] // 2 * (stride[0] == 1), kernel[1] // 2 * (stride[1] == 1))
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
    nn.init.kaiming_normal_(layer.weight, a=_SLOPE)
    return layer


class Norm(nn.GroupNorm):
    """Over the window and a few channels (Wu & He 2018), so that training and use agree."""

    def __init__(self, width: int) -> None:
        super().__init__(width // min(_GROUP, width), width)

    def forward(self, h: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalise a map, add ``residual``, and pass what is negative on by a tenth: (B, C, L, F) → the same."""
        last = None if residual is None else residual.permute(0, 2, 3, 1)
        return norm_act(h.permute(0, 2, 3, 1), self, last, outer=_SLOPE).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Two convolutions around which the map goes on unchanged."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_conv(width, width, (3, 3)) for _ in range(2))
        first, second = Norm(width), Norm(width)
        nn.init.constant_(second.weight, 0.3)
        self.norms = nn.ModuleList([first, second])

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, L, F) → the same shape."""
        return self.norms[1](self.convs[1](self.norms[0](self.convs[0](h))), h)


class Sequence(nn.Module):
    """All channels and bins of a frame as one vector, attention along the frames, and back."""

    def __init__(self, features: int, config: SpectralUNetConfig) -> None:
        super().__init__()
        c = config
        self.enter, self.leave = (nn.Linear(i, o, bias=False) for i, o in ((features, c.hidden), (c.hidden, features)))
        layers = (TransformerLayer(c.hidden, c.heads, 4 * c.hidden, F.gelu, False, True) for _ in range(c.layers))
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(c.hidden, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, L, F) → the same shape."""
        frames = self.enter(h.permute(0, 2, 3, 1).flatten(2))  # (B, L, H)
        made = self.leave(self.norm(self.layers(frames)))  # (B, L, F * C)
        return h + made.unflatten(2, (h.shape[3], h.shape[1])).permute(0, 3, 1, 2)


@register("spectral_unet", SpectralUNetConfig)
class SpectralUNet(Model):
    """The network. Each window is brought to unit level before, and its masks are used on the window as it came.

    What the sources lack of the mixture is shared between them by their power in the window, so that they sum to it
    (mixture consistency, Wisdom et al. 2019). Learning begins without, as summing to the mixture from the start is a
    saddle; without it to the end, though, levels may stay wrong and then sharing costs what it should not.
    """

    config: SpectralUNetConfig

    def __init__(self, config: SpectralUNetConfig) -> None:
        super().__init__(config)
        c, w = config, config.widths
        self.frames = Frames(c.n_fft, c.hop_length)
        self.enter = _conv(3, w[0], (3, 3))
        self.enter_high = _conv(3, w[0], (3, c.group), (1, c.group)) if c.rows > c.fine else None
        self.enter_norm = Norm(w[0])
        strides = [(stride, 2) for stride in c.time_strides]
        steps = list(zip(pairwise(w), strides, strict=True))
        self.encode, self.decode = (nn.ModuleList(Block(width) for width in w[:-1]) for _ in range(2))
        self.down = nn.ModuleList(_conv(a, b, stride, stride) for (a, b), stride in steps)
        self.down_norm = nn.ModuleList(Norm(b) for _, b in pairwise(w))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, stride, stride, bias=False) for (a, b), stride in steps)
        self.up_norm = nn.ModuleList(Norm(a) for a, _ in pairwise(w))
        self.before, self.after = Block(w[-1]), Block(w[-1])
        self.sequence = Sequence(w[-1] * (c.rows >> len(strides)), c)
        self.head = nn.Conv2d(w[0], 2 * c.sources, 1)
        self.head_high = nn.Conv2d(w[0], 2 * c.sources * c.group, 1) if c.rows > c.fine else None
        for name, bias in self.named_parameters():
            if name.startswith("head") and name.endswith("bias"):  # real parts, so that no source is upside down
                nn.init.constant_(bias.view(c.sources, 2, -1)[:, 0], 1 / c.sources)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """(B, 1, T) → (B, S, 1, T - 2 * context).

        ``maps`` receives the decoder's feature maps (B, widths[l], L, rows / 2^l), the full resolution last, for heads
        that only training has; their frames are padded to a multiple of the strides.
        """
        c, length = self.config, x.shape[-1]
        with torch.autocast(x.device.type, enabled=False):
            mix = x[:, 0].float()
            spectrum = self.frames.analyse(mix)  # (B, L, F) complex
            level = mix.square().mean(-1).add(1e-10).sqrt()
            features = self._features(spectrum / level[:, None, None])
        made = apply_masks(self._masks(features, maps), spectrum, self.frames, length)  # (B, S, T)
        if not self.training or c.consistency == "always":
            power = made.square().mean(-1, keepdim=True) + 1e-14  # (B, S, 1)
            made = made + power / power.sum(1, keepdim=True) * (mix - made.sum(1)).unsqueeze(1)
        return made[:, :, None, c.context : length - c.context]

    def _features(self, spectrum: Tensor) -> Tensor:
        """Compressed real and imaginary parts, and magnitudes: (B, L, F) → (B, 3, L, F - 1)."""
        parts = torch.view_as_real(spectrum[..., :-1]) * (2 / self.config.n_fft) ** 0.5
        power = parts.square().sum(-1, keepdim=True) + 1e-5
        magnitude = power ** (_COMPRESSION / 2)
        return torch.cat([parts * magnitude * power.rsqrt(), magnitude - 1], dim=-1).movedim(-1, 1)

    def _masks(self, features: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """(B, 3, L, F) → (B, 2S, L, F): real and imaginary parts of every source's mask."""
        c, frames = self.config, features.shape[2]
        features = F.pad(features, (0, 0, 0, -frames % prod(c.time_strides)))
        features = features.contiguous(memory_format=layout(self.enter.weight))
        h = self.enter(features[..., : c.fine])
        if self.enter_high is not None:
            h = torch.cat([h, self.enter_high(features[..., c.fine :])], dim=-1)  # (B, C, L, rows)
        h = self.enter_norm(h)
        skips = []
        for encode, down, norm in zip(self.encode, self.down, self.down_norm, strict=True):
            skips.append(encode(h))
            h = norm(down(skips[-1]))
        h = self.after(self.sequence(self.before(h)))
        for i in reversed(range(len(skips))):
            if maps is not None:
                maps.append(h)
            h = self.decode[i](self.up_norm[i](self.up[i](h), skips[i]))
        if maps is not None:
            maps.append(h)
        return masks_of(h, c.fine, self.head, self.head_high)[:, :, :frames]


def masks_of(h: Tensor, fine: int, head: nn.Conv2d, head_high: nn.Conv2d | None) -> Tensor:
    """Masks of a feature map's bins: its first ``fine`` rows are one bin each, the others a group of bins each.

    Args:
        h: (B, C, L, rows).
        fine: how many rows ``head`` is for.
        head: C → 2S channels, the real and imaginary part of each source's mask.
        head_high: C → 2S * group channels, for the rows from ``fine`` on; None where there are no groups.

    Returns:
        (B, 2S, L, fine + (rows - fine) * group).
    """
    masks: Tensor = head(h[..., :fine])
    if head_high is None:
        return masks
    high = head_high(h[..., fine:]).unflatten(1, (masks.shape[1], -1))  # (B, 2S, group, L, groups)
    return torch.cat([masks, high.movedim(2, -1).flatten(3)], dim=-1)


def apply_masks(masks: Tensor, spectrum: Tensor, frames: Frames, length: int) -> Tensor:
    """Waveforms (B, S, ``length``): masks (B, 2S, L, F - 1) on ``spectrum`` (B, L, F), whose last bin is left out."""
    with torch.autocast(spectrum.device.type, enabled=False):
        pairs = F.pad(masks.float(), (0, 1)).unflatten(1, (-1, 2)).movedim(2, -1)  # (B, S, L, F, 2)
        return frames.synthesise(torch.view_as_complex(pairs.contiguous()) * spectrum.unsqueeze(1), length)
