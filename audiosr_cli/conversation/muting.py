"""Mute a track where its speaker does not speak.

What leaks from others is faint but intelligible, and recognisers of speech write it down.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.conversation.turns import Turn

# By how much a track is attenuated where its speaker is silent, in dB.
DEPTH_DB = 40.0
# Seconds of the fades before and after a turn.
_FADE_S = 0.05


class Muting:
    """The gain of one track: 1 in the turns of its speaker, -40 dB elsewhere, with fades of 50 ms.

    Args:
        turns: Of the speaker, in their order.
        sample_rate: Of the track in Hz.
    """

    def __init__(self, turns: Iterable[Turn], sample_rate: int) -> None:
        self.sample_rate = sample_rate
        times, self._open = [-np.inf], [0.0]
        for turn in turns:
            start, end = turn.start_s - _FADE_S, turn.end_s + _FADE_S
            if start <= times[-1]:  # the fades of two turns overlap: the track stays open between them
                del times[-2:], self._open[-2:]
                times.append(end - _FADE_S)
                self._open.append(1.0)
            else:
                times += [start, turn.start_s, turn.end_s]
                self._open += [0.0, 1.0, 1.0]
            times.append(end)
            self._open.append(0.0)
        self._times = np.array(times)

    def gains(self, first: int, frames: int) -> NDArray[np.float32]:
        """Return the gain of the samples ``first`` to ``first + frames``, (frames,)."""
        at = (first + np.arange(frames)) / self.sample_rate
        opened = np.interp(at, self._times[1:], self._open[1:]) if len(self._times) > 1 else np.zeros(frames)
        lowest = 10 ** (-DEPTH_DB / 20)
        gains: NDArray[np.float32] = (lowest + (1 - lowest) * np.square(np.sin(np.pi / 2 * opened))).astype(np.float32)
        return gains
