"""Streaming resampling by soxr, of exact length and without delay."""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray


def resampled_length(frames: int, in_rate: int, out_rate: int) -> int:
    """``round(frames * out_rate / in_rate)`` in whole numbers, halves up."""
    return (2 * frames * out_rate + in_rate) // (2 * in_rate)


class Resampler:
    """Blocks (C, T) at ``in_rate`` to blocks at ``out_rate`` (Hz); equal rates pass through untouched.

    soxr's HQ recipe in float32, where a stream is bit-identical to one call on the whole. Levels are kept;
    a full-scale square may overshoot to 1.37.
    """

    def __init__(self, in_rate: int, out_rate: int, channels: int) -> None:
        self.channels = channels
        self._stream = (
            None if in_rate == out_rate else soxr.ResampleStream(in_rate, out_rate, channels, "float32", "HQ")
        )

    def push(self, block: NDArray[np.float32], last: bool = False) -> NDArray[np.float32]:
        """What is ready after ``block`` (C, T); ``last`` brings out the rest, and is given once."""
        if self._stream is None:
            return block
        frames = block[0] if self.channels == 1 else np.ascontiguousarray(block.T)
        made = self._stream.resample_chunk(frames, last=last)
        return np.ascontiguousarray(made.reshape(-1, self.channels).T, np.float32)
