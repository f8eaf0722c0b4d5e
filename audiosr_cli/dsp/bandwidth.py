"""Where the content of a recording ends: its band cutoff, from the mean spectrum of all of it.

Two things end a band. A wall (a resampler, a codec) is a fall of many dB within a few hundredths of its frequency, with
nothing above that comes near. A slope (an analogue filter) is a knee, from which on the spectrum falls far more steeply
than before: where the straight lines below and above it meet (in dB over octaves), a Butterworth filter has lost 3 dB.
Speech, music and noise fall by themselves, but slowly, and noise floors do not fall.
"""

from __future__ import annotations

import math
from functools import partial

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
_BEGUN_DB, _DOWN_DB = 3.0, 12.0  # where a wall begins, and where a recording is said to end at it
_UPRIGHT = 1.03  # most that the second of these frequencies is of the first
_NEAR = 6  # cells before a fall in which its knee is: what lies lower is the voice's own ups and downs
_STEEP_DB = 3.0  # fall over two cells on the way down a slope
_LINES_DB = 40.0  # how far down a slope is followed
_FLOOR_DB = 4.0  # above the noise floor no slope is followed
_FILTER_DB = 150.0  # an octave: filters that fall faster have a cutoff that is seen in the fine spectrum
_CUTOFF_DB = 6.0  # where that cutoff is


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
        finite = np.nan_to_num(frame, posinf=0.0, neginf=0.0).astype(np.float64)  # its squares may pass float32
        spectra = np.fft.rfft(finite * self._window)
        self._power += (spectra.real**2 + spectra.imag**2).sum(0)
        self._frames += len(frame)

    def cutoff(self) -> float | None:
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
        return cutoff(power, self.sample_rate)


def cutoff(power: NDArray[np.float64], sample_rate: int) -> float:
    """Where content ends in a mean power spectrum (F,), from 0 to half of ``sample_rate``: that half if nowhere."""
    nyquist = sample_rate / 2
    frequency = np.linspace(0, nyquist, len(power))
    cells = int(_CELLS * math.log2(max(nyquist / _LOWEST_HZ, 1.0)))
    bounds = nyquist * 2.0 ** (np.arange(-cells, 1) / _CELLS)  # the last one is half the rate
    if cells < 3 * _CELLS // 2:
        return nyquist
    level, fine = _cell_levels(power, frequency, bounds), partial(_fine, power, frequency, bounds)
    wall = _wall(level)
    if wall is not None:
        begun, down = fine(*wall, _BEGUN_DB), fine(*wall, _DOWN_DB)
        if down < _UPRIGHT * begun:
            return down
    start, reach = (_slope(level), 3 * _CELLS // 4) if wall is None else (_top(level, wall[0]), _NEAR)
    if start is None:
        return nyquist
    knee, height, fall = _lines(level, start, reach)
    if fall * _CELLS > _FILTER_DB:
        return fine(int(knee), height, _CUTOFF_DB)
    return float(bounds[0] * 2 ** ((knee + 0.5) / _CELLS))


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


def _top(level: NDArray[np.float64], cell: int) -> int:
    """The cell at which the steep fall through ``cell`` begins."""
    while cell > _CELLS // 2 and level[cell - 2] - level[cell] > _STEEP_DB:
        cell -= 1
    return cell


def _slope(level: NDArray[np.float64]) -> int | None:
    """The cell of the sharpest knee."""
    half = _CELLS // 2
    best: tuple[float, int] | None = None
    for i in range(half, len(level) - _CELLS):
        bend = (level[i] - level[i + half]) - max(level[i - half] - level[i], 0.0)
        steep = bend >= _KNEE_DB and level[i] - level[i + _CELLS] >= _FALL_DB
        lasting = level[i + half :].max() <= level[i] - _KNEE_DB
        if steep and lasting and (best is None or bend > best[0]):
            best = float(bend), i
    return None if best is None else best[1]


def _lines(level: NDArray[np.float64], start: int, reach: int) -> tuple[float, float, float]:
    """The two lines that follow the levels around ``start`` best: the cell and level where they meet, the fall after.

    They meet at most ``reach`` cells before ``start``.

    They reach from an octave before ``start`` down to the noise floor, or 40 dB; the fall is in dB a cell.
    """
    quietest = float(np.median(np.sort(level)[: max(3, len(level) // 12)]))
    before = float(np.median(level[max(0, start - _CELLS // 3) : start + 1]))
    low = np.flatnonzero(level[start:] <= max(before - _LINES_DB, quietest + _FLOOR_DB))
    first, end = max(0, start - _CELLS), start + (int(low[0]) if len(low) else len(level) - 1 - start)
    cells = np.arange(first, min(len(level), max(end, start + _CELLS // 6)))
    best = np.inf, 0.0, 0.0, 0.0
    for knee in np.arange(max(first + _CELLS // 4, start - reach), cells[-1] - 1, 0.25):
        shapes = np.stack([np.ones(len(cells)), np.minimum(cells - knee, 0), np.maximum(cells - knee, 0)], axis=1)
        (height, before_it, after_it), *_ = np.linalg.lstsq(shapes, level[cells])
        error = float(np.square(level[cells] - shapes @ [height, before_it, after_it]).sum())
        if error < best[0]:
            best = error, float(knee), float(height), float(-after_it)
    return best[1:]


def _fine(
    power: NDArray[np.float64],
    frequency: NDArray[np.float64],
    bounds: NDArray[np.float64],
    cell: int,
    before: float,
    down: float,
) -> float:
    """The frequency from ``cell`` on at which the spectrum, smoothed over 1 % of it, has lost ``down`` dB for good."""
    start = int(np.searchsorted(frequency, bounds[max(cell - 1, 0)]))
    stop = int(np.searchsorted(frequency, bounds[min(cell + 4, len(bounds) - 1)]))
    reach = max(1, int(0.005 * start))
    smooth = np.convolve(power, np.ones(2 * reach + 1) / (2 * reach + 1), mode="same")
    loud = np.flatnonzero(10 * np.log10(smooth[start:stop] + 1e-20) > before - down)
    return float(frequency[start + (int(loud[-1]) if len(loud) else 0)])
