"""Sound in: any file libsndfile reads, WAV from pipes too, in blocks (C, T) of float32."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

import numpy as np
import soundfile
from numpy.typing import NDArray

from audiosr_cli.audio.resample import Resampler
from audiosr_cli.audio.wav import CodecError, WavReader, check_shape
from audiosr_cli.errors import InputError

__all__ = ["SUFFIXES", "AudioReader", "codecs", "read_channels", "read_mono"]

_NAMES = "wav wave rf64 w64 bwf flac ogg oga opus mp3 aif aiff aifc au caf"
SUFFIXES = frozenset(f".{name}" for name in _NAMES.split(" "))
BLOCK = 1 << 16  # frames a block

_WAV_MAGIC = (b"RIFF", b"RIFX", b"RF64")
_PIECE = 1 << 12  # frames that are lost at most where one of them is damaged
_OGG_PAGE_BYTES = 27 + 255 + 255 * 255  # the longest there are
_COPY_BYTES = 1 << 20  # read at once from a file object

EncodedBytes = bytes | bytearray | memoryview
EncodedSource = str | os.PathLike[str] | BinaryIO | EncodedBytes


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file read from start to end.

    soundfile seeks to where it is after every read of a seekable file, which drops the MP3 decoder's bit
    reservoir: blocks after the first come out damaged.
    """

    def seekable(self) -> bool:
        """Never, so that it does not seek."""
        return False


class _Recorded:
    """A stream that keeps what was read of it."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.kept = stream, bytearray()

    def read(self, count: int) -> bytes:
        """As the stream's own."""
        data = self.stream.read(count)
        self.kept += data
        return data


def _identity(known: os.stat_result) -> tuple[int, ...]:
    """What of a file changes when it is replaced or written to."""
    return known.st_dev, known.st_ino, known.st_size, known.st_mtime_ns


def _name_of(source: EncodedSource) -> str:
    """Name a source in messages."""
    if isinstance(source, str | os.PathLike):
        return "standard input" if str(source) == "-" else os.fsdecode(source)
    if isinstance(source, EncodedBytes):
        return "the bytes"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) and name else "the file object"


class AudioReader:
    """An open recording: ``sample_rate`` (Hz), ``channels``, ``subtype`` and blocks of samples.

    ``source`` is a path, ``-`` for standard input, a binary file object or the bytes of a file. ``frames`` is what the
    header promises, None where it promises nothing; never trusted. ``path`` is where it can be opened again, None for
    pipes, file objects and bytes. ``warnings`` tells, once the blocks are through, what was off. No downmix, no
    scaling. Raises InputError naming the file.
    """

    def __init__(self, source: EncodedSource) -> None:
        self.name = _name_of(source)
        self.path: Path | None = None
        self.warnings: list[str] = []
        self._stack = ExitStack()
        try:
            self._open(source)
        except BaseException:
            self._stack.close()
            raise

    def _open(self, source: EncodedSource) -> None:
        stream = self._raw(source)
        self._head = head = stream.peek(12)[:12] if hasattr(stream, "peek") else b""
        if not head:
            raise InputError(f"{self.name}: is empty, there is no audio in it")
        self._wav: WavReader | None = None
        self._sound: _Forward | None = None
        self._done = 0
        self._damaged = self._ended = False
        self._heard_ahead = deque[NDArray[np.float32]]()
        recorded = _Recorded(stream)
        if head[:4] in _WAV_MAGIC:
            try:
                self._wav = WavReader(cast(BinaryIO, recorded), self.name)
                self._wav.stream = stream
            except CodecError:  # mu-law and its like: libsndfile's business
                pass
        if self._wav is not None:
            form = self._wav.format
            self.sample_rate, self.channels, self.subtype = form.sample_rate, form.channels, form.subtype
            self.frames = self._wav.frames
        else:
            self._open_sound(stream, bytes(recorded.kept))

    def _raw(self, source: EncodedSource) -> BinaryIO:
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

    def _open_sound(self, stream: BinaryIO, head: bytes) -> None:
        """Through libsndfile, which needs a real file: what cannot seek is spooled to a temporary one."""
        if not stream.seekable():
            spool = self._stack.enter_context(tempfile.TemporaryFile())
            spool.write(head)
            shutil.copyfileobj(stream, spool, 1 << 20)
            spool.flush()
            stream = cast(BinaryIO, spool)
        os.lseek(stream.fileno(), 0, os.SEEK_SET)  # libsndfile reads the descriptor, which buffering has moved
        try:
            self._sound = self._stack.enter_context(_Forward(stream.fileno(), closefd=False))
        except (soundfile.LibsndfileError, TypeError) as error:
            if self._head[4:8] == b"ftyp":
                raise InputError(
                    f"{self.name}: MP4 and M4A cannot be read; convert it by ffmpeg -i IN OUT.wav"
                ) from error
            reason = getattr(error, "error_string", str(error)).rstrip(".")
            raise InputError(f"{self.name}: cannot be read as audio: {reason}; known: {_NAMES}") from error
        self._descriptor = stream.fileno()
        self.sample_rate, self.channels = self._sound.samplerate, self._sound.channels
        self.subtype = self._sound.subtype
        self.frames = self._sound.frames if 0 <= self._sound.frames < 2**48 else None
        check_shape(self.sample_rate, self.channels, self.name)

    def blocks(self, frames: int = BLOCK) -> Iterator[NDArray[np.float32]]:
        """All samples in blocks (C, T) of at most ``frames``; to be walked once."""
        while self._heard_ahead:
            yield self._heard_ahead.popleft()
        yield from self._blocks(frames)

    def peek(self, seconds: float) -> Iterator[NDArray[np.float32]]:
        """The first ``seconds`` in blocks (C, T), before ``blocks`` is walked, which then has them as well."""
        wanted = seconds * self.sample_rate
        for block in self._blocks(BLOCK):
            self._heard_ahead.append(block)
            yield block
            if self._done >= wanted:
                return

    def _blocks(self, frames: int) -> Iterator[NDArray[np.float32]]:
        while (block := self._read(frames)).shape[1]:
            self._done += block.shape[1]
            yield block
        if not self._ended:
            self._ended = True
            self.warnings += self._wav.warnings if self._wav is not None else self._ending()

    def _ending(self) -> list[str]:
        """What is off about how far libsndfile came."""
        if self._damaged:
            return []  # told already
        if self._head[:4] == b"OggS" and not _ogg_is_whole(self._descriptor):
            return [f"{self.name}: its end is missing; {self._done} frames are there"]
        if self.frames is not None and self._done < self.frames:
            return [f"{self.name}: ends after {self._done} of the {self.frames} frames its header promises"]
        return [] if self._done else [f"{self.name}: holds no samples"]

    def _read(self, frames: int) -> NDArray[np.float32]:
        if self._wav is not None:
            return self._wav.read(frames)
        pieces, count = [np.zeros((self.channels, 0), np.float32)], 0
        while count < frames and (piece := self._piece(min(frames - count, _PIECE), count)).shape[1]:
            pieces.append(piece)
            count += piece.shape[1]
        return np.concatenate(pieces, axis=1)

    def _piece(self, frames: int, ahead: int) -> NDArray[np.float32]:
        """The next ``frames`` frames through libsndfile, ``ahead`` of what was handed out; none after damage."""
        assert self._sound is not None
        none = np.zeros((self.channels, 0), np.float32)
        if self._damaged:
            return none
        try:
            block = self._sound.read(frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            self._damaged = True
            at, reason = (self._done + ahead) / self.sample_rate, error.error_string.rstrip(".")
            self.warnings.append(f"{self.name}: damaged at {at:.1f} s ({reason}); the rest is lost")
            return none
        return np.ascontiguousarray(block.T, np.float32)

    def check_unchanged(self) -> None:
        """Raises InputError where the file is not there any more, or not as it was when it was opened."""
        if self.path is None:
            return
        try:
            now = _identity(self.path.stat())
        except OSError as error:
            raise InputError(f"{self.name}: went away while it was read: {error.strerror}") from error
        if now != self._opened:
            raise InputError(f"{self.name}: was written to while it was read; run it again when it is whole")

    def close(self) -> None:
        """Close what was opened; standard input stays open."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _ogg_is_whole(descriptor: int) -> bool:
    """Whether the last page of an Ogg file is all there and says that it is the last: libsndfile asks neither."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, _OGG_PAGE_BYTES, max(0, size - _OGG_PAGE_BYTES))
    page = tail[max(0, tail.rfind(b"OggS")) :]
    return len(page) > 26 and bool(page[5] & 4) and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])


def read_mono(path: Path, sample_rate: int) -> tuple[NDArray[np.float32], int, list[str]]:
    """A whole recording in memory: its channels' mean (T,) at ``sample_rate`` Hz, its own rate, its damage."""
    with AudioReader(path) as reader:
        resampler = Resampler(reader.sample_rate, sample_rate, 1)
        pieces = [resampler.push(block.mean(0, keepdims=True, dtype=np.float32)) for block in reader.blocks()]
        pieces.append(resampler.push(np.zeros((1, 0), np.float32), last=True))
    wave: NDArray[np.float32] = np.concatenate(pieces, axis=1)[0]
    return wave, reader.sample_rate, reader.warnings


def read_channels(path: Path, sample_rate: int) -> NDArray[np.float32]:
    """Read a whole recording into memory with all its channels.

    Args:
        path: The file.
        sample_rate: Hz of the result.

    Returns:
        (C, T) float32.

    Raises:
        InputError: If the file cannot be read.
    """
    with AudioReader(path) as reader:
        resampler = Resampler(reader.sample_rate, sample_rate, reader.channels)
        pieces = [resampler.push(block) for block in reader.blocks()]
        pieces.append(resampler.push(np.zeros((reader.channels, 0), np.float32), last=True))
    return np.concatenate(pieces, axis=1)


def codecs() -> tuple[str, list[str]]:
    """The version of libsndfile, and the formats it was built with."""
    return soundfile.__libsndfile_version__, sorted(soundfile.available_formats())
