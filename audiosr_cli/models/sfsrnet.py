"""SFSRNet's super-resolution network (Rixen & Renz, AAAI 2022): what estimates lack, with the mixture's help.

Its separator is in dual_path.py. The paper's network works on magnitudes only and keeps the estimates' phase.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.contract import ModelSpec
from audiosr_cli.dsp.spectra import squared
from audiosr_cli.models.base import Model, restorer_spec
from audiosr_cli.models.layers import Frames
from audiosr_cli.models.registry import register

STEADY = 15  # frames on both sides that a frame's level is measured over


@dataclass(frozen=True)
class SFSRNetConfig:
    """Every number of an SFSRNet; the defaults are the paper's, with its frames of 32 ms at another rate.

    Estimates end at ``cutoff_hz``. Layer l has ``widths[l]`` filters of ``kernels[l]`` bins and frames; one more, of
    the last kernel, ends in one channel a source. ``heuristic`` gives it a guess of every source's high band.
    ``frames`` are how many hops a window yields, ``margin`` how many it hears on both sides: enough to stream exactly,
    or 0, which is for training.
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
        assert len(self.kernels) == len(self.widths) + 1 >= 2 and min(*self.widths, self.frames) >= 1
        assert all(kernel % 2 == 1 for kernel in self.kernels) and self.sources >= 2
        assert self.hop_length >= 1 and self.n_fft % (2 * self.hop_length) == 0
        assert 0 < self.low_bins < self.n_fft // 2
        reach = sum(kernel // 2 for kernel in self.kernels) + STEADY + self.n_fft // self.hop_length
        assert self.margin == 0 or self.margin >= reach

    @property
    def low_bins(self) -> int:
        """Bins that the estimates fill."""
        return round(self.cutoff_hz * self.n_fft / self.sample_rate)

    @property
    def context(self) -> int:
        """Samples on both sides that are heard only."""
        return self.margin * self.hop_length

    @property
    def core(self) -> int:
        """Samples that a window answers for."""
        return self.frames * self.hop_length

    @property
    def spec(self) -> ModelSpec:
        """The contract that follows."""
        return restorer_spec(self)


def high_band(mixture: Tensor, estimates: Tensor, low_bins: int) -> tuple[Tensor, Tensor]:
    """A first guess of what the sources have above their estimates, and each one's part in a frame.

    Spectra (B, 1, L, F) and (B, S, L, F) → the same as the latter, its first ``low_bins`` from the estimates, the rest
    being the mixture's by how much of the mixture below a source is, at most all (SFSRNet's heuristic, written so that
    nothing is divided by an estimate); and parts (B, S, L, 1), which sum to one.
    """
    low, mix = (squared(x[..., :low_bins]).sum(-1) for x in (estimates, mixture))  # (B, ·, L)
    share = ((low + 1e-12) / (mix + 1e-10)).sqrt().clamp_max(1).unsqueeze(-1)
    part = (share + 1e-4) / (share + 1e-4).sum(1, keepdim=True)
    return torch.cat([estimates[..., :low_bins], share * mixture[..., low_bins:]], dim=-1), part


def steady_level(mixture: Tensor, low_bins: int) -> Tensor:
    """RMS of a bin, over the low ones and the frames around each: (B, 1, L, F) complex → (B, 1, L, 1)."""
    power = squared(mixture[..., :low_bins]).mean(3)
    smooth = F.avg_pool1d(power, 2 * STEADY + 1, 1, STEADY, count_include_pad=False)
    return smooth.add(1e-10).sqrt().unsqueeze(3)


@register("sfsrnet", SFSRNetConfig)
class SFSRNet(Model):
    """The network: what its convolutions make of all magnitudes is added to those of the estimates.

    Batch norm stands between convolution and ReLU. Above ``cutoff_hz``, where estimates are empty, the phase is the
    mixture's. It is exact where it streams.
    """

    config: SFSRNetConfig

    def __init__(self, config: SFSRNetConfig) -> None:
        super().__init__(config)
        c = config
        self.frames = Frames(c.n_fft, c.hop_length)
        widths = [1 + c.sources * (1 + c.heuristic), *c.widths]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, kernel, padding=kernel // 2, bias=False)
            for a, b, kernel in zip(widths, c.widths, c.kernels, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in c.widths)
        self.leave = nn.Conv2d(c.widths[-1], c.sources, c.kernels[-1], padding=c.kernels[-1] // 2)
        for parameter in self.leave.parameters():  # so that it starts from the estimates
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1 + S, T) → (B, S, 1, T - 2 * context): first the mixture, then its sources below ``cutoff_hz``."""
        c, length = self.config, x.shape[-1]
        with torch.autocast(x.device.type, enabled=False):
            spectra = self.frames.analyse(x.float())  # (B, 1 + S, L, F)
            mixture, estimates = spectra[:, :1], spectra[:, 1:]
            guess, _ = high_band(mixture, estimates, c.low_bins)
            level = steady_level(mixture, c.low_bins)
            sizes = (torch.cat([spectra, guess], dim=1) if c.heuristic else spectra).abs() / level
        h = sizes
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = F.relu(norm(conv(h)))
        added = self.leave(h)
        with torch.autocast(x.device.type, enabled=False):
            size = (sizes[:, 1 : 1 + c.sources] + added.float()).clamp_min(0) * level
            low = torch.arange(estimates.shape[-1], device=x.device) < c.low_bins
            phase = torch.where(low, estimates, mixture).detach()
            made = self.frames.synthesise(size * phase / phase.abs().clamp_min(1e-8), length)
        return made[:, :, None, c.context : length - c.context]
