"""BandMasks: restores the high band of separated sources by complex masks on the mixture.

Our own, after SFSRNet's super-resolution network (Rixen & Renz, AAAI 2022). As there, the input is the mixture, band-
limited estimates of its sources and a heuristic guess of their high band. Unlike there, the output is masked from the
mixture, which gives the right phase, and the blocks are those of ConvNeXt (Liu et al. 2022, arXiv 2201.03545) on bands
of a spectrogram, at a hundredth of the cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.config import at_least, check, multiple
from audiosr_cli.contract import ModelSpec
from audiosr_cli.dsp.spectra import constant
from audiosr_cli.models.base import Model, restorer_spec
from audiosr_cli.models.layers import STFT
from audiosr_cli.models.registry import register
from audiosr_cli.models.sfsrnet import STEADY, high_band, steady_level

# Power law compression: the network sees magnitudes to this power.
_COMPRESSION = 0.3
# Kernel of the blocks, in frames and in bands.
_KERNEL = 7
# Sample rates in Hz that ``fitted`` chooses from.
_RATES = (8000, 16000, 24000, 32000, 48000)
# Frequency in Hz from which on bands are wide.
_NARROW_HZ = 8000.0


@dataclass(frozen=True)
class BandMasksConfig:
    """Configuration of a BandMasks.

    Neither the rate nor the number of sources changes the weights: bins are equally far apart at any rate, and sources
    are processed one at a time.

    Args:
        sample_rate: Sample rate in Hz.
        sources: Number of sources, at least 2.
        cutoff_hz: Frequency above which the estimates have no content.
        frame_s: Length of a frame in seconds; frames overlap by half.
        narrow: Bins of a band below 8 kHz.
        wide: Bins of a band above.
        width: Features of a band.
        blocks: Number of ConvNeXt blocks.
        heuristic: Give the network a first guess of every source's high band, see ``sfsrnet.high_band``.
        frames: Hops that one window answers for.
        margin: Hops on each side that only inform the output: as many as layers reach, so that streaming is exact, or
            0, for training.
        name: Name of the model.

    Raises:
        UsageError: A value is impossible.
    """

    sample_rate: int = 16000
    sources: int = 2
    cutoff_hz: float = 3750.0
    frame_s: float = 0.032
    narrow: int = 8
    wide: int = 32
    width: int = 64
    blocks: int = 4
    heuristic: bool = True
    frames: int = 128
    margin: int = 29
    name: str = "band_masks"

    def __post_init__(self) -> None:
        at_least(self, 1, "sample_rate", "narrow", "wide", "width", "blocks", "frames")
        at_least(self, 2, "sources")
        at_least(self, 0, "margin", "cutoff_hz")
        check(0 < self.frame_s <= 1, f"frame_s = {self.frame_s:g}: must be above 0 and at most 1")
        check(
            self.n_fft % 2 == 0,
            f"frame_s = {self.frame_s:g}: must be an even number of samples at {self.sample_rate} Hz, not {self.n_fft}",
        )
        multiple(self.bins, self.narrow, "bins (frame_s · sample_rate / 2)", "narrow")
        multiple(self.bins - self.narrow_bins, self.wide, "bins above 8 kHz", "wide")
        most = min(self.narrow_bins, self.bins - 1)
        check(
            self.narrow <= self.low_bins <= most,
            f"cutoff_hz = {self.cutoff_hz:g}: is bin {self.low_bins}; must be between bins {self.narrow} and {most}",
        )
        reach = self.blocks * (_KERNEL // 2) + STEADY + 2
        check(
            self.margin == 0 or self.margin >= reach,
            f"margin = {self.margin}: must be 0 or at least what the layers reach, {reach} hops",
        )

    @property
    def n_fft(self) -> int:
        """Samples of a frame."""
        return round(self.frame_s * self.sample_rate)

    @property
    def bins(self) -> int:
        """Masked bins: all but the one at the Nyquist frequency."""
        return self.n_fft // 2

    @property
    def narrow_bins(self) -> int:
        """Bins in narrow bands."""
        return min(self.bins, round(_NARROW_HZ * self.frame_s))

    @property
    def low_bins(self) -> int:
        """Bins below the cutoff of the estimates."""
        return round(self.cutoff_hz * self.frame_s)

    @property
    def context(self) -> int:
        """Samples on each side that only inform the output."""
        return self.margin * (self.n_fft // 2)

    @property
    def core(self) -> int:
        """Samples that one window answers for."""
        return self.frames * (self.n_fft // 2)

    @property
    def spec(self) -> ModelSpec:
        """The contract with the engine."""
        return restorer_spec(self)


class BandConvNeXtBlock(nn.Module):
    """A ConvNeXt block (Liu et al. 2022, fig. 4) over frames and bands.

    Deviations: every band also gets the mean of the low bands, and ReLU replaces GELU, which was the larger part of the
    cost on CPUs.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, _KERNEL, padding=_KERNEL // 2, groups=width)
        self.norm, self.below = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, h: Tensor, low_bands: int) -> Tensor:
        """(B, L, bands, C) → the same shape."""
        with torch.autocast(h.device.type, enabled=False):  # in bfloat16 CPUs train it at half the speed
            inner = self.depthwise(h.float().permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        inner = self.norm(inner + self.below(h[:, :, :low_bands].mean(2, keepdim=True)))
        return h + self.scale * self.narrow(F.relu(self.wide(inner)))


def _compressed(spectrum: Tensor) -> Tensor:
    """(B, L, F) → (B, 3, L, F): real part, imaginary part and magnitude, compressed by a power law."""
    parts = torch.stack([spectrum.real, spectrum.imag], dim=1)
    power = parts.square().sum(1, keepdim=True) + 1e-5
    factor = power ** (_COMPRESSION / 2 - 0.5)
    return torch.cat([parts * factor, power.sqrt() * factor - 1], dim=1)


def _bands(features: Tensor, bins: int) -> Tensor:
    """(B, C, L, F) → (B, L, F / bins, C * bins): one vector per band."""
    return features.unflatten(3, (-1, bins)).permute(0, 2, 3, 1, 4).flatten(3)


@register("band_masks", BandMasksConfig)
class BandMasks(Model):
    """The network: one pass per source, with the mixture, the source's estimate and the sum of the others as input.

    The output starts as the estimate below ``cutoff_hz`` and the heuristic above. Above the cutoff the sources share
    the mixture: each has a share of every bin (a softmax over the sources, initially the heuristic's shares). A complex
    mask adds to both bands. All of it is local in time, so streaming equals one pass.
    """

    config: BandMasksConfig

    def __init__(self, config: BandMasksConfig) -> None:
        super().__init__(config)
        c = config
        self.stft = STFT(c.n_fft, c.n_fft // 2)
        # Not `enter`, the name when inputs had another order: checkpoints from then must not load.
        self.hear, self.hear_wide = nn.Linear(9 * c.narrow, c.width), nn.Linear(9 * c.wide, c.width)
        self.place = nn.Linear(4, c.width, bias=False)
        self.blocks = nn.ModuleList(BandConvNeXtBlock(c.width) for _ in range(c.blocks))
        self.norm = nn.LayerNorm(c.width, eps=1e-6)
        self.head, self.head_wide = nn.Linear(c.width, 2 * c.narrow), nn.Linear(c.width, 2 * c.wide)
        self.claim, self.claim_wide = nn.Linear(c.width, c.narrow), nn.Linear(c.width, c.wide)
        for layer in (self.head, self.head_wide, self.claim, self.claim_wide):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1 + S, T), the mixture first, → (B, S, 1, T - 2 * context)."""
        c, ends = self.config, min(STEADY, self.config.margin)  # frames on each side that only inform levels
        side = ends * c.n_fft // 2
        with torch.autocast(x.device.type, enabled=False):
            spectra = self.stft.analyse(x.float())  # (B, 1 + S, L, F)
            level = steady_level(spectra[:, :1], c.low_bins)
            spectra, level = (part[:, :, ends : part.shape[2] - ends] for part in (spectra, level))
            mixture, estimates = spectra[:, :1], spectra[:, 1:]
            start, prior = estimates, x.new_zeros(())
            if c.heuristic:
                start, share = high_band(mixture, estimates, c.low_bins)
                prior = share.log()
            features = self._features(mixture, start, level)
        masks = [self._masks(source) for source in features]  # one source at a time, to save memory
        with torch.autocast(x.device.type, enabled=False):
            spectra = self._masked(masks, mixture, estimates, prior)
            del masks
            wave = self.stft.synthesise(spectra, x.shape[-1] - 2 * side)
        return wave[:, :, None, c.context - side : wave.shape[-1] - (c.context - side)]

    def fitted(self, sample_rate: int, sources: int) -> BandMasks:
        """Return a copy at the lowest rate that holds the recording's band, at most the rate of the training."""
        c = self.config
        rates = [rate for rate in _RATES if 2 * c.cutoff_hz < rate <= c.sample_rate]
        rate = next((rate for rate in rates if rate >= sample_rate), c.sample_rate)
        if (rate, sources) == (c.sample_rate, c.sources):
            return self
        model = BandMasks(replace(c, sample_rate=rate, sources=sources))
        model.load_state_dict(self.state_dict())
        model.sha256 = self.sha256
        return model.to(self.device).requires_grad_(False).eval()

    def _features(self, mixture: Tensor, start: Tensor, level: Tensor) -> Iterator[Tensor]:
        """Yield, for each source, the compressed bins of the mixture, of it and of all others: (B, 9, L, bins)."""
        bins = self.config.bins
        mixture, sources = (spectra[..., :bins] / level for spectra in (mixture, start))
        total, mixture_features = sources.sum(1), _compressed(mixture[:, 0])
        for source in sources.unbind(1):
            yield torch.cat([mixture_features, _compressed(source), _compressed(total - source)], dim=1)

    def _masks(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 9, L, bins) → complex masks as pairs (B, L, bins + 1, 2), and logits of shares (B, L, bins + 1, 1)."""
        c, cut = self.config, self.config.narrow_bins
        narrow = self.hear(_bands(features[..., :cut], c.narrow))
        wide = self.hear_wide(_bands(features[..., cut:], c.wide))
        h = torch.cat([narrow, wide], dim=2) + self.place(
            _band_positions(c, features.device).to(features.dtype)
        )  # (B, L, bands, C)
        for block in self.blocks:
            h = block(h, c.low_bins // c.narrow)
        h = self.norm(h)
        narrow, wide = h[:, :, : cut // c.narrow], h[:, :, cut // c.narrow :]
        masks = self._bins(self.head(narrow), self.head_wide(wide), 2)
        return masks, self._bins(self.claim(narrow), self.claim_wide(wide), 1)

    def _masked(self, heads: list[tuple[Tensor, Tensor]], mixture: Tensor, estimates: Tensor, prior: Tensor) -> Tensor:
        """Return the sources' spectra (B, S, L, F), given each one's mask and logits; ``prior`` is added to those."""
        low = self.config.low_bins
        masks, logits = (torch.stack(part, dim=1).float() for part in zip(*heads, strict=True))  # (B, S, L, F, ·)
        masked = torch.view_as_complex(masks) * mixture
        shares = (logits[..., low:, 0] + prior).softmax(1)
        rest = (mixture - masked.sum(1, keepdim=True))[..., low:]
        return torch.cat([(estimates + masked)[..., :low], masked[..., low:] + shares * rest], dim=-1)

    def _bins(self, narrow: Tensor, wide: Tensor, values: int) -> Tensor:
        """Spread the outputs of bands (B, L, bands, bins of a band * values) to bins: (B, L, bins + 1, values)."""
        parts = [band.unflatten(3, (-1, values)).flatten(2, 3) for band in (narrow, wide)]
        return F.pad(torch.cat(parts, dim=2), (0, 0, 0, 1))


@constant
def _band_positions(config: BandMasksConfig, device: torch.device) -> Tensor:
    """Return four smooth functions of each band's centre frequency: (bands, 4)."""
    c, cut = config, config.narrow_bins
    centres = [*range(c.narrow // 2, cut, c.narrow), *range(cut + c.wide // 2, c.bins, c.wide)]
    octave = torch.log2(torch.tensor(centres, device=device) / c.low_bins)
    return torch.stack([octave, octave.square(), torch.sin(3 * octave), torch.cos(3 * octave)], dim=1)
