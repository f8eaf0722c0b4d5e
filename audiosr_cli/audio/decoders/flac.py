"""FLAC files by libsndfile, which is exact, also where several were joined, one after the other."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import ExitStack
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.decoders.conform import Conformer
from audiosr_cli.audio.decoders.sndfile import SoundFileDecoder
from audiosr_cli.errors import InputError

# Beginnings of files. FLAC's is its magic and the head of STREAMINFO, which is always first and 34 bytes long.
_BEGINNING = re.compile(rb"fLaC\0\0\0\x22|(?:RIFF|RF64|FORM)....(?:WAVE|AIF[FC])|OggS\0\x02", re.DOTALL)
_BEGINNING_BYTES = 12
_BUFFERED_BYTES = 1 << 17  # more than the decoder reads ahead
_READ_BYTES = 1 << 20


class FlacDecoder:
    """Decode FLAC files that lie one after the other in one; usually it is one.

    Args:
        stream: A real file; it is read from its first byte.
        name: For messages.
        start: Bytes before the magic.

    Attributes:
        sample_rate: Hz.
        channels: Number of channels.
        subtype: libsndfile's name of the sample type.
        frames: Samples of each channel according to the first header; None if it does not say.
        warnings: What is wrong with the file; complete at its end.
        notes: Always empty.

    Raises:
        InputError: If libsndfile cannot open the file.
    """

    def __init__(self, stream: BinaryIO, name: str, start: int = 0) -> None:
        self.name, self.warnings, self.notes = name, list[str](), list[str]()
        self._stack = ExitStack()  # the copy of what follows the first file
        self._start = start  # of the current file
        self._stream, self._current = stream, SoundFileDecoder(stream, name)
        self.sample_rate, self.channels = self._current.sample_rate, self._current.channels
        self.subtype, self.frames = self._current.subtype, self._current.frames
        self._conformer = Conformer(self.sample_rate, self.channels, name)
        self._ended = False

    def read(self, frames: int) -> NDArray[np.float32]:
        """Read up to ``frames`` frames: (C, T) float32, full scale 1.0; T is 0 at the end."""
        while self._conformer.waiting < frames and not self._ended:
            block = self._current.read(frames)
            if block.shape[1]:
                self._conformer.push(block, self._current.sample_rate)
            else:
                self._go_on()
        return self._conformer.take(frames)

    def close(self) -> None:
        """Close the decoder; the file stays open."""
        self._current.close()
        self._stack.close()

    def _go_on(self) -> None:
        """Open the file that follows, if there is one."""
        endings, at = self._current.warnings, self._conformer.done / self.sample_rate
        beginning = _find_beginning(self._stream.fileno(), self._start)
        self._current.close()
        if beginning is None:
            self._ended = True
        else:
            start, kind = beginning
            endings = [line.replace("everything after that", "the rest of that part") for line in endings]
            try:
                self._continue(start, kind)
            except InputError:
                endings.append(f"{self.name}: at {at:.1f} s another file ({kind}) follows, which cannot be read")
                self._ended = True
        self.warnings += endings
        if self._ended:
            self._conformer.finish()
            self.warnings += self._conformer.warnings

    def _continue(self, start: int, kind: str) -> None:
        if kind != "fLaC":
            raise InputError(f"{self.name}: not FLAC")
        with ExitStack() as stack:
            copy = _copy(self._stream, start, stack)
            self._stack.close()  # only one copy stays on the disk
            self._stack = stack.pop_all()
        self._stream, self._start = copy, 0
        self._current = SoundFileDecoder(self._stream, self.name)


def _copy(stream: BinaryIO, start: int, stack: ExitStack) -> BinaryIO:
    """Copy what lies behind ``start`` to a temporary file: libsndfile reads a file from its first byte."""
    copy = stack.enter_context(tempfile.TemporaryFile())
    # By the descriptor: libsndfile has moved it, so that the stream's own buffer no longer fits.
    while piece := os.pread(stream.fileno(), _READ_BYTES, start):
        copy.write(piece)
        start += len(piece)
    copy.flush()
    return stack.enter_context(open(copy.fileno(), "rb", closefd=False))


def _find_beginning(descriptor: int, start: int) -> tuple[int, str] | None:
    """Return where the next file begins, and its magic, when the one that begins at ``start`` has been decoded."""
    at = max(start + _BEGINNING_BYTES, os.lseek(descriptor, 0, os.SEEK_CUR) - _BUFFERED_BYTES)
    while piece := os.pread(descriptor, _READ_BYTES, at):
        if match := _BEGINNING.search(piece):
            return at + match.start(), match[0][:4].decode()
        if len(piece) < _BEGINNING_BYTES:
            break
        at += len(piece) - _BEGINNING_BYTES + 1
    return None
