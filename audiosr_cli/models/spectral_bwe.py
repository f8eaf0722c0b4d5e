"""SpectralBWE: bandwidth extension frame by frame, by spectral band replication that a network shapes.

Our own. Its blocks are those of ConvNeXt along the frames (Liu et al. 2022; for spectra Siuzdak 2023, Vocos, arXiv
2306.00814, and Lu et al. 2024, AP-BWE, arXiv 2401.06387). Unlike those vocoders it estimates no phase: the high band is
the low band, whitened and shifted up (spectral band replication, Dietz et al. 2002), with estimated gains. Such a
spectrum is consistent: there is a waveform that has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.config import at_least, check, multiple, odd
from audiosr_cli.contract import ModelSpec
from audiosr_cli.dsp.spectra import squared
from audiosr_cli.models.base import Model
from audiosr_cli.models.fused import depthwise
from audiosr_cli.models.layers import STFT
from audiosr_cli.models.registry import register

# Frequencies of the sines and cosines that encode the cutoff, see ``_cutoff_features``.
_CUTOFF_WAVES = 8
# Bins on each side over which the low band is whitened.
_WHITENING_BINS = 6
# Widest crossfade at the cutoff, as a share of the cutoff: so that a low cutoff does not lose much of the low band.
_WIDEST_FADE = 0.05
# The merge "fill", in shares of the cutoff. From the first pair on, the restored band fills what the input lacks; from
# the second on, it replaces the input, except where that is as strong, because the cutoff is too low; from the third
# on, always. Chosen with the next two on ten degradations of speech48k/valid (docs/experiments/upsampling.md, "The
# merge at the cutoff").
_FILLS, _REPLACES, _ENDS = (0.94, 0.96), (1.005, 1.03), (1.08, 1.12)
# The input lacks what is weaker than the restored band by this factor of power, both averaged over _FILLED_BINS on each
# side. Less could be chance, and adding to a complete spectrum makes it too loud.
_LACKING = 30.0
_FILLED_BINS = 3
# Lowest bin at which the crossfade may start; below, there is too little to replicate.
_LOWEST_BIN = 8
# Initial natural logarithm of the high band's level relative to the low band: -26 dB.
_INITIAL_LOG_GAIN = -3.0
# Highest natural logarithm of a gain before flattening: +26 dB; it bounds the exponential.
_MOST_LOG_GAIN = 3.0


@dataclass(frozen=True)
class SpectralBWEConfig:
    """Configuration of a SpectralBWE.

    Args:
        sample_rate: Sample rate of input and output in Hz.
        n_fft: Samples of a frame.
        hop_length: Samples from one frame to the next.
        hidden: Features of a frame.
        blocks: Number of ConvNeXt blocks.
        kernel: Frames of their kernels, odd.
        expansion: Features inside a block, as a multiple of ``hidden``.
        steady: Frames on each side over which a frame's level is measured.
        fade_hz: Crossfade from the input to the restored band below the cutoff, at most a twentieth of the cutoff.
        merge: How the restored band joins the input: "crossfade" over ``fade_hz``, or "fill", which keeps the input as
            far as there is any, and adds what it lacks. The network gets the same input either way.
        inputs: Features of a frame that the caller gives in place of its magnitudes; 0 for the magnitudes.
        frames: Hops that one window answers for.
        margin: Hops on each side that only inform the output: as many as layers reach, so that streaming is exact, or
            0, for training.
        name: Name of the model.

    Raises:
        UsageError: A value is impossible.
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
    merge: Literal["crossfade", "fill"] = "crossfade"
    inputs: int = 0
    frames: int = 192
    margin: int = 27
    name: str = "spectral_bwe"

    def __post_init__(self) -> None:
        at_least(self, 1, "sample_rate", "hop_length", "hidden", "blocks", "expansion", "steady", "frames")
        at_least(self, 0, "inputs", "margin")
        at_least(self, 8 * _LOWEST_BIN, "n_fft")
        odd(self, "kernel")
        multiple(self.n_fft, 2 * self.hop_length, "n_fft", "2 · hop_length")
        lowest_hz = _LOWEST_BIN * self.sample_rate / self.n_fft
        check(
            0 < self.fade_hz <= self.sample_rate / 2 - lowest_hz,
            f"fade_hz = {self.fade_hz:g}: must be above 0 and at most sample_rate / 2 - {lowest_hz:g}",
        )
        reach = self.blocks * (self.kernel // 2) + self.steady + self.n_fft // self.hop_length
        check(
            self.margin == 0 or self.margin >= reach,
            f"margin = {self.margin}: must be 0 or at least what the layers reach, {reach} hops",
        )

    @property
    def bins(self) -> int:
        """Bins of a spectrum, F."""
        return self.n_fft // 2 + 1

    @property
    def spec(self) -> ModelSpec:
        """The contract with the engine."""
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


class ConvNeXtBlock(nn.Module):
    """A ConvNeXt block along the frames (Liu et al. 2022, fig. 4), with ReLU in place of GELU."""

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


def _average(power: Tensor, bins: int) -> Tensor:
    """Average (B, L, F) over the ``bins`` on each side along F."""
    frames_last = power.mT.contiguous().mT  # a quarter of the pooling's cost
    return F.avg_pool1d(frames_last, 2 * bins + 1, 1, bins, count_include_pad=False).contiguous()


@register("spectral_bwe", SpectralBWEConfig)
class SpectralBWE(Model):
    """The network.

    Below the cutoff (from 0.94 times the cutoff on, where nothing lacks) the output is the input, bin by bin. Above it,
    the network estimates two numbers for each bin of the replicated band: a gain, and a flatness, by which the
    magnitude is drawn towards its local mean. All levels are relative to that of the surrounding frames, so gain in is
    gain out, polarity is kept, and silence stays silent.

    Estimating complex values in addition lowers the log-spectral distance faster, but sounds worse: magnitudes without
    fluctuation are those of one pulse per frame, which buzzes.
    """

    config: SpectralBWEConfig

    def __init__(self, config: SpectralBWEConfig) -> None:
        super().__init__(config)
        c = config
        self.stft = STFT(c.n_fft, c.hop_length)
        self.enter = nn.Linear(c.inputs or c.bins, c.hidden)
        self.place = nn.Linear(2 * _CUTOFF_WAVES, c.hidden, bias=False)
        self.enter_norm, self.norm = (nn.LayerNorm(c.hidden, eps=1e-6) for _ in range(2))
        self.blocks = nn.ModuleList(ConvNeXtBlock(c.hidden, c.kernel, c.expansion) for _ in range(c.blocks))
        self.size, self.flatness = nn.Linear(c.hidden, c.bins), nn.Linear(c.hidden, c.bins)
        for layer, bias in ((self.size, _INITIAL_LOG_GAIN), (self.flatness, 0.0)):
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
            spectrum = self.stft.analyse(x[:, 0].float())  # (B, L, F)
            cutoff = self.default_cutoff(x) if cutoff_hz is None else cutoff_hz.float()
            share, first = self._high_band(cutoff)  # (B, 1, F), (B,)
            level = self._level(spectrum * (1 - share))
            replicated = self._replicated(spectrum, level, first)
            features = self._features(spectrum, level, share) if features is None else features
        h = self.enter_norm(self.enter(features) + self.place(self._cutoff_features(cutoff)).unsqueeze(1))
        for block in self.blocks:
            h = block(h)
        h = self.norm(h)
        log_gain, flatness = self.size(h), self.flatness(h)
        with torch.autocast(x.device.type, enabled=False):
            power = squared(replicated) + 1e-4
            log_gain = log_gain.float().clamp_max(_MOST_LOG_GAIN) - 0.5 * flatness.float().sigmoid() * power.log()
            high = level * log_gain.exp() * replicated
            wave = self.stft.synthesise(self._merged(spectrum, high, share, cutoff), length)
        return wave[:, None, None, context : length - context]

    def level_below(self, waves: Tensor, cutoff: Tensor) -> Tensor:
        """Return the RMS of the bins below ``cutoff`` (B,) around each frame: (B, T) → (B, L, 1)."""
        share, _ = self._high_band(cutoff)
        return self._level(self.stft.analyse(waves) * (1 - share))

    def _frequency(self, device: torch.device) -> Tensor:
        """Return the frequency of each bin in Hz, (F,)."""
        return torch.arange(self.config.bins, device=device) * (self.config.sample_rate / self.config.n_fft)

    def _high_band(self, cutoff: Tensor) -> tuple[Tensor, Tensor]:
        """Return the restored share of each bin (B, 1, F), and the first bin with any, rounded down to even (B,)."""
        c = self.config
        step = c.sample_rate / c.n_fft
        frequency = self._frequency(cutoff.device)
        fade = (_WIDEST_FADE * cutoff).clamp_max(c.fade_hz).unsqueeze(1)
        low = (cutoff.unsqueeze(1) - fade).clamp(_LOWEST_BIN * step, c.sample_rate / 2 - c.fade_hz)
        share = ((frequency - low) / fade).clamp(0, 1).unsqueeze(1)
        return share, (low[:, 0] / step).long() // 2 * 2

    def _merged(self, spectrum: Tensor, high: Tensor, share: Tensor, cutoff: Tensor) -> Tensor:
        """Join the input and the restored band, see ``SpectralBWEConfig.merge``: (B, L, F) twice → (B, L, F)."""
        if self.config.merge == "crossfade":
            return spectrum * (1 - share) + high * share
        with torch.no_grad():
            relative = (self._frequency(cutoff.device) / cutoff.unsqueeze(1)).unsqueeze(1)  # (B, 1, F)
            fills, replaces, ends = (((relative - a) / (b - a)).clamp(0, 1) for a, b in (_FILLS, _REPLACES, _ENDS))
            ours, restored = (_average(squared(x), _FILLED_BINS) for x in (spectrum, high))
            ratio = ours / restored.clamp_min(1e-30)
            replaced = torch.maximum(replaces * (1 - ratio).clamp_min(0), ends)
            added = torch.maximum(replaced, fills * (1 - _LACKING * ratio).clamp_min(0))
            # The two are not coherent: powers add up, not amplitudes.
            gains = (1 - replaced).sqrt(), added.sqrt()
        return spectrum * gains[0] + high * gains[1]

    def _level(self, spectrum: Tensor) -> Tensor:
        """Return the RMS of the bins of the frames around each: (B, L, F) → (B, L, 1)."""
        steady = self.config.steady
        power = squared(spectrum).mean(2).unsqueeze(1)
        smooth = F.avg_pool1d(power, 2 * steady + 1, 1, steady, count_include_pad=False)
        return smooth.sqrt()[:, 0, :, None]

    def _replicated(self, spectrum: Tensor, level: Tensor, first: Tensor) -> Tensor:
        """Repeat the upper half of the low band, whitened, up to the highest bin: (B, L, F).

        Shifts are even numbers of bins: with frames that overlap by half, only those keep the spectrum consistent.
        """
        bins = self.config.bins
        power = _average(squared(spectrum), _WHITENING_BINS)
        white = spectrum * (power + (1e-3 * level).square() + 1e-12).rsqrt()
        start = (first // 4 * 2).unsqueeze(1)  # (B, 1)
        k = torch.arange(bins, device=first.device)
        source = start + (k - first.unsqueeze(1)) % (first.unsqueeze(1) - start)
        return white.gather(2, source.unsqueeze(1).expand_as(white))

    def _features(self, spectrum: Tensor, level: Tensor, share: Tensor) -> Tensor:
        """Return the log magnitudes of the low band relative to the level: (B, L, F)."""
        power = squared(spectrum / (level + 1e-8))
        return (0.5 * torch.log10(power + 1e-6) + 1) * (1 - share)

    def _cutoff_features(self, cutoff: Tensor) -> Tensor:
        """Return sines and cosines of the cutoff in octaves: (B,) → (B, 2 * _CUTOFF_WAVES)."""
        octave = torch.log2(cutoff / 1000).unsqueeze(1)  # 0 … 4.5
        angle = octave * torch.linspace(0.3, 4.0, _CUTOFF_WAVES, device=cutoff.device)
        return torch.cat([angle.sin(), angle.cos()], dim=1)
