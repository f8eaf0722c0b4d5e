"""Where a recording's bytes come from: a path, standard input, bytes or a file object; files and pipes."""

from __future__ import annotations

import io
import os
import shutil
import stat
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, cast

from audiosr_cli.errors import InputError

__all__ = ["ByteSource", "EncodedBytes", "EncodedSource"]

EncodedBytes = bytes | bytearray | memoryview
EncodedSource = str | os.PathLike[str] | BinaryIO | EncodedBytes

_COPY_BYTES = 1 << 20  # bytes a read of a file object
_MAX_BEGINNING_BYTES = 1 << 24  # of a pipe, for its metadata


class ByteSource:
    """The bytes of a recording, of which the beginning can be read twice, also from a pipe.

    Args:
        source: A path, ``-`` for standard input, the bytes of a file, or a binary file object.

    Attributes:
        name: The path, "standard input" or the like, for messages.
        path: Where the recording can be opened again; None for pipes, file objects and bytes.

    Raises:
        InputError: If it cannot be opened.
    """

    def __init__(self, source: EncodedSource) -> None:
        self.name = _name_of(source)
        self.path: Path | None = None
        self._opened: tuple[int, ...] = ()
        self._stack = ExitStack()
        self._head = bytearray()  # what has been read while recording
        self._at = 0  # position within the head
        self._recording = True
        self._beginning = b""  # what was read before there was no way back
        try:
            self._stream = self._open(source)
        except BaseException:
            self._stack.close()
            raise

    def head(self, count: int, start: int = 0) -> bytes:
        """Return the first ``count`` bytes, fewer only if there are no more, without consuming them.

        Args:
            count: How many are read.
            start: How many of these are left out of what is returned.
        """
        assert self._recording
        self._fill(count)
        return bytes(self._head[start:count])

    def read(self, count: int) -> bytes:
        """Read up to ``count`` bytes; none at the end."""
        if self._at < len(self._head):
            data = bytes(self._head[self._at : self._at + count])
            self._at += len(data)
            if not self._recording and self._at == len(self._head):
                self._head, self._at = bytearray(), 0
            return data
        data = self._read_stream(count)
        if self._recording:
            self._head += data
            self._at += len(data)
        return data

    def rewind(self) -> None:
        """Go back to the first byte; only before ``commit``."""
        assert self._recording
        self._at = 0

    def commit(self) -> None:
        """Keep no more of what is read: there is no way back from here on."""
        if self._recording:
            self._beginning = bytes(self._head[:_MAX_BEGINNING_BYTES])
        self._recording = False

    def seekable(self) -> bool:
        """Return whether the bytes are those of a file, which `file` returns without a copy."""
        return self._stream.seekable()

    def file(self) -> BinaryIO:
        """Return all bytes as a real file at its first byte; those of a pipe are copied to a temporary one."""
        if not self._stream.seekable():
            spool = self._stack.enter_context(tempfile.TemporaryFile())
            spool.write(self._head)
            shutil.copyfileobj(self._stream, spool, _COPY_BYTES)
            spool.flush()
            self._stream = self._stack.enter_context(open(spool.fileno(), "rb", closefd=False))
        self._head, self._at = bytearray(), 0
        # Libraries move the descriptor behind the stream's back: a seek to the end drops what the stream has buffered.
        self._stream.seek(0, os.SEEK_END)
        self._stream.seek(0)
        os.lseek(self._stream.fileno(), 0, os.SEEK_SET)
        return self._stream

    def reopened(self) -> BinaryIO:
        """Return the bytes from the first one on, whatever has been read; of a pipe those read before ``commit``."""
        if self._stream.seekable():
            return io.BufferedReader(_View(self._stream.fileno()))
        return io.BytesIO(self._beginning or bytes(self._head))

    def check_unchanged(self) -> None:
        """Raise InputError if the file has been removed or modified since it was opened."""
        if self.path is None:
            return
        try:
            now = _identity(self.path.stat())
        except OSError as error:
            raise InputError(f"{self.name}: was removed while it was being read: {error.strerror}") from error
        if now != self._opened:
            raise InputError(
                f"{self.name}: was modified while it was being read; run the command again when the file is complete"
            )

    def close(self) -> None:
        """Close the file; standard input stays open."""
        self._stack.close()

    def _fill(self, count: int) -> None:
        while len(self._head) < count and (piece := self._read_stream(count - len(self._head))):
            self._head += piece

    def _read_stream(self, count: int) -> bytes:
        try:
            return self._stream.read(count)
        except OSError as error:
            raise InputError(f"{self.name}: cannot be read: {error.strerror or error}") from error

    def _open(self, source: EncodedSource) -> BinaryIO:
        if not isinstance(source, str | os.PathLike):
            return self._spool(source)
        if str(source) == "-":
            if sys.stdin is None or sys.stdin.closed:
                raise InputError("standard input is closed")
            return sys.stdin.buffer
        try:
            stream = self._stack.enter_context(open(source, "rb"))
            status = os.fstat(stream.fileno())
        except IsADirectoryError as error:
            raise InputError(f"{self.name}: is a folder, not a file") from error
        except OSError as error:
            raise InputError(f"{self.name}: cannot be opened: {error.strerror}") from error
        except ValueError as error:  # a NUL byte, or characters that the file system cannot encode
            raise InputError(f"{self.name!r}: cannot be opened: {error}") from error
        self._opened = _identity(status)
        if stat.S_ISREG(status.st_mode):
            self.path = Path(os.fsdecode(source))
        return stream

    def _spool(self, source: BinaryIO | EncodedBytes) -> BinaryIO:
        """Copy bytes, or the rest of a file object, to a temporary file: libsndfile needs a descriptor."""
        spool = self._stack.enter_context(tempfile.TemporaryFile())
        if isinstance(source, EncodedBytes):
            spool.write(bytes(source))
        else:
            self._copy(source, cast(BinaryIO, spool))
        spool.flush()
        os.lseek(spool.fileno(), 0, os.SEEK_SET)
        return self._stack.enter_context(open(spool.fileno(), "rb", closefd=False))

    def _copy(self, source: BinaryIO, spool: BinaryIO) -> None:
        while True:
            try:
                piece: object = source.read(_COPY_BYTES)
            except Exception as error:  # of anybody's class, with errors of its own
                raise InputError(f"{self.name}: cannot be read: {error}") from error
            if not isinstance(piece, EncodedBytes):
                kind = type(piece).__name__
                raise InputError(f"{self.name}: read() returned {kind}, not bytes; open it in binary mode ('rb')")
            if not piece:
                return
            spool.write(piece)


class _View(io.RawIOBase):
    """A file as its descriptor shows it, with a position of its own."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor, self._position = descriptor, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position and return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        self._position = offset + (os.fstat(self._descriptor).st_size if start is None else start)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read from the position on into ``buffer``."""
        data = os.pread(self._descriptor, len(buffer), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """Return the values that change when a file is replaced or written to."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _name_of(source: EncodedSource) -> str:
    """Name a source in messages."""
    if isinstance(source, str | os.PathLike):
        return "standard input" if str(source) == "-" else os.fsdecode(source)
    if isinstance(source, EncodedBytes):
        return "the bytes"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) and name else "the file object"
