"""BandMasks: full-rate sources from a full-rate mixture and low-rate estimates of what is in it.

Our own, after SFSRNet's super-resolution network (Rixen & Renz, AAAI 2022): like that it hears the mixture, the
estimates and a heuristic high band. Other than that it has complex masks on the mixture's own bins, so that phase is
right, and blocks after ConvNeXt (Liu et al. 2022, arXiv 2201.03545) on bands of a spectrogram, which cost a hundredth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.contract import ModelSpec
from audiosr_cli.dsp.spectra import constant
from audiosr_cli.models.base import Model, restorer_spec
from audiosr_cli.models.layers import Frames
from audiosr_cli.models.registry import register
from audiosr_cli.models.sfsrnet import STEADY, high_band, steady_level

_COMPRESSION = 0.3  # the network sees magnitudes to this power
_KERNEL = 7  # of the blocks, over frames and over bands
_RATES = (8000, 16000, 24000, 32000, 48000)  # of mixtures
_NARROW_HZ = 8000.0  # where wide bands begin


@dataclass(frozen=True)
class BandMasksConfig:
    """Every number of a BandMasks.

    Frames of ``frame_s`` seconds overlap by half, so bins are as far apart at any ``sample_rate`` and the same weights
    serve all. Bands have ``narrow`` bins up to 8 kHz, ``wide`` ones above. Estimates end at ``cutoff_hz``. ``width``
    features go through ``blocks``. ``heuristic`` gives the network a first guess of every source's high band.
    ``sources`` changes no weights either. ``frames`` are how many hops a window yields, ``margin`` how many it hears on
    both sides: enough to stream exactly, or 0, which is for training.
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
        assert self.sources >= 2 and min(self.width, self.blocks, self.frames) >= 1
        assert self.n_fft % 2 == 0 and self.bins % self.narrow == 0
        assert (self.bins - self.narrow_bins) % self.wide == 0
        assert self.narrow <= self.low_bins <= self.narrow_bins and self.low_bins < self.bins
        assert self.margin == 0 or self.margin >= self.blocks * (_KERNEL // 2) + STEADY + 2

    @property
    def n_fft(self) -> int:
        """Samples of a frame."""
        return round(self.frame_s * self.sample_rate)

    @property
    def bins(self) -> int:
        """Bins that are masked: all but the one at half the rate."""
        return self.n_fft // 2

    @property
    def narrow_bins(self) -> int:
        """Bins in narrow bands."""
        return min(self.bins, round(_NARROW_HZ * self.frame_s))

    @property
    def low_bins(self) -> int:
        """Bins that the estimates fill."""
        return round(self.cutoff_hz * self.frame_s)

    @property
    def context(self) -> int:
        """Samples on both sides that are heard only."""
        return self.margin * (self.n_fft // 2)

    @property
    def core(self) -> int:
        """Samples that a window answers for."""
        return self.frames * (self.n_fft // 2)

    @property
    def spec(self) -> ModelSpec:
        """The contract that follows."""
        return restorer_spec(self)


class Block(nn.Module):
    """A ConvNeXt block over frames and bands; what the low bands have in common reaches all.

    With ReLU instead of GELU, which was the larger part of its cost on CPUs.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, _KERNEL, padding=_KERNEL // 2, groups=width)
        self.norm, self.below = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, h: Tensor, low_bands: int) -> Tensor:
        """(B, L, bands, C) → the same shape."""
        with torch.autocast(h.device.type, enabled=False):  # CPUs learn its kernels half as fast in bf16
            inner = self.depthwise(h.float().permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        inner = self.norm(inner + self.below(h[:, :, :low_bands].mean(2, keepdim=True)))
        return h + self.scale * self.narrow(F.relu(self.wide(inner)))


def _compressed(spectrum: Tensor) -> Tensor:
    """(B, L, F) → (B, 3, L, F): real and imaginary part and magnitude, of which the network sees a power."""
    parts = torch.stack([spectrum.real, spectrum.imag], dim=1)
    power = parts.square().sum(1, keepdim=True) + 1e-5
    factor = power ** (_COMPRESSION / 2 - 0.5)
    return torch.cat([parts * factor, power.sqrt() * factor - 1], dim=1)


def _bands(heard: Tensor, bins: int) -> Tensor:
    """(B, C, L, F) → (B, L, F / bins, C * bins): bands as vectors."""
    return heard.unflatten(3, (-1, bins)).permute(0, 2, 3, 1, 4).flatten(3)


@register("band_masks", BandMasksConfig)
class BandMasks(Model):
    """The network: one pass a source, in which it hears the mixture, the source's estimate and those of the others.

    What it starts from is the estimate up to ``cutoff_hz`` and the heuristic above. Above the cutoff sources share the
    mixture: each claims a part of every bin, and the parts, which begin as the heuristic's, sum to one. Complex masks
    add to both. It is exact where it streams: all it does is local in time.
    """

    config: BandMasksConfig

    def __init__(self, config: BandMasksConfig) -> None:
        super().__init__(config)
        c = config
        self.frames = Frames(c.n_fft, c.n_fft // 2)
        # not `enter`, as when inputs had another order: checkpoints of then must not load
        self.hear, self.hear_wide = nn.Linear(9 * c.narrow, c.width), nn.Linear(9 * c.wide, c.width)
        self.place = nn.Linear(4, c.width, bias=False)
        self.blocks = nn.ModuleList(Block(c.width) for _ in range(c.blocks))
        self.norm = nn.LayerNorm(c.width, eps=1e-6)
        self.head, self.head_wide = nn.Linear(c.width, 2 * c.narrow), nn.Linear(c.width, 2 * c.wide)
        self.claim, self.claim_wide = nn.Linear(c.width, c.narrow), nn.Linear(c.width, c.wide)
        for layer in (self.head, self.head_wide, self.claim, self.claim_wide):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1 + S, T) → (B, S, 1, T - 2 * context): first the mixture, then its sources below ``cutoff_hz``."""
        c, ends = self.config, min(STEADY, self.config.margin)  # frames at both ends that tell levels only
        side = ends * c.n_fft // 2
        with torch.autocast(x.device.type, enabled=False):
            spectra = self.frames.analyse(x.float())  # (B, 1 + S, L, F)
            level = steady_level(spectra[:, :1], c.low_bins)
            spectra, level = (every[:, :, ends : every.shape[2] - ends] for every in (spectra, level))
            mixture, estimates = spectra[:, :1], spectra[:, 1:]
            start, prior = estimates, x.new_zeros(())
            if c.heuristic:
                start, part = high_band(mixture, estimates, c.low_bins)
                prior = part.log()
            features = self._features(mixture, start, level)
        masks = [self._masks(heard) for heard in features]  # a source at a time, for memory
        with torch.autocast(x.device.type, enabled=False):
            made = self._masked(masks, mixture, estimates, prior)
            del masks
            wave = self.frames.synthesise(made, x.shape[-1] - 2 * side)
        return wave[:, :, None, c.context - side : wave.shape[-1] - (c.context - side)]

    def fitted(self, sample_rate: int, sources: int) -> BandMasks:
        """At the lowest rate that holds the recording's band; never above the one trained at, whose bands it knows."""
        c = self.config
        rates = [rate for rate in _RATES if 2 * c.cutoff_hz < rate <= c.sample_rate]
        rate = next((rate for rate in rates if rate >= sample_rate), c.sample_rate)
        if (rate, sources) == (c.sample_rate, c.sources):
            return self
        made = BandMasks(replace(c, sample_rate=rate, sources=sources))
        made.load_state_dict(self.state_dict())
        made.sha256 = self.sha256
        return made.to(self.norm.weight.device).requires_grad_(False).eval()

    def _features(self, mixture: Tensor, start: Tensor, level: Tensor) -> Iterator[Tensor]:
        """Compressed bins of the mixture, of each source and of its rivals: (B, 9, L, bins), a source at a time."""
        bins = self.config.bins
        whole, every = (spectra[..., :bins] / level for spectra in (mixture, start))
        total, heard = every.sum(1), _compressed(whole[:, 0])
        for own in every.unbind(1):
            yield torch.cat([heard, _compressed(own), _compressed(total - own)], dim=1)

    def _masks(self, heard: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 9, L, bins) → masks' real and imaginary parts (B, L, bins + 1, 2), and claims (B, L, bins + 1, 1)."""
        c, cut = self.config, self.config.narrow_bins
        narrow = self.hear(_bands(heard[..., :cut], c.narrow))
        wide = self.hear_wide(_bands(heard[..., cut:], c.wide))
        h = torch.cat([narrow, wide], dim=2) + self.place(_places(c, heard.device).to(heard.dtype))  # (B, L, bands, C)
        for block in self.blocks:
            h = block(h, c.low_bins // c.narrow)
        h = self.norm(h)
        narrow, wide = h[:, :, : cut // c.narrow], h[:, :, cut // c.narrow :]
        masks = self._bins(self.head(narrow), self.head_wide(wide), 2)
        return masks, self._bins(self.claim(narrow), self.claim_wide(wide), 1)

    def _masked(self, each: list[tuple[Tensor, Tensor]], mixture: Tensor, estimates: Tensor, prior: Tensor) -> Tensor:
        """The sources' spectra (B, S, L, F), by the masks and claims of each; ``prior`` is added to the claims."""
        low = self.config.low_bins
        masks, claims = (torch.stack(one, dim=1).float() for one in zip(*each, strict=True))  # (B, S, L, F, ·)
        added = torch.view_as_complex(masks) * mixture
        shares = (claims[..., low:, 0] + prior).softmax(1)
        rest = (mixture - added.sum(1, keepdim=True))[..., low:]
        return torch.cat([(estimates + added)[..., :low], added[..., low:] + shares * rest], dim=-1)

    def _bins(self, narrow: Tensor, wide: Tensor, values: int) -> Tensor:
        """What bands (B, L, bands, bins of a band * values) say, as (B, L, bins + 1, values)."""
        parts = [band.unflatten(3, (-1, values)).flatten(2, 3) for band in (narrow, wide)]
        return F.pad(torch.cat(parts, dim=2), (0, 0, 0, 1))


@constant
def _places(config: BandMasksConfig, device: torch.device) -> Tensor:
    """Where each band lies: (bands, 4), smooth functions of its frequency."""
    c, cut = config, config.narrow_bins
    centres = [*range(c.narrow // 2, cut, c.narrow), *range(cut + c.wide // 2, c.bins, c.wide)]
    octave = torch.log2(torch.tensor(centres, device=device) / c.low_bins)
    return torch.stack([octave, octave.square(), torch.sin(3 * octave), torch.cos(3 * octave)], dim=1)
