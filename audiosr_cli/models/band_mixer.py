"""BandMixer: complex masks by a band-split network that alternates between time and frequency.

Our own. Band-split RNN (Luo & Yu 2023, arXiv 2209.15174) splits a spectrogram into bands of a few bins and alternates
between modelling time and modelling bands. Here, dilated depthwise convolutions model time, as in Conv-TasNet (Luo &
Mesgarani 2019, fig. 1C), and a bottleneck over all bands of a frame mixes them, with attention along the frames
(full-band self-attention, as in TF-GridNet, Wang et al. 2023, arXiv 2211.12433). All of it is large matrix products and
passes over memory, which CPUs do well. Unlike a U-Net it keeps the full resolution in time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.config import at_least, check, multiple, odd
from audiosr_cli.contract import ModelSpec
from audiosr_cli.models.base import Model, check_separator, separator_spec
from audiosr_cli.models.fused import depthwise, norm_act
from audiosr_cli.models.layers import STFT, TransformerLayer
from audiosr_cli.models.registry import register
from audiosr_cli.models.spectral_unet import apply_masks

# Power law compression: the network sees magnitudes to this power.
_COMPRESSION = 0.3
# Features of a bin: real part, imaginary part, magnitude.
_FEATURES = 3


@dataclass(frozen=True)
class BandMixerConfig:
    """Configuration of a BandMixer.

    Args:
        sample_rate: Sample rate in Hz.
        sources: Number of sources, at least 2.
        n_fft: Samples of a frame.
        hop_length: Samples from one frame to the next.
        bands: Pairs (number of bands, bins of each), from the lowest band on; together n_fft / 2 bins.
        width: Features of a band.
        expansion: Features inside a time block, as a multiple of ``width``.
        kernel: Frames of a depthwise convolution, odd.
        hidden: Features of the bottleneck over all bands.
        heads: Attention heads of the bottleneck.
        dilations: Dilation of each time block.
        attention: In one of so many blocks the bottleneck attends to other frames.
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
        at_least(self, 1, "n_fft", "hop_length", "bands", "width", "expansion", "hidden", "heads", "attention")
        at_least(self, 2, "sources")
        check(bool(self.dilations), "dilations = []: must have at least one number")
        at_least(self, 1, "dilations")
        odd(self, "kernel")
        check_separator(self)
        check(
            len(self.bands) % 2 == 0 and sum(count * bins for count, bins in self.groups) == self.n_fft // 2,
            f"bands = {list(self.bands)}: must be pairs (number of bands, bins of each) with n_fft / 2 = "
            f"{self.n_fft // 2} bins in all",
        )
        multiple(self.n_fft, 2 * self.hop_length, "n_fft", "2 · hop_length")
        multiple(self.hidden, 2 * self.heads, "hidden", "2 · heads")

    @property
    def groups(self) -> list[tuple[int, int]]:
        """Pairs (number of bands, bins of each), from the lowest band on."""
        return list(zip(self.bands[::2], self.bands[1::2], strict=False))

    @property
    def rows(self) -> int:
        """Number of bands."""
        return sum(self.bands[::2])

    @property
    def spec(self) -> ModelSpec:
        """The contract with the engine."""
        return separator_spec(self)


class BandLinear(nn.Module):
    """A separate linear layer for each band: (B, L, bands, inputs) → (B, L, bands, outputs)."""

    def __init__(self, bands: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(bands, inputs, outputs) * inputs**-0.5)
        self.bias = nn.Parameter(torch.zeros(bands, outputs))

    def forward(self, h: Tensor) -> Tensor:
        """(B, L, bands, inputs) → (B, L, bands, outputs)."""
        rows = h.flatten(0, 1).transpose(0, 1)  # (bands, B · L, inputs)
        return torch.bmm(rows, self.weight.to(rows.dtype)).transpose(0, 1).unflatten(0, h.shape[:2]) + self.bias


class TimeBlock(nn.Module):
    """Model each band along time: a linear layer, a depthwise convolution, a linear layer, and a shortcut."""

    def __init__(self, config: BandMixerConfig, dilation: int) -> None:
        super().__init__()
        c, inner = config, config.width * config.expansion
        features, reach = c.rows * inner, dilation * (c.kernel // 2)
        self.widen, self.act1, self.norm1 = nn.Linear(c.width, inner), nn.PReLU(), nn.GroupNorm(1, features)
        self.depthwise = nn.Conv1d(features, features, c.kernel, padding=reach, dilation=dilation, groups=features)
        self.act2, self.norm2, self.narrow = nn.PReLU(), nn.GroupNorm(1, features), nn.Linear(inner, c.width)

    def forward(self, h: Tensor) -> Tensor:
        """(B, L, bands, width) → the same shape."""
        inner = norm_act(self.widen(h).flatten(2), self.norm1, inner=self.act1.weight)
        inner = norm_act(depthwise(inner, self.depthwise), self.norm2, inner=self.act2.weight)
        return h + self.narrow(inner.unflatten(2, (h.shape[2], -1)))


class FrameBlock(nn.Module):
    """Mix all bands of a frame through a bottleneck, with a transformer layer along the frames if it ``attends``."""

    def __init__(self, config: BandMixerConfig, attends: bool) -> None:
        super().__init__()
        c, features = config, config.rows * config.width
        self.norm = nn.GroupNorm(1, features)
        self.enter, self.leave = nn.Linear(features, c.hidden), nn.Linear(c.hidden, features)
        self.layer = TransformerLayer(c.hidden, c.heads, 2 * c.hidden, F.gelu, False, True) if attends else None

    def forward(self, h: Tensor) -> Tensor:
        """(B, L, bands, width) → the same shape."""
        inner = self.enter(norm_act(h.flatten(2), self.norm))
        inner = F.gelu(inner) if self.layer is None else self.layer(inner)
        return h + self.leave(inner).unflatten(2, h.shape[2:])


def _head(bands: int, bins: int, config: BandMixerConfig) -> BandLinear:
    """Return the head for the masks of some bands, initially about 1 / sources: a share of the mixture."""
    head = BandLinear(bands, config.width, 2 * config.sources * bins)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.constant_(head.bias.view(bands, config.sources, 2, bins)[:, :, 0], 1 / config.sources)
    return head


@register("band_mixer", BandMixerConfig)
class BandMixer(Model):
    """The network. In use, what the estimates lack of the mixture is distributed among them by their power."""

    config: BandMixerConfig

    def __init__(self, config: BandMixerConfig) -> None:
        super().__init__(config)
        c = config
        self.stft = STFT(c.n_fft, c.hop_length)
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
            spectrum = self.stft.analyse(mixture)  # (B, L, F) complex
            level = mixture.square().mean(-1).add(1e-10).sqrt()
            features = self._features(spectrum / level[:, None, None])  # (B, L, F - 1, 3)
        estimate = apply_masks(self._masks(features), spectrum, self.stft, length)  # (B, S, T)
        if not self.training:
            power = estimate.square().mean(-1, keepdim=True) + 1e-14  # (B, S, 1)
            estimate = estimate + power / power.sum(1, keepdim=True) * (mixture - estimate.sum(1)).unsqueeze(1)
        return estimate[:, :, None, c.context : length - c.context]

    def _features(self, spectrum: Tensor) -> Tensor:
        """Return compressed real parts, imaginary parts and magnitudes: (B, L, F) → (B, L, F - 1, 3)."""
        parts = torch.view_as_real(spectrum[..., :-1]) * (2 / self.config.n_fft) ** 0.5
        power = parts.square().sum(-1, keepdim=True) + 1e-5
        magnitude = power ** (_COMPRESSION / 2)
        return torch.cat([parts * magnitude * power.rsqrt(), magnitude - 1], dim=-1)

    def _masks(self, features: Tensor) -> Tensor:
        """(B, L, F, 3) → (B, 2S, L, F): real and imaginary part of every source's mask."""
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
