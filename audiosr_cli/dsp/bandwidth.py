"""Bandwidth detection: the frequency at which the content of a recording ends, from its long-term mean spectrum.

There are two kinds of cutoff. A wall (a resampler, a codec) is a fall of many dB within a few hundredths of its
frequency, with nothing above that comes near the level before. A slope (an analogue filter) is a knee above which the
spectrum falls far more steeply than below: where the straight lines below and above it meet (in dB over octaves), a
Butterworth filter has lost 3 dB. Speech, music and noise fall by themselves, but slowly; noise floors do not fall.

The spectrum is looked at twice: on a coarse grid of cells, each 1/24 octave wide, and bin by bin around a fall.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

# All thresholds were set by hand in November 2026 and scored by tools/score_cutoffs.py: eight recordings and white
# noise behind brick walls, resamplers, codecs and analogue filters, at three levels.

# Seconds of a frame, rounded to a power of two samples: bins are about 12 Hz wide.
_FRAME_S = 0.085
# Frames that are skipped between two that are measured: a quarter of them has about the same mean.
_SKIPPED_FRAMES = 3
# Cells in an octave of the coarse grid.
_CELLS = 24
# Lower end of the coarse grid in Hz; a full octave and a half above it is needed to find a cutoff.
_LOWEST_HZ = 700.0
# Below this many Hz there is no content but direct current and rumble.
_SUBSONIC_HZ = 40.0
# RMS in dBFS below which a recording counts as silent; the quantisation noise of 16 bits is -101.
_SILENT_DB = -100.0
# Least fall of a wall in dB.
_WALL_DB = 14.0
# Least bend of a knee: dB that the spectrum falls in the half octave above, less those in the half octave below.
_KNEE_DB = 13.0
# Least fall of a slope in dB in the octave above its knee.
_FALL_DB = 30.0
# Loss in dB at which a wall begins, and at which content is taken to end at it.
_WALL_START_DB, _WALL_END_DB = 3.0, 12.0
# Most by which the second of these frequencies exceeds the first: what falls more slowly is a slope.
_WALL_RATIO = 1.03
# Cells before a steep fall within which its knee lies; lower down are the gaps between formants.
_KNEE_CELLS = 6
# Least fall in dB over two cells on the way up to the top of a steep fall.
_STEEP_DB = 3.0
# How far down in dB the line above a knee is fitted, and how far above the noise floor that ends.
_LINE_DB, _FLOOR_DB = 40.0, 4.0
# Slope in dB an octave from which a filter is digital; its cutoff is taken from the fine spectrum, at this loss in dB.
_DIGITAL_DB_PER_OCTAVE, _DIGITAL_CUTOFF_DB = 150.0, 6.0


class BandMeter:
    """Measure the mean power spectrum of a signal, all channels together, in constant memory.

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._size = 1 << round(math.log2(_FRAME_S * sample_rate))
        self._window = np.hanning(self._size).astype(np.float32)
        self._hop = self._size * (1 + _SKIPPED_FRAMES)
        self._power = np.zeros(self._size // 2 + 1)
        self._frames = 0
        self._pending: NDArray[np.float32] | None = None
        self._skip = 0

    def push(self, block: NDArray[np.float32]) -> None:
        """Add a block (C, T) of the signal."""
        if self._pending is not None:
            block = np.concatenate([self._pending, block], axis=1)
        start = self._skip
        while start + self._size <= block.shape[1]:
            self._measure(block[:, start : start + self._size])
            start += self._hop
        used = min(start, block.shape[1])
        self._pending, self._skip = block[:, used:], start - used

    def _measure(self, frame: NDArray[np.float32]) -> None:
        finite = np.nan_to_num(frame, posinf=0.0, neginf=0.0).astype(np.float64)  # squares may overflow float32
        spectra = np.fft.rfft(finite * self._window)
        self._power += (spectra.real**2 + spectra.imag**2).sum(0)
        self._frames += len(frame)

    def cutoff(self) -> float | None:
        """Detect the cutoff.

        A signal shorter than one frame is padded with zeros.

        Returns:
            Frequency in Hz at which content ends: half the rate if it has no cutoff, None for silence.
        """
        if not self._frames and self._pending is not None and self._pending.shape[1]:
            padding = max(0, self._size - self._pending.shape[1])
            self._measure(np.pad(self._pending, ((0, 0), (0, padding)))[:, : self._size])
        if not self._frames:
            return None
        power = self._power / self._frames / float(np.square(self._window).sum())  # mean power of a bin, per sample
        first = int(_SUBSONIC_HZ * self._size / self.sample_rate) + 1
        if 10 * math.log10(2 * power[first:].mean() + 1e-30) < _SILENT_DB:
            return None
        return cutoff(power, self.sample_rate)


def cutoff(power: NDArray[np.float64], sample_rate: int) -> float:
    """Detect the cutoff of a mean power spectrum.

    Args:
        power: (F,), from 0 to half the rate.
        sample_rate: Hz.

    Returns:
        Frequency in Hz at which content ends: half the rate if there is no cutoff.
    """
    nyquist = sample_rate / 2
    frequency = np.linspace(0, nyquist, len(power))
    cells = int(_CELLS * math.log2(max(nyquist / _LOWEST_HZ, 1.0)))
    bounds = nyquist * 2.0 ** (np.arange(-cells, 1) / _CELLS)  # the last bound is half the rate
    if cells < 3 * _CELLS // 2:
        return nyquist
    level, fine = _cell_levels(power, frequency, bounds), partial(_fine, power, frequency, bounds)
    wall = _wall(level)
    if wall is not None:
        wall_start, wall_end = fine(*wall, _WALL_START_DB), fine(*wall, _WALL_END_DB)
        if wall_end < _WALL_RATIO * wall_start:
            return wall_end
    start, reach = (_slope(level), 3 * _CELLS // 4) if wall is None else (_top(level, wall[0]), _KNEE_CELLS)
    if start is None:
        return nyquist
    knee, height, fall = _lines(level, start, reach)
    if fall * _CELLS > _DIGITAL_DB_PER_OCTAVE:
        return fine(int(knee), height, _DIGITAL_CUTOFF_DB)
    return float(bounds[0] * 2 ** ((knee + 0.5) / _CELLS))


def _cell_levels(
    power: NDArray[np.float64], frequency: NDArray[np.float64], bounds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute the mean power of each cell in dB: (cells,)."""
    first = np.searchsorted(frequency, bounds)
    # Each cell is summed by itself: the difference of two cumulative sums cancels where the bins of a cell are 140 dB
    # and more below those of lower frequencies, as in float recordings with rumble.
    total = np.add.reduceat(power, first)[:-1]  # of at least one bin: a cell without any takes the next one
    return 10 * np.log10(total / np.maximum(np.diff(first), 1) + 1e-20)


def _wall(level: NDArray[np.float64]) -> tuple[int, float] | None:
    """Find the cell of the steepest fall after which the level stays low, and the level before it in dB."""
    best: tuple[float, int, float] | None = None
    above = np.maximum.accumulate(level[::-1])[::-1]  # the highest level from each cell on
    for i in range(_CELLS // 3, len(level) - 2):
        before = float(np.median(level[i - _CELLS // 6 : i + 1]))
        fall = before - float(above[i + 2])
        if fall >= _WALL_DB and level[i] > before - 6 and (best is None or fall > best[0]):
            best = fall, i, before
    return None if best is None else (best[1], best[2])


def _top(level: NDArray[np.float64], cell: int) -> int:
    """Find the cell at which the steep fall through ``cell`` begins."""
    while cell > _CELLS // 2 and level[cell - 2] - level[cell] > _STEEP_DB:
        cell -= 1
    return cell


def _slope(level: NDArray[np.float64]) -> int | None:
    """Find the cell of the sharpest knee."""
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
    """Fit two straight lines to the levels around a knee, from an octave below it down to the noise floor, or 40 dB.

    Args:
        level: (cells,) in dB.
        start: The cell at which the search for the knee ends.
        reach: Cells before ``start`` at which it begins.

    Returns:
        The cell at which the lines meet, the level there in dB, and the fall above it in dB a cell.
    """
    quietest = float(np.median(np.sort(level)[: max(3, len(level) // 12)]))
    before = float(np.median(level[max(0, start - _CELLS // 3) : start + 1]))
    low = np.flatnonzero(level[start:] <= max(before - _LINE_DB, quietest + _FLOOR_DB))
    first, end = max(0, start - _CELLS), start + (int(low[0]) if len(low) else len(level) - 1 - start)
    cells = np.arange(first, min(len(level), max(end, start + _CELLS // 6)))
    best = np.inf, 0.0, 0.0, 0.0
    for knee in np.arange(max(first + _CELLS // 4, start - reach), cells[-1] - 1, 0.25):
        shapes = np.stack([np.ones(len(cells)), np.minimum(cells - knee, 0), np.maximum(cells - knee, 0)], axis=1)
        (height, below, above), *_ = np.linalg.lstsq(shapes, level[cells])
        error = float(np.square(level[cells] - shapes @ [height, below, above]).sum())
        if error < best[0]:
            best = error, float(knee), float(height), float(-above)
    return best[1:]


def _fine(
    power: NDArray[np.float64],
    frequency: NDArray[np.float64],
    bounds: NDArray[np.float64],
    cell: int,
    before: float,
    loss: float,
) -> float:
    """Find the last frequency (Hz) around ``cell`` at which the spectrum is within ``loss`` dB of ``before``.

    The spectrum is smoothed over 1 % of the frequency.
    """
    start = int(np.searchsorted(frequency, bounds[max(cell - 1, 0)]))
    stop = int(np.searchsorted(frequency, bounds[min(cell + 4, len(bounds) - 1)]))
    reach = max(1, int(0.005 * start))
    smooth = np.convolve(power, np.ones(2 * reach + 1) / (2 * reach + 1), mode="same")
    loud = np.flatnonzero(10 * np.log10(smooth[start:stop] + 1e-20) > before - loss)
    return float(frequency[start + (int(loud[-1]) if len(loud) else 0)])
