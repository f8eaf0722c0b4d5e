"""SpectralBWE: the highs that a recording lacks, made frame by frame from its low band.

Our own. Its blocks are ConvNeXt's along the frames (Liu et al. 2022; for spectra Siuzdak 2023, Vocos, arXiv 2306.00814,
and Lu et al. 2024, AP-BWE, arXiv 2401.06387). Other than those it invents no phase: what it shapes is the low band
itself, whitened and moved up (spectral band replication, Dietz et al. 2002): a spectrum that a waveform can have.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.contract import ModelSpec
from audiosr_cli.dsp.spectra import squared
from audiosr_cli.models.base import Model
from audiosr_cli.models.fused import depthwise
from audiosr_cli.models.layers import Frames
from audiosr_cli.models.registry import register

_OCTAVES = 8  # waves that tell the network where the cutoff is
_WHITE = 6  # bins on both sides over which the low band is whitened
_FADE = 0.05  # most that the crossfade takes of what is below the cutoff
_LOWEST = 8  # bin above which content may end
_DOWN = -3.0  # natural logarithm of the highs' level before learning, against the low band's


@dataclass(frozen=True)
class SpectralBWEConfig:
    """Every number of a SpectralBWE.

    Frames of ``n_fft`` every ``hop_length``; ``hidden`` features of each go through ``blocks`` with kernels of
    ``kernel`` frames, ``expansion`` times as wide inside. A frame's level is that of ``steady`` frames around it on
    both sides. Over ``fade_hz`` below the cutoff, or a twentieth of it, the input gives way to what is made. ``inputs``
    features of a frame are heard instead of its own magnitudes, if not 0. ``frames`` are how many hops a window yields,
    ``margin`` how many it hears on both sides: enough to stream exactly, or 0, which is for training.
    """

    sample_rate: int = 48000
    n_fft: int = 1024
    hop_length: int = 512
    hidden: int = 288
    blocks: int = 7
    kernel: int = 7
    expansion: int = 3
    steady: int = 4
    fade_hz: float = 250.0
    inputs: int = 0
    frames: int = 192
    margin: int = 27
    name: str = "spectral_bwe"

    def __post_init__(self) -> None:
        assert min(self.hidden, self.blocks, self.expansion, self.frames, self.steady) >= 1
        assert self.kernel % 2 == 1 and self.hop_length >= 1 and self.n_fft % (2 * self.hop_length) == 0
        assert self.fade_hz > 0 and self.n_fft >= 8 * _LOWEST
        reach = self.blocks * (self.kernel // 2) + self.steady + self.n_fft // self.hop_length
        assert self.margin == 0 or self.margin >= reach

    @property
    def bins(self) -> int:
        """Of a frame's spectrum."""
        return self.n_fft // 2 + 1

    @property
    def spec(self) -> ModelSpec:
        """The contract that follows."""
        context = self.margin * self.hop_length
        return ModelSpec(
            name=self.name,
            task="upsample",
            in_rate=self.sample_rate,
            ratio=1,
            sources=1,
            channels=1,
            window=self.frames * self.hop_length + 2 * context,
            context=context,
            hop=self.frames * self.hop_length,
            uses_cutoff=True,
        )


class Block(nn.Module):
    """A ConvNeXt block along the frames."""

    def __init__(self, width: int, kernel: int, expansion: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.wide, self.narrow = nn.Linear(width, expansion * width), nn.Linear(expansion * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.3))

    def forward(self, h: Tensor) -> Tensor:
        """(B, L, H) → the same shape."""
        inner = self.norm(depthwise(h, self.depthwise))
        return h + self.scale * self.narrow(F.relu(self.wide(inner)))


@register("spectral_bwe", SpectralBWEConfig)
class SpectralBWE(Model):
    """The network. Below the cutoff the output is the input, bin by bin.

    Above it each bin of the raised low band has a gain, and a flatness: how much of its own ups and downs is taken
    out. Everything is relative to the level of the frames around, so gain in is gain out, polarity is kept, and silence
    stays silent.

    Complex values of its own beside those would bring the log-spectral distance down faster, but as pulses at the rate
    of the frames: magnitudes without ups and downs are those of one pulse a frame, which buzzes.
    """

    config: SpectralBWEConfig

    def __init__(self, config: SpectralBWEConfig) -> None:
        super().__init__(config)
        c = config
        self.frames = Frames(c.n_fft, c.hop_length)
        self.enter = nn.Linear(c.inputs or c.bins, c.hidden)
        self.place = nn.Linear(2 * _OCTAVES, c.hidden, bias=False)
        self.enter_norm, self.norm = (nn.LayerNorm(c.hidden, eps=1e-6) for _ in range(2))
        self.blocks = nn.ModuleList(Block(c.hidden, c.kernel, c.expansion) for _ in range(c.blocks))
        self.size, self.flatness = nn.Linear(c.hidden, c.bins), nn.Linear(c.hidden, c.bins)
        for layer, bias in ((self.size, _DOWN), (self.flatness, 0.0)):
            nn.init.normal_(layer.weight, std=1e-3)
            nn.init.constant_(layer.bias, bias)

    def forward(self, x: Tensor, *, cutoff_hz: Tensor | None = None, features: Tensor | None = None) -> Tensor:
        """Restore the highs of a window.

        Args:
            x: (B, 1, T).
            cutoff_hz: (B,), where each item's content ends; a sixth of the rate by default.
            features: (B, L, inputs), in place of the frames' own magnitudes, for a config with ``inputs``.

        Returns:
            (B, 1, 1, T - 2 * context).
        """
        c, length = self.config, x.shape[-1]
        context = c.margin * c.hop_length
        with torch.autocast(x.device.type, enabled=False):
            spectrum = self.frames.analyse(x[:, 0].float())  # (B, L, F)
            cutoff = self.default_cutoff(x) if cutoff_hz is None else cutoff_hz.float()
            share, first = self._above(cutoff)  # (B, 1, F), (B,)
            level = self._level(spectrum * (1 - share))
            raised = self._raised(spectrum, level, first)
            features = self._features(spectrum, level, share) if features is None else features
        h = self.enter_norm(self.enter(features) + self.place(self._where(cutoff)).unsqueeze(1))
        for block in self.blocks:
            h = block(h)
        h = self.norm(h)
        size, flatness = self.size(h), self.flatness(h)
        with torch.autocast(x.device.type, enabled=False):
            power = squared(raised) + 1e-4
            gain = size.float().clamp_max(3) - 0.5 * flatness.float().sigmoid() * power.log()
            made = level * gain.exp() * raised
            wave = self.frames.synthesise(spectrum * (1 - share) + made * share, length)
        return wave[:, None, None, context : length - context]

    def level_below(self, waves: Tensor, cutoff: Tensor) -> Tensor:
        """RMS of a bin below ``cutoff`` (B,) over the frames around each: (B, T) → (B, L, 1)."""
        share, _ = self._above(cutoff)
        return self._level(self.frames.analyse(waves) * (1 - share))

    def _above(self, cutoff: Tensor) -> tuple[Tensor, Tensor]:
        """How much of each bin is to be made (B, 1, F), and the first bin of which anything is, even (B,)."""
        c = self.config
        step = c.sample_rate / c.n_fft
        frequency = torch.arange(c.bins, device=cutoff.device) * step
        fade = (_FADE * cutoff).clamp_max(c.fade_hz).unsqueeze(1)
        low = (cutoff.unsqueeze(1) - fade).clamp(_LOWEST * step, c.sample_rate / 2 - c.fade_hz)
        share = ((frequency - low) / fade).clamp(0, 1).unsqueeze(1)
        return share, (low[:, 0] / step).long() // 2 * 2

    def _level(self, spectrum: Tensor) -> Tensor:
        """RMS of a bin over the frames around each: (B, L, F) → (B, L, 1)."""
        steady = self.config.steady
        power = squared(spectrum).mean(2).unsqueeze(1)
        smooth = F.avg_pool1d(power, 2 * steady + 1, 1, steady, count_include_pad=False)
        return smooth.sqrt()[:, 0, :, None]

    def _raised(self, spectrum: Tensor, level: Tensor, first: Tensor) -> Tensor:
        """The upper half of the low band, white and moved up again and again: (B, L, F).

        By even numbers of bins: with frames that overlap by half only those make a wave's spectrum another wave's.
        """
        bins = self.config.bins
        frames_last = squared(spectrum).mT.contiguous().mT  # a quarter of the pooling's cost
        power = F.avg_pool1d(frames_last, 2 * _WHITE + 1, 1, _WHITE, count_include_pad=False).contiguous()
        white = spectrum * (power + (1e-3 * level).square() + 1e-12).rsqrt()
        start = (first // 4 * 2).unsqueeze(1)  # (B, 1)
        k = torch.arange(bins, device=first.device)
        source = start + (k - first.unsqueeze(1)) % (first.unsqueeze(1) - start)
        return white.gather(2, source.unsqueeze(1).expand_as(white))

    def _features(self, spectrum: Tensor, level: Tensor, share: Tensor) -> Tensor:
        """Log magnitudes of what is kept, against the level: (B, L, F)."""
        power = squared(spectrum / (level + 1e-8))
        return (0.5 * torch.log10(power + 1e-6) + 1) * (1 - share)

    def _where(self, cutoff: Tensor) -> Tensor:
        """Waves of the cutoff's logarithm: (B,) → (B, 2 * _OCTAVES)."""
        octave = torch.log2(cutoff / 1000).unsqueeze(1)  # 0 … 4.5
        angle = octave * torch.linspace(0.3, 4.0, _OCTAVES, device=cutoff.device)
        return torch.cat([angle.sin(), angle.cos()], dim=1)
