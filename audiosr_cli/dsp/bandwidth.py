"""Bandwidth detection: the frequency at which the content of a recording ends, from its long-term mean spectrum.

There are two kinds of cutoff. A wall (a resampler, a codec) is a fall of many dB within a few hundredths of its
frequency, with nothing above that comes near the level before. A slope (an analogue filter) is a bend that sound by
itself does not have, see ``roll_off``. The lowest one counts. Where content sinks into the noise floor by itself, there
is no cutoff: nothing tells what was there.

The spectrum is looked at twice: on a coarse grid of cells, each 1/24 octave wide, and bin by bin around a wall.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.dsp.roll_off import CELLS_PER_OCTAVE as _CELLS
from audiosr_cli.dsp.roll_off import roll_offs

# All thresholds were set by hand in November 2026 and scored by tools/score_cutoffs.py: recordings and noise behind
# brick walls, resamplers, codecs and analogue filters, at three levels.

# Seconds of a frame, rounded to a power of two samples: bins are about 12 Hz wide.
_FRAME_S = 0.085
# Frames whose cells are kept, evenly spread over the recording; 150 kB at 48 kHz.
_MOST_FRAMES = 256
# Frames begin a quarter of their length after one another; of long recordings at most every sixteenth is measured: they
# have about the same mean as all.
_OVERLAP, _MOST_STRIDE = 4, 16
# Lower end of the coarse grid in Hz; a full octave and a half above it is needed to find a cutoff.
_LOWEST_HZ = 700.0
# Below this many Hz there is no content but direct current and rumble.
_SUBSONIC_HZ = 40.0
# RMS in dBFS below which a recording counts as silent; the quantisation noise of 16 bits is -101.
_SILENT_DB = -100.0
# Least fall of a wall in dB.
_WALL_DB = 14.0
# Loss in dB at which a wall begins, and at which content is taken to end at it.
_WALL_START_DB, _WALL_END_DB = 3.0, 12.0
# Most by which the second of these frequencies exceeds the first: what falls more slowly is a slope.
_WALL_RATIO = 1.03
# Cells up to which a steep slope and a fall that is no wall are the same; it ends at this loss in dB.
_SAME_CELLS, _STEEP_END_DB = 4, 6.0
# Share of a wall's frequency, and of half the rate, from which a slope is that of the wall, or of the converter.
_BELOW_WALL, _BELOW_NYQUIST = 0.97, 0.93


class BandMeter:
    """Measure the spectrum of a signal, all channels together, in constant memory.

    A meter costs about 5 ms for each minute of a channel at 48 kHz, and ``cutoff`` 50 ms: several meters can measure
    channels or stretches apart from each other.

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._size = 1 << round(math.log2(_FRAME_S * sample_rate))
        # The square of a Hann window: its leakage falls by 30 dB an octave, where a Hann window's hides quiet highs.
        self._window = np.square(np.hanning(self._size))
        self._bounds, self._first = _grid(self._size // 2 + 1, sample_rate)
        self._power = np.zeros(self._size // 2 + 1)  # the sum over all frames that have passed
        self._frames = 0  # that have passed, as many as ``_power`` stands for
        self._stride = 1  # of the frames in ``_cells``
        self._cells: list[NDArray[np.float32]] = []
        self._channels = 1
        self._pending: NDArray[np.float32] | None = None
        self._skip = 0

    def push(self, block: NDArray[np.float32]) -> None:
        """Add a block (C, T) of the signal."""
        if self._pending is not None:
            block = np.concatenate([self._pending, block], axis=1)
        start = self._skip
        while start + self._size <= block.shape[1]:
            self._measure(block[:, start : start + self._size])
            start += self._size // _OVERLAP * min(self._stride, _MOST_STRIDE)
        used = min(start, block.shape[1])
        self._pending, self._skip = block[:, used:], start - used

    def _measure(self, frame: NDArray[np.float32]) -> None:
        power, self._channels = np.zeros(len(self._power)), len(frame)
        for channel in frame:  # one after the other, as there may be many
            finite = np.nan_to_num(channel, posinf=0.0, neginf=0.0).astype(np.float64)  # squares may overflow float32
            spectrum = np.fft.rfft(finite * self._window)
            power += spectrum.real**2 + spectrum.imag**2
        if self._frames % self._stride == 0:
            self._cells.append(_cell_powers(power / self._scale(), self._first).astype(np.float32))
        step = min(self._stride, _MOST_STRIDE)
        self._power += step * power
        self._frames += step
        if len(self._cells) == _MOST_FRAMES:
            self._cells, self._stride = self._cells[::2], 2 * self._stride

    def _scale(self) -> float:
        """Return the factor from sums over channels to the mean power of a bin, per sample."""
        return self._channels * float(np.square(self._window).sum())

    def cutoff(self) -> float | None:
        """Detect the cutoff of all that has been pushed so far; more can be pushed.

        A signal shorter than one frame is padded with zeros.

        Returns:
            Frequency in Hz at which content ends: half the rate if it has no cutoff, None for silence.
        """
        if not self._frames and self._pending is not None and self._pending.shape[1]:
            length = self._pending.shape[1]
            padded, padding = BandMeter(self.sample_rate), (0, self._size - length)
            padded._window = np.pad(np.square(np.hanning(length)), padding)
            padded.push(np.pad(self._pending, ((0, 0), padding)))
            return padded.cutoff()
        if not self._frames:
            return None
        power = self._power / self._frames / self._scale()
        first = int(_SUBSONIC_HZ * self._size / self.sample_rate) + 1
        if 10 * math.log10(2 * power[first:].mean() + 1e-30) < _SILENT_DB:
            return None
        return cutoff(power, self.sample_rate, np.stack(self._cells).astype(np.float64))


def cutoff(power: NDArray[np.float64], sample_rate: int, frames: NDArray[np.float64] | None = None) -> float:
    """Detect the cutoff of a mean power spectrum.

    Args:
        power: (F,), from 0 to half the rate.
        sample_rate: Hz.
        frames: Power of the cells in single frames (L, cells); None if only the mean is known.

    Returns:
        Frequency in Hz at which content ends: half the rate if there is no cutoff.
    """
    nyquist = sample_rate / 2
    bounds, first = _grid(len(power), sample_rate)
    if len(bounds) <= 3 * _CELLS // 2:
        return nyquist
    frequency, means = np.linspace(0, nyquist, len(power)), _cell_powers(power, first)
    level, fine = 10 * np.log10(means + 1e-20), partial(_fine, power, frequency, bounds)
    wall, wall_end = _wall(level), nyquist
    if wall is not None:
        wall_start, end = fine(*wall, _WALL_START_DB), fine(*wall, _WALL_END_DB)
        if end < _WALL_RATIO * wall_start:
            wall_end = end
    slopes = roll_offs(level, means[None] if frames is None else frames, None if wall is None else wall[0])
    if wall is not None and not slopes and wall_end == nyquist:
        wall_end = fine(*wall, _STEEP_END_DB)
    for slope in slopes:
        slope_end = float(bounds[0] * 2 ** ((slope.position + 0.5) / _CELLS))
        if slope.is_steep and wall is not None and abs(slope.position - wall[0]) < _SAME_CELLS:
            slope_end = max(slope_end, fine(*wall, _STEEP_END_DB))
        if slope_end < min(_BELOW_WALL * wall_end, _BELOW_NYQUIST * nyquist):
            return slope_end
    return wall_end


def _grid(bins: int, sample_rate: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the bounds of the cells in Hz, and the first bin above each (cells + 1)."""
    nyquist = sample_rate / 2
    cells = int(_CELLS * math.log2(max(nyquist / _LOWEST_HZ, 1.0)))
    bounds = nyquist * 2.0 ** (np.arange(-cells, 1) / _CELLS)  # the last bound is half the rate
    return bounds, np.searchsorted(np.linspace(0, nyquist, bins), bounds)


def _cell_powers(power: NDArray[np.float64], first: NDArray[np.intp]) -> NDArray[np.float64]:
    """Compute the mean power of each cell: (cells,)."""
    # Each cell is summed by itself: the difference of two cumulative sums cancels where the bins of a cell are 140 dB
    # and more below those of lower frequencies, as in float recordings with rumble.
    total = np.add.reduceat(power, first)[:-1]  # of at least one bin: a cell without any takes the next one
    return total / np.maximum(np.diff(first), 1)


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
