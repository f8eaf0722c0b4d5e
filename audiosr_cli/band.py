"""Where the content of a recording ends: its band edge, from the mean spectrum of all of it.

Two things end a band. A wall (a resampler, a codec) is a fall of many dB within a fraction of a third of an octave,
with nothing above that comes near. A slope (an analogue filter) is a knee, from which on the spectrum falls far more
steeply than before. Speech, music and noise fall by themselves, but slowly, and noise floors do not fall.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_FRAME_S = 0.085  # bins of 12 Hz
_SKIPPED = 3  # hops of frames that lie between two which are measured
_CELLS = 24  # an octave
_LOWEST_HZ = 700.0  # where the grid begins
_SUBSONIC_HZ = 40.0  # what lies below is no content
_SILENT_DB = -100.0  # RMS of a recording in which there is nothing to find, dB of full scale
_WALL_DB = 14.0  # least fall of a wall
_KNEE_DB = 13.0  # least bend of a knee: dB of the half octave above, less those of the half below
_FALL_DB = 30.0  # least fall of a slope in the octave above its knee
_DOWN_DB = 6.0  # where a recording is said to end: half-way down a filter


class BandMeter:
    """Gathers the mean power spectrum of blocks (C, T) at ``sample_rate`` Hz, channels together, in constant memory.

    Every fourth frame is measured: 30 s give 90 of them. No block is kept.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._size = 1 << round(math.log2(_FRAME_S * sample_rate))
        self._window = np.hanning(self._size).astype(np.float32)
        self._hop = self._size * (1 + _SKIPPED)
        self._power = np.zeros(self._size // 2 + 1)
        self._frames = 0
        self._pending: NDArray[np.float32] | None = None
        self._skip = 0

    def push(self, block: NDArray[np.float32]) -> None:
        """Listen to one more block."""
        if self._pending is not None:
            block = np.concatenate([self._pending, block], axis=1)
        start = self._skip
        while start + self._size <= block.shape[1]:
            self._measure(block[:, start : start + self._size])
            start += self._hop
        kept = min(start, block.shape[1])
        self._pending, self._skip = block[:, kept:], start - kept

    def _measure(self, frame: NDArray[np.float32]) -> None:
        spectra = np.fft.rfft(np.nan_to_num(frame) * self._window)
        self._power += (spectra.real**2 + spectra.imag**2).sum(0)
        self._frames += len(frame)

    def edge(self) -> float | None:
        """Where content ends, in Hz: half the rate where nothing ends it, None where there is hardly any.

        Recordings shorter than one frame are measured as they are, between zeros.
        """
        if not self._frames and self._pending is not None and self._pending.shape[1]:
            room = self._size - self._pending.shape[1]
            self._measure(np.pad(self._pending, ((0, 0), (0, max(0, room))))[:, : self._size])
        if not self._frames:
            return None
        power = self._power / self._frames / float(np.square(self._window).sum())  # of a bin, per sample
        lows = int(_SUBSONIC_HZ * self._size / self.sample_rate) + 1
        if 10 * math.log10(2 * power[lows:].mean() + 1e-30) < _SILENT_DB:
            return None
        return band_edge(power, self.sample_rate)


def band_edge(power: NDArray[np.float64], sample_rate: int) -> float:
    """Where content ends in a mean power spectrum (F,), from 0 to half of ``sample_rate``: that half if nowhere."""
    nyquist = sample_rate / 2
    frequency = np.linspace(0, nyquist, len(power))
    cells = int(_CELLS * math.log2(max(nyquist / _LOWEST_HZ, 1.0)))
    bounds = nyquist * 2.0 ** (np.arange(-cells, 1) / _CELLS)  # the last one is half the rate
    if cells < 3 * _CELLS // 2:
        return nyquist
    level = _cell_levels(power, frequency, bounds)
    edge = _wall(level) or _slope(level)
    return nyquist if edge is None else _fine(power, frequency, *edge, bounds)


def _cell_levels(
    power: NDArray[np.float64], frequency: NDArray[np.float64], bounds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean power of each cell of the grid in dB: (cells,)."""
    first = np.searchsorted(frequency, bounds)
    total = np.concatenate([[0.0], np.cumsum(power)])
    last = np.maximum(first[1:], first[:-1] + 1)
    mean: NDArray[np.float64] = (total[last] - total[first[:-1]]) / (last - first[:-1])
    return 10 * np.log10(mean + 1e-20)


def _wall(level: NDArray[np.float64]) -> tuple[int, float] | None:
    """The cell in which the steepest fall begins that nothing above makes up for, and the level before it."""
    best: tuple[float, int, float] | None = None
    above = np.maximum.accumulate(level[::-1])[::-1]  # the highest from each cell on
    for i in range(_CELLS // 3, len(level) - 2):
        before = float(np.median(level[i - _CELLS // 6 : i + 1]))
        fall = before - float(above[i + 2])
        if fall >= _WALL_DB and level[i] > before - 6 and (best is None or fall > best[0]):
            best = fall, i, before
    return None if best is None else (best[1], best[2])


def _slope(level: NDArray[np.float64]) -> tuple[int, float] | None:
    """The cell of the sharpest knee, and the level there."""
    half = _CELLS // 2
    best: tuple[float, int] | None = None
    for i in range(half, len(level) - _CELLS):
        bend = (level[i] - level[i + half]) - max(level[i - half] - level[i], 0.0)
        steep = bend >= _KNEE_DB and level[i] - level[i + _CELLS] >= _FALL_DB
        lasting = level[i + half :].max() <= level[i] - _KNEE_DB
        if steep and lasting and (best is None or bend > best[0]):
            best = float(bend), i
    return None if best is None else (best[1], float(level[best[1]]))


def _fine(
    power: NDArray[np.float64],
    frequency: NDArray[np.float64],
    cell: int,
    before: float,
    bounds: NDArray[np.float64],
) -> float:
    """The frequency from ``cell`` on at which the spectrum, smoothed over 1 % of it, has fallen by 6 dB for good."""
    start = int(np.searchsorted(frequency, bounds[max(cell - 1, 0)]))
    stop = int(np.searchsorted(frequency, bounds[min(cell + 4, len(bounds) - 1)]))
    reach = max(1, int(0.005 * start))
    smooth = np.convolve(power, np.ones(2 * reach + 1) / (2 * reach + 1), mode="same")
    loud = np.flatnonzero(10 * np.log10(smooth[start:stop] + 1e-20) > before - _DOWN_DB)
    return float(frequency[start + (int(loud[-1]) if len(loud) else 0)])
