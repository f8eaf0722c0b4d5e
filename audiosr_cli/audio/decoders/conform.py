"""What decoders share: one sample rate and layout throughout, blocks of any length, and a record of damage."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.resample import Resampler, resampled_length
from audiosr_cli.errors import InputError

# Changes of the format from which a file is taken for damaged: each costs the set-up of a resampler, so that a hostile
# file could waste hours. Radio captures change a few times an hour. Set by hand, November 2026.
_MAX_CHANGES = 500
# Changes, and places of damage, that are listed one by one.
_LISTED = 5
# Seconds between two places of damage that are reported as one.
_SAME_PLACE_S = 0.5
_SILENCE_FRAMES = 1 << 14  # of a piece, so that a long gap needs little memory


class Piece(NamedTuple):
    """Decoded samples.

    Attributes:
        wave: (C, T) float32.
        rate: Hz.
        kind: "sound"; "lost" for silence in place of what cannot be decoded; "gap" for silence that keeps the time
            where a recording says that there is no sound.
    """

    wave: NDArray[np.float32]
    rate: int
    kind: Literal["sound", "lost", "gap"] = "sound"


def silence(frames: int, channels: int, rate: int, kind: Literal["lost", "gap"]) -> Iterator[Piece]:
    """Yield ``frames`` frames of silence, in pieces; one empty piece for none."""
    while True:
        piece = min(frames, _SILENCE_FRAMES)
        yield Piece(np.zeros((channels, piece), np.float32), rate, kind)
        frames -= piece
        if frames <= 0:
            return


def describe(sample_rate: int, channels: int) -> str:
    """Describe a format in a message, such as "mono at 44100 Hz"."""
    return f"{ {1: 'mono', 2: 'stereo'}.get(channels, f'{channels} channels') } at {sample_rate} Hz"


class Conformer:
    """Collect decoded samples and bring all of them to one sample rate and number of channels.

    Mono is copied to all channels; a mean of all channels stands in for any other layout that changes.

    Args:
        sample_rate: Hz, of the output.
        channels: Channels C of the output.
        name: Of the recording, for messages.
    """

    def __init__(self, sample_rate: int, channels: int, name: str) -> None:
        self.sample_rate, self.channels, self.name = sample_rate, channels, name
        self.done = 0  # frames collected
        self._changes, self._lines = 0, list[str]()
        self._current = (sample_rate, channels)
        self._resampler: Resampler | None = None
        self._in_frames = self._out_frames = 0  # of the resampler
        self._blocks = deque[NDArray[np.float32]]()
        self._waiting = 0  # frames in the blocks

    @property
    def waiting(self) -> int:
        """Frames that can be taken."""
        return self._waiting

    @property
    def warnings(self) -> list[str]:
        """What changed, and where."""
        more = self._changes - len(self._lines)
        return self._lines + ([f"{self.name}: {more} more changes of the format follow"] if more else [])

    def push(self, block: NDArray[np.float32], sample_rate: int) -> None:
        """Append decoded samples (C', T) at ``sample_rate`` Hz."""
        if (sample_rate, len(block)) != self._current:
            self._change(sample_rate, len(block))
        if len(block) != self.channels:
            if len(block) > 1:
                block = block.mean(0, keepdims=True, dtype=np.float32)
            block = np.repeat(block, self.channels, axis=0)
        if sample_rate != self.sample_rate:
            if self._resampler is None:
                self._resampler = Resampler(sample_rate, self.sample_rate, self.channels)
            self._in_frames += block.shape[1]
            block = self._resampler.push(block)
            self._out_frames += block.shape[1]
        self._append(block)

    def finish(self) -> None:
        """Append what the resampler holds back."""
        self._flush()

    def take(self, frames: int) -> NDArray[np.float32]:
        """Remove and return up to ``frames`` frames (C, T)."""
        blocks, count = [np.zeros((self.channels, 0), np.float32)], 0
        while self._blocks and count < frames:
            block = self._blocks.popleft()
            if count + block.shape[1] > frames:
                self._blocks.appendleft(block[:, frames - count :])
                block = block[:, : frames - count]
            blocks.append(block)
            count += block.shape[1]
        self._waiting -= count
        return np.concatenate(blocks, axis=1)

    def _append(self, block: NDArray[np.float32]) -> None:
        if block.shape[1]:
            self._blocks.append(block)
            self._waiting += block.shape[1]
            self.done += block.shape[1]

    def _change(self, sample_rate: int, channels: int) -> None:
        """Continue with samples of another format."""
        self._flush()
        self._changes += 1
        if self._changes > _MAX_CHANGES:
            raise InputError(f"{self.name}: its format changes more than {_MAX_CHANGES} times; the file is damaged")
        if len(self._lines) < _LISTED:
            at = self.done / self.sample_rate
            self._lines.append(
                f"{self.name}: changes to {describe(sample_rate, channels)} at {at:.1f} s; "
                f"converted to {describe(self.sample_rate, self.channels)} as at its start"
            )
        self._current = (sample_rate, channels)

    def _flush(self) -> None:
        if self._resampler is None:
            return
        rest = self._resampler.push(np.zeros((self.channels, 0), np.float32), last=True)
        wanted = resampled_length(self._in_frames, self._current[0], self.sample_rate) - self._out_frames
        self._append(rest[:, : max(0, wanted)])
        self._in_frames = self._out_frames = 0
        self._resampler = None


class DamageLog:
    """Collect the places of a recording that could not be decoded, neighbours as one.

    Args:
        name: Of the recording.
        sample_rate: Hz.
    """

    def __init__(self, name: str, sample_rate: int) -> None:
        self.name, self.sample_rate = name, sample_rate
        self._places = list[list[int]]()  # [start, silent] in frames, of those that are listed
        self._count = self._end = 0  # places, and where the last one ends
        self._silent = 0  # frames, in all places

    def add(self, start: int, silent: int = 0) -> None:
        """Record damage at frame ``start``, in whose place there are ``silent`` frames of silence."""
        if not self._count or start > self._end + int(_SAME_PLACE_S * self.sample_rate):
            self._count += 1
            if self._count <= _LISTED:
                self._places.append([start, 0])
        if self._count <= _LISTED:
            self._places[-1][1] += silent
        self._end = max(self._end, start + silent)
        self._silent += silent

    @property
    def gaps(self) -> list[str]:
        """One line about the places of a healthy recording that have no sound."""
        if not self._places:
            return []
        places = ", ".join(f"{start / self.sample_rate:.1f} s" for start, _ in self._places)
        more = f" and {self._unlisted} more places" if self._unlisted else ""
        seconds = self._silent / self.sample_rate
        return [f"{self.name}: has no sound at {places}{more}; {seconds:.1f} s of silence keep the time"]

    @property
    def warnings(self) -> list[str]:
        """One line for each place, up to a few."""
        lines = []
        for start, silent in self._places:
            what = f"{silent / self.sample_rate:.2f} s are replaced by silence" if silent else "some of it is lost"
            lines.append(f"{self.name}: damaged at {start / self.sample_rate:.1f} s; {what}")
        if self._unlisted:
            lines.append(f"{self.name}: damaged at {self._unlisted} more places")
        return lines

    @property
    def _unlisted(self) -> int:
        return self._count - len(self._places)
