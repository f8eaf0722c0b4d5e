"""The part of a recording between two times, cut out of its blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.errors import InputError


def frame_range(start_s: float | None, end_s: float | None, sample_rate: int) -> tuple[int, int | None]:
    """Return the frames at which a part begins and ends, rounded to the nearest.

    Args:
        start_s: Seconds; None for the beginning of the recording.
        end_s: Seconds; None for its end.
        sample_rate: Hz.

    Returns:
        The first frame, and the one after the last; None for the end of the recording.
    """
    return round((start_s or 0.0) * sample_rate), None if end_s is None else round(end_s * sample_rate)


class Trim:
    """Cut blocks to a part of a recording. The position lasts from one call of ``cut`` to the next.

    Args:
        start_s: Seconds; None for the beginning of the recording.
        end_s: Seconds; None for its end.
        sample_rate: Hz.
        name: Of the recording, for errors.
    """

    def __init__(self, start_s: float | None, end_s: float | None, sample_rate: int, name: str) -> None:
        self.first, self.last = frame_range(start_s, end_s, sample_rate)
        self.sample_rate, self.name, self.position = sample_rate, name, 0

    def limit(self, frames: int) -> int:
        """Return how many of the next ``frames`` are not behind the part: what is wrong there does not matter."""
        return frames if self.last is None else max(0, min(frames, self.last - self.position))

    def cut(self, blocks: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Yield what lies inside the part; do not read on behind it.

        Args:
            blocks: (C, T), from the current position on.

        Raises:
            InputError: If the recording ends before the part begins.
        """
        while self.last is None or self.position < self.last:
            block = next(blocks, None)
            if block is None:
                self._check_begun()
                return
            inside = block[:, max(0, self.first - self.position) :]
            self.position += block.shape[1]
            if self.last is not None and self.position > self.last:
                inside = inside[:, : max(0, inside.shape[1] - (self.position - self.last))]
            if inside.shape[1]:
                yield inside

    def _check_begun(self) -> None:
        if self.position <= self.first and self.first:
            start_s, length_s = self.first / self.sample_rate, self.position / self.sample_rate
            raise InputError(f"{self.name}: --start {start_s:g} s is not before its end; it is {length_s:.3f} s long")
