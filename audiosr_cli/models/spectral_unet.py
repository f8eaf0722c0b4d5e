"""SpectralUNet: complex masks by a 2-D U-Net on a spectrogram, with a transformer over time at its bottleneck.

Our own combination of published parts: a U-Net over time and frequency with plain convolutions (Choi et al., ISMIR
2020, arXiv 1912.02591), a transformer where the map is smallest (Rouard, Massa & Défossez 2023, arXiv 2211.08553), and
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

from audiosr_cli.config import at_least, check, multiple
from audiosr_cli.contract import ModelSpec
from audiosr_cli.models.base import Model, check_separator, separator_spec
from audiosr_cli.models.fused import norm_act
from audiosr_cli.models.layers import STFT, TransformerLayer, layout
from audiosr_cli.models.registry import register

# Slope of the leaky ReLUs below zero.
_SLOPE = 0.1
# Power law compression: the network sees magnitudes to this power.
_COMPRESSION = 0.3
# Channels that are normalised together.
_GROUP = 8


@dataclass(frozen=True)
class SpectralUNetConfig:
    """Configuration of a SpectralUNet.

    Args:
        sample_rate: Sample rate in Hz.
        sources: Number of sources, at least 2.
        n_fft: Samples of a frame.
        hop_length: Samples from one frame to the next.
        fine: Lowest bins, each of which is a row of the uppermost map.
        group: Bins that share a row above those.
        widths: Channels of each level of the U-Net.
        time_strides: Between levels l and l + 1 frames are divided by ``time_strides[l]``, rows by 2.
        hidden: Features of the transformer layers at the bottleneck, which see the whole window.
        layers: Number of transformer layers.
        heads: Their attention heads.
        consistency: When estimates are made to sum to the mixture: in "use" only, or "always", in training as well.
        context: Samples on each side of a window that only inform the output.
        core: Samples that one window answers for.
        overlap: Samples that two neighbouring windows have in common.
        name: Name of the model.

    Raises:
        UsageError: A value is impossible.
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
        at_least(self, 1, "n_fft", "hop_length", "fine", "group", "hidden", "layers", "heads", "widths", "time_strides")
        at_least(self, 2, "sources")
        check_separator(self)
        check(
            len(self.widths) == len(self.time_strides) + 1,
            f"widths = {list(self.widths)}: must have one number more than time_strides = {list(self.time_strides)}",
        )
        for width in self.widths:
            check(width % min(_GROUP, width) == 0, f"widths: {width} must be below {_GROUP} or a multiple of it")
        multiple(self.n_fft, 2 * self.hop_length, "n_fft", "2 · hop_length")
        bins = self.n_fft // 2
        check(self.fine <= bins, f"fine = {self.fine}: must be at most n_fft / 2 = {bins}")
        check(
            (bins - self.fine) % self.group == 0,
            f"fine = {self.fine}: leaves {bins - self.fine} bins, not a multiple of group = {self.group}",
        )
        multiple(self.rows, 2 ** len(self.time_strides), "rows (fine bins and groups)", "2 ^ (number of time_strides)")
        multiple(self.hidden, 2 * self.heads, "hidden", "2 · heads")

    @property
    def rows(self) -> int:
        """Height of the uppermost map: single bins and groups of bins."""
        return self.fine + (self.n_fft // 2 - self.fine) // self.group

    @property
    def spec(self) -> ModelSpec:
        """The contract with the engine."""
        return separator_spec(self)


def _conv(inputs: int, outputs: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> nn.Conv2d:
    """Return a convolution over (frames, bins); along axes without stride, zeros keep the size."""
    padding = (kernel[0] // 2 * (stride[0] == 1), kernel[1] // 2 * (stride[1] == 1))
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
    nn.init.kaiming_normal_(layer.weight, a=_SLOPE)
    return layer


class NormAct(nn.GroupNorm):
    """Group norm (Wu & He 2018), an optional residual, and a leaky ReLU; the same in training and evaluation."""

    def __init__(self, width: int) -> None:
        super().__init__(width // min(_GROUP, width), width)

    def forward(self, h: Tensor, residual: Tensor | None = None) -> Tensor:
        """Compute ``leaky_relu(norm(h) + residual)``: (B, C, L, F) → the same shape."""
        last = None if residual is None else residual.permute(0, 2, 3, 1)
        return norm_act(h.permute(0, 2, 3, 1), self, last, outer=_SLOPE).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """Two convolutions, each with a norm and a leaky ReLU, and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_conv(width, width, (3, 3)) for _ in range(2))
        first, second = NormAct(width), NormAct(width)
        nn.init.constant_(second.weight, 0.3)
        self.norms = nn.ModuleList([first, second])

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, L, F) → the same shape."""
        return self.norms[1](self.convs[1](self.norms[0](self.convs[0](h))), h)


class FrameTransformer(nn.Module):
    """Transformer layers along the frames, each frame's channels and bins being one vector."""

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
        output = self.leave(self.norm(self.layers(frames)))  # (B, L, F * C)
        return h + output.unflatten(2, (h.shape[3], h.shape[1])).permute(0, 3, 1, 2)


@register("spectral_unet", SpectralUNetConfig)
class SpectralUNet(Model):
    """The network. Its input is the window at unit level; its masks are applied to the window as it is.

    What the estimates lack of the mixture is distributed among them by their power in the window, so that they sum to
    the mixture (mixture consistency, Wisdom et al. 2019). Training starts without it, as it makes the start a saddle
    point. But training should end with it: otherwise levels may stay wrong, and then it costs quality in use.
    """

    config: SpectralUNetConfig

    def __init__(self, config: SpectralUNetConfig) -> None:
        super().__init__(config)
        c, w = config, config.widths
        self.stft = STFT(c.n_fft, c.hop_length)
        self.enter = _conv(3, w[0], (3, 3))
        self.enter_high = _conv(3, w[0], (3, c.group), (1, c.group)) if c.rows > c.fine else None
        self.enter_norm = NormAct(w[0])
        strides = [(stride, 2) for stride in c.time_strides]
        steps = list(zip(pairwise(w), strides, strict=True))
        self.encode, self.decode = (nn.ModuleList(ResidualBlock(width) for width in w[:-1]) for _ in range(2))
        self.down = nn.ModuleList(_conv(a, b, stride, stride) for (a, b), stride in steps)
        self.down_norm = nn.ModuleList(NormAct(b) for _, b in pairwise(w))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, stride, stride, bias=False) for (a, b), stride in steps)
        self.up_norm = nn.ModuleList(NormAct(a) for a, _ in pairwise(w))
        self.before, self.after = ResidualBlock(w[-1]), ResidualBlock(w[-1])
        self.sequence = FrameTransformer(w[-1] * (c.rows >> len(strides)), c)
        self.head = nn.Conv2d(w[0], 2 * c.sources, 1)
        self.head_high = nn.Conv2d(w[0], 2 * c.sources * c.group, 1) if c.rows > c.fine else None
        for name, bias in self.named_parameters():
            if name.startswith("head") and name.endswith(
                "bias"
            ):  # real parts: each source starts as a share of the mixture
                nn.init.constant_(bias.view(c.sources, 2, -1)[:, 0], 1 / c.sources)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Separate a window.

        Args:
            x: The mixture (B, 1, T).
            maps: If given, the decoder's feature maps (B, widths[l], L, rows / 2^l) are appended, the full resolution
                last, for auxiliary heads in training. Their frames are padded to a multiple of the strides.

        Returns:
            (B, S, 1, T - 2 * context).
        """
        c, length = self.config, x.shape[-1]
        with torch.autocast(x.device.type, enabled=False):
            mixture = x[:, 0].float()
            spectrum = self.stft.analyse(mixture)  # (B, L, F) complex
            level = mixture.square().mean(-1).add(1e-10).sqrt()
            features = self._features(spectrum / level[:, None, None])
        estimate = apply_masks(self._masks(features, maps), spectrum, self.stft, length)  # (B, S, T)
        if not self.training or c.consistency == "always":
            power = estimate.square().mean(-1, keepdim=True) + 1e-14  # (B, S, 1)
            estimate = estimate + power / power.sum(1, keepdim=True) * (mixture - estimate.sum(1)).unsqueeze(1)
        return estimate[:, :, None, c.context : length - c.context]

    def _features(self, spectrum: Tensor) -> Tensor:
        """Return compressed real parts, imaginary parts and magnitudes: (B, L, F) → (B, 3, L, F - 1)."""
        parts = torch.view_as_real(spectrum[..., :-1]) * (2 / self.config.n_fft) ** 0.5
        power = parts.square().sum(-1, keepdim=True) + 1e-5
        magnitude = power ** (_COMPRESSION / 2)
        return torch.cat([parts * magnitude * power.rsqrt(), magnitude - 1], dim=-1).movedim(-1, 1)

    def _masks(self, features: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """(B, 3, L, F) → (B, 2S, L, F): real and imaginary part of every source's mask."""
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
    """Return the masks of all bins, given a feature map with single bins first and groups of bins above.

    Args:
        h: The map (B, C, L, rows).
        fine: Number of rows that are single bins.
        head: Convolution from C to 2S channels: the real and imaginary part of each source's mask.
        head_high: Convolution from C to 2S * group channels, for the rows from ``fine`` on; None without groups.

    Returns:
        (B, 2S, L, fine + (rows - fine) * group).
    """
    masks: Tensor = head(h[..., :fine])
    if head_high is None:
        return masks
    high = head_high(h[..., fine:]).unflatten(1, (masks.shape[1], -1))  # (B, 2S, group, L, groups)
    return torch.cat([masks, high.movedim(2, -1).flatten(3)], dim=-1)


def apply_masks(masks: Tensor, spectrum: Tensor, stft: STFT, length: int) -> Tensor:
    """Apply complex masks to a spectrum and return waveforms.

    Args:
        masks: (B, 2S, L, F - 1), the real and imaginary part of each source's mask; the highest bin is set to zero.
        spectrum: (B, L, F).
        stft: The transform of ``spectrum``.
        length: Samples of the waveforms.

    Returns:
        (B, S, length).
    """
    with torch.autocast(spectrum.device.type, enabled=False):
        pairs = F.pad(masks.float(), (0, 1)).unflatten(1, (-1, 2)).movedim(2, -1)  # (B, S, L, F, 2)
        return stft.synthesise(torch.view_as_complex(pairs.contiguous()) * spectrum.unsqueeze(1), length)
