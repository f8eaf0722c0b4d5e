"""BandMixer: complex masks from bands that are followed through time one by one, and mixed in every frame.

Our own. Bands of a few bins each, followed along time and across frequency in turn, are what Band-split RNN has (Luo &
Yu 2023, arXiv 2209.15174). Here dilated depthwise convolutions follow a band through time, as in Conv-TasNet (Luo &
Mesgarani 2019, fig. 1C), and a bottleneck over all bands of a frame mixes them, with attention along the frames
(full-band self-attention, as in TF-GridNet, Wang et al. 2023, arXiv 2211.12433). All of it is matrix products of many
rows and passes over memory: what CPUs do well. Unlike a U-Net it never leaves the full resolution in time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.contract import ModelSpec
from audiosr_cli.errors import UsageError
from audiosr_cli.models.base import Model, separator_spec
from audiosr_cli.models.fused import depthwise, norm_act
from audiosr_cli.models.layers import Frames, TransformerLayer
from audiosr_cli.models.registry import register
from audiosr_cli.models.spectral_unet import apply_masks

_COMPRESSION = 0.3  # the network sees magnitudes to this power
_FEATURES = 3  # of a bin: real and imaginary part, magnitude


@dataclass(frozen=True)
class BandMixerConfig:
    """Every number of a BandMixer.

    Args:
        sample_rate: Of mixtures and sources, in Hz.
        sources: How many there are.
        n_fft: Samples in a frame.
        hop_length: Samples from one frame to the next.
        bands: Pairs of how many bands and how many bins each, from the lowest on; together n_fft / 2 bins.
        width: Features of a band.
        expansion: How many times as many there are between the two products of a block.
        kernel: Frames that a depthwise convolution sees.
        hidden: Features of the bottleneck over all bands.
        heads: Of its attention.
        dilations: Of the blocks, one each.
        attention: Every how many blocks the bottleneck attends to other frames.
        context: Samples seen on both sides of a window and not answered for.
        core: Samples that one window answers for.
        overlap: Samples that two windows both answer for.
        name: Of the model.

    Raises:
        UsageError: The numbers do not go together.
    """

    sample_rate: int = 16000
    sources: int = 2
    n_fft: int = 512
    hop_length: int = 128
    bands: tuple[int, ...] = (16, 2, 8, 4, 8, 8, 8, 16)
    width: int = 64
    expansion: int = 2
    kernel: int = 3
    hidden: int = 256
    heads: int = 4
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 1, 2, 4, 8, 16, 32)
    attention: int = 3
    context: int = 8192
    core: int = 65536
    overlap: int = 32768
    name: str = "band_mixer"

    def __post_init__(self) -> None:
        least = min(self.width, self.expansion, self.hidden, self.heads, self.attention, self.hop_length, *self.bands)
        if least < 1 or self.sources < 2 or not self.dilations or min(self.dilations) < 1 or self.kernel % 2 == 0:
            raise UsageError("all numbers of a band_mixer are 1 or more, sources 2 or more, kernel odd")
        if len(self.bands) % 2 or sum(count * bins for count, bins in self.groups) != self.n_fft // 2:
            raise UsageError(
                f"bands = {list(self.bands)}: pairs of how many bands and how many bins each, together "
                f"n_fft / 2 = {self.n_fft // 2} bins"
            )
        if self.n_fft % (2 * self.hop_length):
            raise UsageError(f"n_fft = {self.n_fft}: must be a multiple of 2 · hop_length = {2 * self.hop_length}")
        if self.hidden % (2 * self.heads):
            raise UsageError(f"hidden = {self.hidden}: must be a multiple of 2 · heads = {2 * self.heads}")

    @property
    def groups(self) -> list[tuple[int, int]]:
        """How many bands of how many bins, from the lowest on."""
        return list(zip(self.bands[::2], self.bands[1::2], strict=False))

    @property
    def rows(self) -> int:
        """How many bands there are."""
        return sum(self.bands[::2])

    @property
    def spec(self) -> ModelSpec:
        """The contract that follows."""
        return separator_spec(self)


class BandLinear(nn.Module):
    """A linear layer of its own for each of several bands: (B, L, bands, inputs) → (B, L, bands, outputs)."""

    def __init__(self, bands: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(bands, inputs, outputs) * inputs**-0.5)
        self.bias = nn.Parameter(torch.zeros(bands, outputs))

    def forward(self, h: Tensor) -> Tensor:
        """Apply the layers."""
        rows = h.flatten(0, 1).transpose(0, 1)  # (bands, B · L, inputs)
        return torch.bmm(rows, self.weight.to(rows.dtype)).transpose(0, 1).unflatten(0, h.shape[:2]) + self.bias


class TimeBlock(nn.Module):
    """Follow each band through time: widen, convolve each feature, narrow, add."""

    def __init__(self, config: BandMixerConfig, dilation: int) -> None:
        super().__init__()
        c, inner = config, config.width * config.expansion
        features, reach = c.rows * inner, dilation * (c.kernel // 2)
        self.widen, self.act1, self.norm1 = nn.Linear(c.width, inner), nn.PReLU(), nn.GroupNorm(1, features)
        self.depthwise = nn.Conv1d(features, features, c.kernel, padding=reach, dilation=dilation, groups=features)
        self.act2, self.norm2, self.narrow = nn.PReLU(), nn.GroupNorm(1, features), nn.Linear(inner, c.width)

    def forward(self, h: Tensor) -> Tensor:
        """(B, L, bands, width) → the same."""
        inner = norm_act(self.widen(h).flatten(2), self.norm1, inner=self.act1.weight)
        inner = norm_act(depthwise(inner, self.depthwise), self.norm2, inner=self.act2.weight)
        return h + self.narrow(inner.unflatten(2, (h.shape[2], -1)))


class FrameBlock(nn.Module):
    """Mix all bands of a frame through a bottleneck, which may attend to other frames."""

    def __init__(self, config: BandMixerConfig, attends: bool) -> None:
        super().__init__()
        c, features = config, config.rows * config.width
        self.norm = nn.GroupNorm(1, features)
        self.enter, self.leave = nn.Linear(features, c.hidden), nn.Linear(c.hidden, features)
        self.layer = TransformerLayer(c.hidden, c.heads, 2 * c.hidden, F.gelu, False, True) if attends else None

    def forward(self, h: Tensor) -> Tensor:
        """(B, L, bands, width) → the same."""
        inner = self.enter(norm_act(h.flatten(2), self.norm))
        inner = F.gelu(inner) if self.layer is None else self.layer(inner)
        return h + self.leave(inner).unflatten(2, h.shape[2:])


def _head(bands: int, bins: int, config: BandMixerConfig) -> BandLinear:
    """The masks of so many bands of so many bins, at first about 1 / sources, so that no source is upside down."""
    head = BandLinear(bands, config.width, 2 * config.sources * bins)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.constant_(head.bias.view(bands, config.sources, 2, bins)[:, :, 0], 1 / config.sources)
    return head


@register("band_mixer", BandMixerConfig)
class BandMixer(Model):
    """The network. Sources sum to the mixture in use, where each takes what is missing by its power."""

    config: BandMixerConfig

    def __init__(self, config: BandMixerConfig) -> None:
        super().__init__(config)
        c = config
        self.frames = Frames(c.n_fft, c.hop_length)
        self.split = nn.ModuleList(BandLinear(count, _FEATURES * bins, c.width) for count, bins in c.groups)
        self.time = nn.ModuleList(TimeBlock(c, dilation) for dilation in c.dilations)
        self.mix = nn.ModuleList(FrameBlock(c, i % c.attention == c.attention - 1) for i in range(len(c.dilations)))
        self.norm = nn.GroupNorm(1, c.rows * c.width)
        self.heads = nn.ModuleList(_head(count, bins, c) for count, bins in c.groups)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, T) → (B, S, 1, T - 2 * context)."""
        c, length = self.config, x.shape[-1]
        with torch.autocast(x.device.type, enabled=False):
            mixture = x[:, 0].float()
            spectrum = self.frames.analyse(mixture)  # (B, L, F) complex
            level = mixture.square().mean(-1).add(1e-10).sqrt()
            features = self._features(spectrum / level[:, None, None])  # (B, L, F - 1, 3)
        estimate = apply_masks(self._masks(features), spectrum, self.frames, length)  # (B, S, T)
        if not self.training:
            power = estimate.square().mean(-1, keepdim=True) + 1e-14  # (B, S, 1)
            estimate = estimate + power / power.sum(1, keepdim=True) * (mixture - estimate.sum(1)).unsqueeze(1)
        return estimate[:, :, None, c.context : length - c.context]

    def _features(self, spectrum: Tensor) -> Tensor:
        """Compressed real and imaginary parts, and magnitudes: (B, L, F) → (B, L, F - 1, 3)."""
        parts = torch.view_as_real(spectrum[..., :-1]) * (2 / self.config.n_fft) ** 0.5
        power = parts.square().sum(-1, keepdim=True) + 1e-5
        magnitude = power ** (_COMPRESSION / 2)
        return torch.cat([parts * magnitude * power.rsqrt(), magnitude - 1], dim=-1)

    def _masks(self, features: Tensor) -> Tensor:
        """(B, L, F, 3) → (B, 2S, L, F): real and imaginary parts of every source's mask."""
        c = self.config
        sizes = [count * bins for count, bins in c.groups]
        parts = zip(self.split, features.split(sizes, dim=2), c.groups, strict=True)
        h = torch.cat([layer(part.unflatten(2, group).flatten(3)) for layer, part, group in parts], dim=2)
        for along, across in zip(self.time, self.mix, strict=True):
            h = across(along(h))  # (B, L, bands, width)
        h = norm_act(h.flatten(2), self.norm).unflatten(2, h.shape[2:])
        bands = h.split([count for count, _ in c.groups], dim=2)
        masks = [head(part).unflatten(3, (2 * c.sources, -1)) for head, part in zip(self.heads, bands, strict=True)]
        return torch.cat([mask.movedim(3, 1).flatten(3) for mask in masks], dim=3)  # from (B, L, bands, 2S, bins)
