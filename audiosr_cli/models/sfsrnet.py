"""The super-resolution network of SFSRNet (Rixen & Renz, AAAI 2022): restores the high band of separated sources.

Its input is the mixture and band-limited estimates of its sources. It works on magnitudes only and keeps the phase. The
separator of the paper is in dual_path.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.config import at_least, check, multiple, odd
from audiosr_cli.contract import ModelSpec
from audiosr_cli.dsp.spectra import squared
from audiosr_cli.models.base import Model, restorer_spec
from audiosr_cli.models.layers import STFT
from audiosr_cli.models.registry import register

# Frames on each side over which the level of a frame is measured.
STEADY = 15


@dataclass(frozen=True)
class SFSRNetConfig:
    """Configuration of an SFSRNet; the defaults are the paper's, with its frames of 32 ms at another rate.

    Args:
        sample_rate: Sample rate in Hz.
        sources: Number of sources, at least 2.
        cutoff_hz: Frequency above which the estimates have no content.
        n_fft: Samples of a frame.
        hop_length: Samples from one frame to the next.
        widths: Filters of each layer but the last, which has one per source.
        kernels: Odd kernel of each layer, in frames and in bins.
        heuristic: Give the network a first guess of every source's high band, see ``high_band``.
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
    n_fft: int = 512
    hop_length: int = 128
    widths: tuple[int, ...] = (128, 256, 128)
    kernels: tuple[int, ...] = (5, 9, 11, 11)
    heuristic: bool = True
    frames: int = 256
    margin: int = 35
    name: str = "sfsrnet"

    def __post_init__(self) -> None:
        at_least(self, 1, "sample_rate", "n_fft", "hop_length", "widths", "frames")
        at_least(self, 2, "sources")
        at_least(self, 0, "margin", "cutoff_hz")
        odd(self, "kernels")
        check(
            len(self.kernels) == len(self.widths) + 1 >= 2,
            f"widths = {list(self.widths)}, kernels = {list(self.kernels)}: must have a kernel per width, and one more",
        )
        multiple(self.n_fft, 2 * self.hop_length, "n_fft", "2 · hop_length")
        check(
            0 < self.low_bins < self.n_fft // 2,
            f"cutoff_hz = {self.cutoff_hz:g}: must be above bin 0 and below sample_rate / 2 = {self.sample_rate / 2:g}",
        )
        reach = sum(kernel // 2 for kernel in self.kernels) + STEADY + self.n_fft // self.hop_length
        check(
            self.margin == 0 or self.margin >= reach,
            f"margin = {self.margin}: must be 0 or at least what the layers reach, {reach} hops",
        )

    @property
    def low_bins(self) -> int:
        """Bins below the cutoff of the estimates."""
        return round(self.cutoff_hz * self.n_fft / self.sample_rate)

    @property
    def context(self) -> int:
        """Samples on each side that only inform the output."""
        return self.margin * self.hop_length

    @property
    def core(self) -> int:
        """Samples that one window answers for."""
        return self.frames * self.hop_length

    @property
    def spec(self) -> ModelSpec:
        """The contract with the engine."""
        return restorer_spec(self)


def high_band(mixture: Tensor, estimates: Tensor, low_bins: int) -> tuple[Tensor, Tensor]:
    """Guess the high band of the sources from that of the mixture (SFSRNet's heuristic).

    A source's share of the mixture's high band is its share of the low band, at most all of it. Written so that nothing
    is divided by an estimate.

    Args:
        mixture: Spectra (B, 1, L, F).
        estimates: Spectra of the sources (B, S, L, F).
        low_bins: Bins that the estimates have.

    Returns:
        Spectra (B, S, L, F), below ``low_bins`` those of the estimates; and the sources' shares of a frame (B, S, L,
        1), which sum to one.
    """
    low, mix = (squared(x[..., :low_bins]).sum(-1) for x in (estimates, mixture))  # (B, ·, L)
    share = ((low + 1e-12) / (mix + 1e-10)).sqrt().clamp_max(1).unsqueeze(-1)
    normalised = (share + 1e-4) / (share + 1e-4).sum(1, keepdim=True)
    return torch.cat([estimates[..., :low_bins], share * mixture[..., low_bins:]], dim=-1), normalised


def steady_level(mixture: Tensor, low_bins: int) -> Tensor:
    """Return the RMS of the low bins of the frames around each: (B, 1, L, F) complex → (B, 1, L, 1)."""
    power = squared(mixture[..., :low_bins]).mean(3)
    smooth = F.avg_pool1d(power, 2 * STEADY + 1, 1, STEADY, count_include_pad=False)
    return smooth.add(1e-10).sqrt().unsqueeze(3)


@register("sfsrnet", SFSRNetConfig)
class SFSRNet(Model):
    """The network: convolutions of all magnitudes, whose output is added to the magnitudes of the estimates.

    Batch norm is between convolution and ReLU. Above ``cutoff_hz``, where estimates have no phase, the mixture's is
    used. Streaming equals one pass.
    """

    config: SFSRNetConfig

    def __init__(self, config: SFSRNetConfig) -> None:
        super().__init__(config)
        c = config
        self.stft = STFT(c.n_fft, c.hop_length)
        widths = [1 + c.sources * (1 + c.heuristic), *c.widths]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, kernel, padding=kernel // 2, bias=False)
            for a, b, kernel in zip(widths, c.widths, c.kernels, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in c.widths)
        self.leave = nn.Conv2d(c.widths[-1], c.sources, c.kernels[-1], padding=c.kernels[-1] // 2)
        for parameter in self.leave.parameters():  # training starts from the estimates
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1 + S, T), the mixture first, → (B, S, 1, T - 2 * context)."""
        c, length = self.config, x.shape[-1]
        with torch.autocast(x.device.type, enabled=False):
            spectra = self.stft.analyse(x.float())  # (B, 1 + S, L, F)
            mixture, estimates = spectra[:, :1], spectra[:, 1:]
            guess, _ = high_band(mixture, estimates, c.low_bins)
            level = steady_level(mixture, c.low_bins)
            magnitudes = (torch.cat([spectra, guess], dim=1) if c.heuristic else spectra).abs() / level
        h = magnitudes
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = F.relu(norm(conv(h)))
        residual = self.leave(h)
        with torch.autocast(x.device.type, enabled=False):
            magnitude = (magnitudes[:, 1 : 1 + c.sources] + residual.float()).clamp_min(0) * level
            low = torch.arange(estimates.shape[-1], device=x.device) < c.low_bins
            phase = torch.where(low, estimates, mixture).detach()
            waves = self.stft.synthesise(magnitude * phase / phase.abs().clamp_min(1e-8), length)
        return waves[:, :, None, c.context : length - c.context]
