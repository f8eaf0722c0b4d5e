"""How much of a signal is voiced, and how much its level varies: what distinguishes speech from noise and music."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# Length of a frame and distance of frames in seconds: three periods of the lowest pitch fit into a frame.
_FRAME_S, _HOP_S = 0.04, 0.02
# Range of the pitch in Hz.
_LOW_HZ, _HIGH_HZ = 70.0, 400.0
# Normalised autocorrelation at the pitch period from which a frame is voiced; Boersma (1993) has 0.45 for clean speech.
# Set by hand, 27 November 2026.
_MIN_PERIODICITY = 0.6
# Share of the loudest frame's power (-25 dB) below which a frame is not active. Set by hand, 27 November 2026.
_ACTIVE_SHARE = 10**-2.5
_SILENT = 1e-12  # mean power that keeps divisions and logarithms finite
# Share of its value at lag 0 below which the window's own autocorrelation is not divided by: nothing but noise is left.
_MIN_WINDOW_SHARE = 0.05


@dataclass(frozen=True)
class Voicing:
    """Measures of N signals.

    Attributes:
        voiced: (N,), share of the frames that are voiced.
        voiced_active: (N,), share of the active frames that are voiced.
        level_spread_db: (N,), standard deviation of the frames' levels in dB.
    """

    voiced: Tensor
    voiced_active: Tensor
    level_spread_db: Tensor


def measure_voicing(waves: Tensor, sample_rate: int) -> Voicing:
    """Measure how much of each signal is voiced, by the autocorrelation of its frames (Boersma 1993, sec. 3).

    Args:
        waves: (N, T) float32; T is at least 40 ms.
        sample_rate: Hz.
    """
    size, hop = round(_FRAME_S * sample_rate), round(_HOP_S * sample_rate)
    frames = waves.unfold(-1, size, hop)  # (N, L, size)
    frames = frames - frames.mean(-1, keepdim=True)
    window = torch.hann_window(size)
    correlation = _autocorrelation(frames * window)
    of_window = _autocorrelation(window)
    shape = (of_window / of_window[0]).clamp_min(_MIN_WINDOW_SHARE)
    periodicity = correlation / correlation[..., :1].clamp_min(_SILENT) / shape
    lags = slice(int(sample_rate / _HIGH_HZ), int(sample_rate / _LOW_HZ) + 1)
    power = frames.square().mean(-1)  # (N, L)
    active = power > _ACTIVE_SHARE * power.amax(-1, keepdim=True)
    voiced = ((periodicity[..., lags].amax(-1) > _MIN_PERIODICITY) & active).float()
    levels_db = 10 * (power + _SILENT).log10()
    return Voicing(voiced.mean(-1), voiced.sum(-1) / active.sum(-1).clamp_min(1), levels_db.std(-1, correction=0))


def _autocorrelation(frames: Tensor) -> Tensor:
    """Return the autocorrelation of ``frames`` (..., size) at the lags 0 … size - 1."""
    size = frames.shape[-1]
    spectrum = torch.fft.rfft(F.pad(frames, (0, size)))
    output: Tensor = torch.fft.irfft(spectrum.abs().square())[..., :size]
    return output
