"""Levels of separated tracks over time, from which turns are found."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FRAMES_PER_S = 100
# Power of a frame without sound, as a fraction of full scale squared: -120 dB.
SILENT = 1e-12


class ActivityMeter:
    """Measure the power of each track in frames of 10 ms. An hour of two tracks takes 2.9 MB.

    Args:
        sample_rate: Hz; at least ``FRAMES_PER_S``.
        tracks: Number of tracks S.
    """

    def __init__(self, sample_rate: int, tracks: int) -> None:
        self.sample_rate, self.tracks = sample_rate, tracks
        self.samples = 0
        self._pieces: list[NDArray[np.float32]] = []
        self._open = np.zeros((tracks, 0))  # squares of the frame that is not complete yet

    def push(self, block: NDArray[np.float32]) -> None:
        """Add a block (S * C, T): the C channels of the first track, then those of the second, and so on."""
        if not block.shape[1]:
            return
        squares = np.square(block.reshape(self.tracks, -1, block.shape[1]), dtype=np.float64).mean(1)
        first = self.samples - self._open.shape[1]  # a frame starts there
        self.samples += block.shape[1]
        squares = np.concatenate([self._open, squares], axis=1)
        first_frame, last_frame = (at * FRAMES_PER_S // self.sample_rate for at in (first, self.samples))
        frames = np.arange(first_frame, last_frame + 1)
        starts = -(-frames * self.sample_rate // FRAMES_PER_S) - first
        self._open = squares[:, starts[-1] :]
        if len(starts) > 1:
            sums = np.add.reduceat(squares[:, : starts[-1]], starts[:-1], axis=1)
            self._pieces.append((sums / np.diff(starts)).astype(np.float32))

    def levels(self) -> NDArray[np.float32]:
        """Return the power of each frame in dBFS, (S, frames); the last frame may be shorter than the others."""
        pieces = [np.zeros((self.tracks, 0), np.float32), *self._pieces]
        if self._open.shape[1]:
            pieces.append(self._open.mean(1, keepdims=True).astype(np.float32))
        levels: NDArray[np.float32] = 10 * np.log10(np.concatenate(pieces, axis=1) + np.float32(SILENT))
        return levels
