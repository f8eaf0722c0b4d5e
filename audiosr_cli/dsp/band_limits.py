"""Where a signal is band-limited for a while: walls of the spectrum with nothing above them for a second.

The long-term spectrum of `bandwidth` says where the content of a whole recording ends. Here the question is whether
that changes, as when a guest on the phone joins a host in a studio. Natural sounds have quiet highs for a second or
two, but they fall slowly. A telephone, a codec or a low sample rate leaves a wall: a broad band with content, and
hardly anything above it in any frame of a whole second. Such seconds count, and only those.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# All thresholds were set by hand in November 2026, see docs/experiments/stretches.md.

# Seconds of a frame, rounded to a power of two samples.
_FRAME_S = 0.043
# Frames of a window, in all of which the band above a wall must be empty: about a second.
WINDOW = 23
# Cells in an octave, and the frequencies in Hz between which they lie.
_CELLS = 24
_LOWEST_HZ, _HIGHEST_HZ = 1200.0, 20000.0
# Lowest wall: that of a telephone is at 3400 Hz.
_LOWEST_WALL_HZ = 2900.0
# Highest wall: those of codecs, from here on, come and go with the level, and little is heard above.
_HIGHEST_WALL_HZ = 12500.0
# Cells below a wall that must have content, and those above it in which the spectrum falls.
_BELOW, _FALL = 8, 3
# Least fall of a wall in dB: from the quietest cell below it, mean of the window, to the loudest one above it in any
# frame.
_WALL_DB = 15.0
# The same in noise, for walls that are clear elsewhere in the signal.
_WEAK_WALL_DB = 8.0
# How far below the top of the fall in dB the cell of a wall may be, to take the highest one.
_TOP_DB = 3.0
# Frames whose band below the wall is so many dB below the loudest one's are pauses, of whoever.
_PAUSE_DB = 25.0
# By how much the level above a wall may exceed that of the other frames in dB: more is the end of a word of the host.
_SPREAD_DB = 8.0
# Mean level in dBFS of a window below which nothing is measured.
SILENT_DB = -70.0
# Samples are clipped here, so that their squares do not overflow.
_LOUDEST = 1e4
# Cells of a band of the coarse spectrum of a frame: a third of an octave. The first band is all below 1200 Hz.
BAND = _CELLS // 3

# What `covered` adds to the number of a wall that is not clear, and its value for frames without a wall.
WEAK, NONE = 128, 255


class FrameSpectra:
    """Cut a signal into frames and measure the power in each cell of their spectra.

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self.size = 1 << round(math.log2(_FRAME_S * sample_rate))
        self.frame_s = self.size / sample_rate
        self._window = np.hanning(self.size).astype(np.float32)
        self._scale = np.float32(2 / (np.square(self._window, dtype=np.float64).sum() * self.size))
        bounds = cell_bounds(sample_rate)
        self._first = np.round(np.array([40.0, *bounds]) * self.size / sample_rate).astype(int)

    def measure(self, block: Floats) -> Floats:
        """Measure frames.

        Args:
            block: (C, L * size), the frames.

        Returns:
            (C, L, 1 + cells): the power below the first cell, and in each cell.
        """
        finite = np.clip(np.nan_to_num(block, posinf=0.0, neginf=0.0), -_LOUDEST, _LOUDEST)
        frames = finite.reshape(len(block), -1, self.size)
        spectra = np.fft.rfft(frames * self._window).astype(np.complex64)
        power = (spectra.real**2 + spectra.imag**2) * self._scale
        cells: Floats = np.add.reduceat(power[..., : self._first[-1]], self._first[:-1], axis=-1)
        return cells


def cell_bounds(sample_rate: int) -> NDArray[np.float64]:
    """Return the bounds of the cells in Hz, (cells + 1,)."""
    top = min(_HIGHEST_HZ, 0.98 * sample_rate / 2)
    cells = int(_CELLS * math.log2(top / _LOWEST_HZ))
    return _LOWEST_HZ * 2.0 ** (np.arange(cells + 1) / _CELLS)


def walls(power: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Find the wall of each window of frames.

    Args:
        power: (L, 1 + cells) of L frames.

    Returns:
        For each of the ``L - WINDOW + 1`` windows the last cell below its wall, and the fall in dB.
    """
    mean = sliding_window_view(power, WINDOW, axis=0).mean(-1)
    peak = sliding_window_view(power[:, 1:], WINDOW, axis=0).max(-1)
    level, above = _db(mean[:, 1:]), _db(np.maximum.accumulate(peak[:, ::-1], axis=1)[:, ::-1])
    below = sliding_window_view(level, _BELOW, axis=1).min(-1)  # of the cells that end at column + _BELOW - 1
    at = wall_cells(power.shape[1] - 1)
    fall = below[:, at - _BELOW + 1] - above[:, at + _FALL]
    top = fall.max(axis=1)
    near = fall >= (top - _TOP_DB)[:, None]
    cell = at[near.shape[1] - 1 - near[:, ::-1].argmax(axis=1)]
    silent = _db(mean.sum(1)) < SILENT_DB
    return cell, np.where(silent, -np.inf, top)


def wall_cells(cells: int) -> NDArray[np.int64]:
    """Return the cells in which there may be a wall: enough of the ``cells`` lie above it."""
    lowest, highest = (round(_CELLS * math.log2(hz / _LOWEST_HZ)) for hz in (_LOWEST_WALL_HZ, _HIGHEST_WALL_HZ))
    return np.arange(lowest, min(highest, cells - _FALL - BAND))


def covered(power: Floats) -> NDArray[np.uint8]:
    """Find the frames that have content up to a wall, and nothing above it.

    Args:
        power: (L, 1 + cells) of L frames.

    Returns:
        (L,): 1 + the last cell below the lowest wall of all windows to which a frame belongs, ``WEAK`` more if the wall
        is not clear; ``NONE`` without a wall.
    """
    cover = np.full(len(power), NONE, np.uint8)
    if len(power) < WINDOW or not len(wall_cells(power.shape[1] - 1)):
        return cover
    cell, fall = walls(power)
    for start in np.flatnonzero(fall >= _WEAK_WALL_DB):
        i, frames = int(cell[start]), power[start : start + WINDOW, 1:]
        inside, outside = _db(frames[:, i - BAND : i + 1].sum(1)), _db(frames[:, i + _FALL :].max(1))
        speaks = inside >= inside.max() - _PAUSE_DB
        member = speaks & (outside <= np.median(outside[speaks]) + _SPREAD_DB)
        part, wall = cover[start : start + WINDOW], i + 1 + (WEAK if fall[start] < _WALL_DB else 0)
        part[member] = np.minimum(part[member], wall)
    return cover


def bands(power: Floats) -> NDArray[np.uint8]:
    """Sum cells to a coarse spectrum: (L, 1 + cells) → (L, 1 + bands) in dB above -127 dBFS, whole numbers."""
    cells = power.shape[1] - 1
    first = [0, *range(1, cells + 2 - BAND // 2, BAND)]  # the last band has half a band's cells at least
    level: Floats = np.round(_db(np.add.reduceat(power, first, axis=1)) + 127)
    result: NDArray[np.uint8] = np.clip(level, 0, 255).astype(np.uint8)
    return result


def first_band_above(cover: int) -> int:
    """Return the first column of ``bands`` that lies above the wall of ``cover``, which is one more than its cell."""
    return 1 + -(-(cover - 1 + _FALL) // BAND)


def _db(power: Floats) -> Floats:
    level: Floats = 10 * np.log10(power + np.float32(1e-14))
    return level
