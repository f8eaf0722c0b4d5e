"""Whether two channels hold one voice each, as those of a recorded call do."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_FRAME_S = 0.05  # of levels
_RANGE_DB = 40.0  # below the loudest frame of a channel, nobody speaks
_MIN_ACTIVE_S = 1.0  # of each channel
# One voice that reaches two microphones raises and lowers both levels together. Two voices in one channel each do not,
# or do the opposite where each leaks into the other channel. Levels of the calls and stereo recordings that
# tests/dsp/test_channels.py makes correlate at -0.9 to 0.2 and at 0.8 to 1. Set by hand, November 2026.
_MAX_CORRELATION = 0.5
# Each channel, relative to its peaks, must be louder than the other one for a tenth of the time by at least this much.
_MIN_DIFFERENCE_DB = 4.0


class ChannelMeter:
    """Measure levels of the two channels of a stream.

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._frame = max(1, round(_FRAME_S * sample_rate))
        self._rest = np.zeros((2, 0), np.float32)
        self._powers: list[NDArray[np.float64]] = []

    def push(self, block: NDArray[np.float32]) -> None:
        """Measure a block (2, T)."""
        signal = np.concatenate([self._rest, block], axis=1)
        frames = signal.shape[1] // self._frame
        used = signal[:, : frames * self._frame].reshape(2, frames, self._frame)
        self._powers.append(np.square(used, dtype=np.float64).mean(-1))
        self._rest = signal[:, frames * self._frame :]

    def hold_separate_voices(self) -> bool:
        """Decide whether each channel holds a voice of its own."""
        power = np.concatenate([np.zeros((2, 0)), *self._powers], axis=1)
        if not np.isfinite(power).all() or not power.shape[1] or power.max(1).min() <= 0:
            return False
        peaks_db = 10 * np.log10(np.percentile(power, 99, axis=1, keepdims=True) + 1e-20)
        levels = np.maximum(10 * np.log10(power + 1e-20), peaks_db - _RANGE_DB)
        active = levels > peaks_db - _RANGE_DB / 2
        if (active.sum(1) * _FRAME_S < _MIN_ACTIVE_S).any():
            return False
        levels = (levels - peaks_db)[:, active.any(0)]
        difference = np.percentile(levels[0] - levels[1], [10, 90])
        differs = difference[0] < -_MIN_DIFFERENCE_DB and difference[1] > _MIN_DIFFERENCE_DB
        return bool(differs and np.corrcoef(levels)[0, 1] < _MAX_CORRELATION)
