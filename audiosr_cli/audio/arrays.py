"""Sound in from memory: an array with the interface of ``AudioReader``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.read import BLOCK
from audiosr_cli.audio.trim import frame_range
from audiosr_cli.audio.wav import MAX_CHANNELS, RATES
from audiosr_cli.errors import InputError, UsageError


class ArrayReader:
    """A signal in memory, read in blocks like a file.

    Args:
        audio: Floating point samples (T,) or (C, T), full scale 1.0. The array is never written to.
        sample_rate: Hz.

    Raises:
        UsageError: If the type, the shape or the sample rate is not one of audio.
    """

    name = "the array"
    path = None
    notes: Sequence[str] = ()
    subtype = "FLOAT"

    def __init__(self, audio: NDArray[np.floating], sample_rate: int) -> None:
        _check(audio, sample_rate)
        self._audio = np.atleast_2d(np.asarray(audio))
        self.sample_rate = sample_rate
        self.channels, self.frames = self._audio.shape
        self._first, self._last = 0, self.frames
        self.notes = list[str]()
        self.warnings = [] if self.frames else [f"{self.name}: holds no samples"]

    def trim(self, start_s: float | None, end_s: float | None) -> None:
        """Restrict ``blocks`` and ``peek`` to the part between two times in seconds; None is the beginning or end.

        Raises:
            InputError: If the array ends before the part begins.
        """
        first, last = frame_range(start_s, end_s, self.sample_rate)
        if first and first >= self.frames:
            length_s = self.frames / self.sample_rate
            raise InputError(f"{self.name}: start_s = {start_s:g} is not before its end; it is {length_s:.3f} s long")
        self._first, self._last = first, self.frames if last is None else min(last, self.frames)

    def blocks(self, frames: int = BLOCK) -> Iterator[NDArray[np.float32]]:
        """Yield all samples in blocks (C, T) of at most ``frames``, as float32 copies."""
        return self._blocks(self._last, frames)

    def peek(self, seconds: float, max_bytes: float = 0) -> Iterator[NDArray[np.float32]]:  # noqa: ARG002 - kept anyway
        """Yield blocks (C, T) until ``seconds`` are reached; ``blocks`` starts at the beginning again."""
        return self._blocks(min(self._last, self._first + seconds * self.sample_rate), BLOCK)

    def _blocks(self, end: float, frames: int) -> Iterator[NDArray[np.float32]]:
        end = math.ceil(end)
        for start in range(self._first, end, frames):
            with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, which the next check finds
                # A copy: torch warns of read-only arrays and does not take every byte order.
                block = np.array(self._audio[:, start : min(start + frames, end)], np.float32, order="C")
            yield block


def _check(audio: NDArray[Any], sample_rate: int) -> None:
    if isinstance(audio, np.ma.MaskedArray):
        raise UsageError("the array is masked; fill it first: array.filled(0.0)")
    if not np.issubdtype(audio.dtype, np.floating):
        hint = ""
        if np.issubdtype(audio.dtype, np.signedinteger):
            hint = f"; divide by {int(np.iinfo(audio.dtype).max) + 1} if full scale is that of {audio.dtype}"
        raise UsageError(f"the array has dtype {audio.dtype}; expected floating point samples, full scale 1.0{hint}")
    if audio.ndim not in (1, 2):
        raise UsageError(f"the array has shape {audio.shape}; expected (time,) or (channels, time)")
    if audio.ndim == 2 and not 1 <= len(audio) <= MAX_CHANNELS:
        hint = "; time comes last: pass array.T" if len(audio) > audio.shape[1] else ""
        raise UsageError(
            f"the array has shape {audio.shape}, which is {len(audio)} channels; "
            f"the number of channels must be between 1 and {MAX_CHANNELS}{hint}"
        )
    if sample_rate not in RATES:
        raise UsageError(f"sample_rate = {sample_rate}: must be between {RATES.start} and {RATES.stop - 1} Hz")
