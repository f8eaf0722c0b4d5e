"""Audio input: every format that libsndfile reads, and WAV from pipes, in blocks (C, T) of float32."""

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
from audiosr_cli.audio.trim import Trim
from audiosr_cli.audio.wav import CodecError, WavReader, check_shape
from audiosr_cli.errors import InputError

__all__ = ["SUFFIXES", "AudioReader", "codecs", "read_channels", "read_mono"]

_NAMES = "wav wave rf64 w64 bwf flac ogg oga opus mp3 aif aiff aifc au caf"
SUFFIXES = frozenset(f".{name}" for name in _NAMES.split(" "))
BLOCK = 1 << 16  # frames a block

_WAV_MAGIC = (b"RIFF", b"RIFX", b"RF64")
_READ_FRAMES = 1 << 12  # frames a read: the most that are lost before a damaged one
_OGG_PAGE_BYTES = 27 + 255 + 255 * 255  # of the longest page possible
_COPY_BYTES = 1 << 20  # bytes a read of a file object

EncodedBytes = bytes | bytearray | memoryview
EncodedSource = str | os.PathLike[str] | BinaryIO | EncodedBytes


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read from start to end.

    After every read of a seekable file soundfile seeks to its position, which drops the bit reservoir of the MP3
    decoder and damages all blocks but the first.
    """

    def seekable(self) -> bool:
        """Return False, so that soundfile does not seek."""
        return False


class _RecordingStream:
    """A stream that records the bytes read from it."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.content = stream, bytearray()

    def read(self, count: int) -> bytes:
        """Read from the stream."""
        data = self.stream.read(count)
        self.content += data
        return data


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


class AudioReader:
    """An open recording. Samples are neither mixed nor scaled.

    Args:
        source: A path, ``-`` for standard input, the bytes of a file, or a binary file object, which is read from where
            it stands to its end.

    Attributes:
        name: The path, "standard input" or the like, for messages.
        path: Where the recording can be opened again; None for pipes, file objects and bytes.
        sample_rate: Hz.
        channels: Number of channels.
        subtype: libsndfile's name of the sample type.
        frames: Samples of each channel according to the header, which may be wrong; None if the header does not say.
        warnings: What is wrong with the recording; complete when all blocks have been read.

    Raises:
        InputError: If the recording cannot be opened or read as audio.
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
        self.trim(None, None)

    def _open(self, source: EncodedSource) -> None:
        stream = self._raw(source)
        self._head = head = stream.peek(12)[:12] if hasattr(stream, "peek") else b""
        if not head:
            raise InputError(f"{self.name}: is empty; expected an audio file")
        self._wav: WavReader | None = None
        self._sound: _Forward | None = None
        self._done = 0
        self._damaged = self._ended = False
        self._peeked = deque[NDArray[np.float32]]()
        recorded = _RecordingStream(stream)
        if head[:4] in _WAV_MAGIC:
            try:
                self._wav = WavReader(cast(BinaryIO, recorded), self.name)
                self._wav.stream = stream
            except CodecError:  # mu-law and the like, which libsndfile decodes
                pass
        if self._wav is not None:
            wav_format = self._wav.format
            self.sample_rate, self.channels = wav_format.sample_rate, wav_format.channels
            self.subtype = wav_format.subtype
            self.frames = self._wav.frames
        else:
            self._open_sound(stream, bytes(recorded.content))

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
        """Open the stream with libsndfile, which needs a real file: a pipe is copied to a temporary one."""
        if not stream.seekable():
            spool = self._stack.enter_context(tempfile.TemporaryFile())
            spool.write(head)
            shutil.copyfileobj(stream, spool, 1 << 20)
            spool.flush()
            stream = cast(BinaryIO, spool)
        os.lseek(stream.fileno(), 0, os.SEEK_SET)  # libsndfile uses the descriptor, whose position buffering has moved
        try:
            self._sound = self._stack.enter_context(_Forward(stream.fileno(), closefd=False))
        except (soundfile.LibsndfileError, TypeError) as error:
            if self._head[4:8] == b"ftyp":
                raise InputError(
                    f"{self.name}: MP4 and M4A are not supported; convert the file with: ffmpeg -i IN OUT.wav"
                ) from error
            reason = getattr(error, "error_string", str(error)).rstrip(".")
            raise InputError(f"{self.name}: cannot be read as audio: {reason}; supported formats: {_NAMES}") from error
        self._descriptor = stream.fileno()
        self.sample_rate, self.channels = self._sound.samplerate, self._sound.channels
        self.subtype = self._sound.subtype
        self.frames = self._sound.frames if 0 <= self._sound.frames < 2**48 else None
        check_shape(self.sample_rate, self.channels, self.name)

    def trim(self, start_s: float | None, end_s: float | None) -> None:
        """Restrict ``blocks`` and ``peek`` to the part between two times in seconds; None is the beginning or end."""
        self._trim = Trim(start_s, end_s, self.sample_rate, self.name)

    def blocks(self, frames: int = BLOCK) -> Iterator[NDArray[np.float32]]:
        """Yield all samples in blocks (C, T) of at most ``frames`` frames; iterate only once.

        Raises:
            InputError: If the recording cannot be read, or ends before the part that ``trim`` has set.
        """
        while self._peeked:
            yield self._peeked.popleft()
        yield from self._trim.cut(self._blocks(frames))

    def peek(self, seconds: float) -> Iterator[NDArray[np.float32]]:
        """Yield the first ``seconds`` in blocks (C, T) without consuming them: `blocks` yields them, too."""
        frames = seconds * self.sample_rate + self._trim.first
        for block in self._trim.cut(self._blocks(BLOCK)):
            self._peeked.append(block)
            yield block
            if self._done >= frames:
                return

    def _blocks(self, frames: int) -> Iterator[NDArray[np.float32]]:
        while (block := self._read(frames)).shape[1]:
            self._done += block.shape[1]
            yield block
        if not self._ended:
            self._ended = True
            self.warnings += self._wav.warnings if self._wav is not None else self._end_warnings()

    def _end_warnings(self) -> list[str]:
        """Warn if libsndfile reached the end too early."""
        if self._damaged:
            return []  # there is a warning already
        if self._head[:4] == b"OggS" and not _ogg_is_whole(self._descriptor):
            return [f"{self.name}: the end of the file is missing; it has {self._done} frames"]
        if self.frames is not None and self._done < self.frames:
            return [f"{self.name}: ends after {self._done} of the {self.frames} frames in its header"]
        return [] if self._done else [f"{self.name}: holds no samples"]

    def _read(self, frames: int) -> NDArray[np.float32]:
        if self._wav is not None:
            return self._wav.read(frames)
        blocks, count = [np.zeros((self.channels, 0), np.float32)], 0
        while count < frames and (block := self._read_sound(min(frames - count, _READ_FRAMES), count)).shape[1]:
            blocks.append(block)
            count += block.shape[1]
        return np.concatenate(blocks, axis=1)

    def _read_sound(self, frames: int, offset: int) -> NDArray[np.float32]:
        """Read ``frames`` frames with libsndfile, ``offset`` frames after those yielded; none after damage."""
        assert self._sound is not None
        nothing = np.zeros((self.channels, 0), np.float32)
        if self._damaged:
            return nothing
        try:
            block = self._sound.read(frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            self._damaged = True
            at, reason = (self._done + offset) / self.sample_rate, error.error_string.rstrip(".")
            self.warnings.append(f"{self.name}: damaged at {at:.1f} s ({reason}); everything after that is lost")
            return nothing
        return np.ascontiguousarray(block.T, np.float32)

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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _ogg_is_whole(descriptor: int) -> bool:
    """Return whether an Ogg file ends with a complete page that is marked as the last: libsndfile does not check."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, _OGG_PAGE_BYTES, max(0, size - _OGG_PAGE_BYTES))
    page = tail[max(0, tail.rfind(b"OggS")) :]
    return len(page) > 26 and bool(page[5] & 4) and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])


def read_mono(path: Path, sample_rate: int) -> tuple[NDArray[np.float32], int, list[str]]:
    """Read a whole recording into memory, as the mean of its channels.

    Args:
        path: The file.
        sample_rate: Hz of the result.

    Returns:
        (T,) float32, the sample rate of the file in Hz, and warnings about damage.

    Raises:
        InputError: If the file cannot be read.
    """
    with AudioReader(path) as reader:
        resampler = Resampler(reader.sample_rate, sample_rate, 1)
        blocks = [resampler.push(block.mean(0, keepdims=True, dtype=np.float32)) for block in reader.blocks()]
        blocks.append(resampler.push(np.zeros((1, 0), np.float32), last=True))
    wave: NDArray[np.float32] = np.concatenate(blocks, axis=1)[0]
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
        blocks = [resampler.push(block) for block in reader.blocks()]
        blocks.append(resampler.push(np.zeros((reader.channels, 0), np.float32), last=True))
    return np.concatenate(blocks, axis=1)


def codecs() -> tuple[str, list[str]]:
    """Return the version of libsndfile, and the formats it was built with."""
    return soundfile.__libsndfile_version__, sorted(soundfile.available_formats())
