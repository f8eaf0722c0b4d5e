"""Reading WAV: RIFF, RIFX, RF64 and WAVEX headers, files and pipes, past 4 GiB, in blocks.

libsndfile refuses pipes and trusts wrong sizes. A WAV file is a header and samples, so this module reads both.
"""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.decoders.conform import Conformer
from audiosr_cli.audio.decoders.wav_samples import CodecError, decode, has_low_bits, parse_format
from audiosr_cli.audio.wav import (
    MAGICS,
    OPEN_SIZE,
    STREAMED_SIZE,
    WavFormat,
)
from audiosr_cli.errors import InputError

_CHUNKS_AFTER_DATA = {
    b"LIST",
    b"bext",
    b"id3 ",
    b"ID3 ",
    b"cue ",
    b"smpl",
    b"iXML",
    b"JUNK",
    b"junk",
    b"PAD ",
    b"fact",
    b"PEAK",
    b"_PMX",
}
_OTHER_MAGIC = (b"fLaC", b"FORM", b"OggS", b"ID3\2", b"ID3\3", b"ID3\4")  # no chunk of WAV: of files joined by cat
_JOINT = re.compile(rb"(?:RIFF|RIFX|RF64|BW64)....WAVE(?:fmt |JUNK|junk|ds64|bext|LIST|fact)", re.DOTALL)
_JOINT_BYTES = 15  # of a joint, less one
_MAX_FMT_BYTES = 4096
_SKIP_BYTES = 1 << 16


class ByteStream(Protocol):
    """What is read from."""

    def read(self, count: int, /) -> bytes:
        """Return up to ``count`` bytes; none at the end."""


class WavReader:
    """Read a WAV stream in blocks. Where files were joined, one after the other, all of them are read, as they are.

    Args:
        stream: At its first byte; it need not be seekable.
        name: For messages.

    Attributes:
        format: The sample format, of what has been read last.
        frames: Samples of each channel according to the first header; None if it leaves that open.
        warnings: What is wrong with the file; complete at its end.

    Raises:
        InputError: If the header is damaged or implausible.
        CodecError: If the samples are neither PCM nor float.
    """

    def __init__(self, stream: ByteStream, name: str) -> None:
        self.stream, self.name, self.warnings = stream, name, list[str]()
        self._ahead = b""  # bytes after the header that have been read already
        self.format, size = self._header(self._exact(12))
        self._padded = (size or 0) % 2  # a padding byte follows an odd size
        self._remaining = size  # bytes that remain of the data chunk; None: up to the end of the stream
        self.frames = None if size is None else size // self.format.frame_bytes
        self._done = 0  # frames read
        self._ended = False
        self._low_bits: bool | None = None  # where the bits of samples are in wider containers; None: not known yet
        self._next_format: WavFormat | None = None  # of the file that follows

    def read(self, frames: int) -> NDArray[np.float32]:
        """Read up to ``frames`` frames: (C, T) float32, full scale 1.0; T is 0 at the end."""
        block = self._block(frames)
        while not block.shape[1] and not self._ended:
            block = self._block(frames)
        self._done += block.shape[1]
        if not block.shape[1] and not self._done and not any("no samples" in line for line in self.warnings):
            self.warnings.append(f"{self.name}: holds no samples")
        return block

    def close(self) -> None:
        """Do nothing: the stream is the caller's."""

    def _block(self, frames: int) -> NDArray[np.float32]:
        """Read up to ``frames`` frames of one data chunk; at its end go on to the next, if there is one."""
        if self._next_format is not None:
            self.format, self._next_format, self._low_bits = self._next_format, None, None
        if self._ended:
            return decode(b"", self.format)
        width = self.format.frame_bytes
        size = frames * width if self._remaining is None else min(frames * width, self._remaining)
        data = self._take(size)
        if self._remaining is None:
            data, joined = self._split(data)
            self._ended = not joined and len(data) < size
            if joined:
                self._join()
        else:
            self._remaining -= len(data)
            if len(data) < size:
                missing = self._remaining / width
                self.warnings.append(f"{self.name}: ends {missing:.0f} frames earlier than its header says")
                self._remaining, self._ended = 0, True
            elif not self._remaining:
                self._after_data()
        if len(data) % width:
            self.warnings.append(f"{self.name}: ends within a frame; the last {len(data) % width} bytes are ignored")
            data = data[: len(data) - len(data) % width]
        return self.decode(data)

    def _take(self, count: int) -> bytes:
        """Read ``count`` bytes, fewer only at the end."""
        data, self._ahead = self._ahead[:count], self._ahead[count:]
        return data + _read_fully(self.stream, count - len(data))

    def _split(self, data: bytes) -> tuple[bytes, bool]:
        """Cut ``data``, of a data chunk of unknown size, where another WAV file begins."""
        if data:
            self._ahead = self._take(_JOINT_BYTES) + self._ahead
        joint = _JOINT.search(data + self._ahead[:_JOINT_BYTES])
        if joint is None or joint.start() >= len(data):
            return data, False
        self._ahead = data[joint.start() :] + self._ahead
        return data[: joint.start()], True

    def _after_data(self) -> None:
        """Go on after a data chunk: chunks are skipped, another file is read, anything else is reported."""
        self._take(self._padded)
        self._ended = True
        while len(head := self._take(8)) == 8:
            if head[:4] in MAGICS:
                self._ahead = head + self._ahead
                self._join()
                return
            if head.startswith(_OTHER_MAGIC):
                kind = head[:4].decode("ascii", "replace").strip("\0\3\4")
                self.warnings.append(f"{self.name}: another file ({kind}) follows its samples; only the first is read")
                return
            if head[:4] not in _CHUNKS_AFTER_DATA and not head[:4].isalnum():
                if any(head):
                    self.warnings.append(f"{self.name}: more data follow than its header says; they are ignored")
                return
            size = int.from_bytes(head[4:], "big" if self.format.big_endian else "little")
            if head[:4] == b"data":
                self._remaining, self._padded, self._ended = size, size % 2, False
                return
            try:
                self._skip(size + size % 2)
            except InputError:  # the samples are there
                return

    def _join(self) -> None:
        """Go on with the samples of another WAV file that begins here; its format counts from the next block on."""
        self._ended = True
        try:
            wav_format, size = self._header(self._take(12))
        except CodecError as error:
            self.warnings.append(
                f"{self.name}: another WAV file follows its first, with samples of codec {error.codec:#06x}; "
                "only the first is read"
            )
            return
        except InputError:
            self.warnings.append(f"{self.name}: what follows its samples is a damaged WAV header; it is ignored")
            return
        if wav_format != self.format:
            self._next_format = wav_format
        self._remaining, self._padded, self._ended = size, (size or 0) % 2, False

    def _exact(self, count: int) -> bytes:
        data = self._take(count)
        if len(data) < count:
            raise InputError(f"{self.name}: the WAV header ends after {len(data)} of {count} bytes of a field")
        return data

    def _skip(self, count: int) -> None:
        while count > 0:
            skipped = len(self._take(min(count, _SKIP_BYTES)))
            if not skipped:
                raise InputError(f"{self.name}: a WAV chunk claims {count} bytes more than the file has")
            count -= skipped

    def _header(self, magic: bytes) -> tuple[WavFormat, int | None]:
        """Read from the first 12 bytes up to the first sample; return the format and the data's bytes, if known."""
        if magic[:4] not in MAGICS or magic[8:] != b"WAVE":
            raise InputError(f"{self.name}: not a WAV file (it starts with {magic[:4]!r})")
        order = ">" if magic[:4] == b"RIFX" else "<"
        wav_format: WavFormat | None = None
        size_64: int | None = None
        while True:
            head = self._take(8)
            if len(head) < 8:
                missing = "data" if wav_format else "fmt"
                raise InputError(f"{self.name}: a WAV file without a {missing!r} chunk")
            tag, size = head[:4], struct.unpack(order + "I", head[4:])[0]
            if tag == b"data":
                break
            body = min(size, _MAX_FMT_BYTES) if tag in (b"fmt ", b"ds64") else 0
            content = self._exact(body)
            if tag == b"fmt ":
                wav_format = parse_format(content, order, self.name)
            elif tag == b"ds64" and len(content) >= 24:
                size_64 = struct.unpack("<Q", content[8:16])[0]
            self._skip(size - body + size % 2)
        if wav_format is None:
            raise InputError(f"{self.name}: a WAV file without a 'fmt' chunk before its samples")
        return wav_format, self._data_bytes(size, size_64, wav_format)

    def _data_bytes(self, size: int, size_64: int | None, wav_format: WavFormat) -> int | None:
        """Return the size of the data chunk, or None if the header leaves it open."""
        if size == OPEN_SIZE:
            return size_64 or None
        if STREAMED_SIZE - wav_format.frame_bytes < size <= STREAMED_SIZE:
            return None
        if size == 0:  # the writer was interrupted, or there are no samples
            following = self._take(4)
            self._ahead = following + self._ahead
            if following and following not in _CHUNKS_AFTER_DATA and following not in MAGICS:
                self.warnings.append(f"{self.name}: there are samples, but none according to the header; all are read")
                return None
        return size

    def decode(self, data: bytes) -> NDArray[np.float32]:
        """Decode the samples of whole frames."""
        if not self.format.sample_bytes:
            return decode(data, self.format)
        wide = replace(self.format, bits=8 * self.format.sample_bytes, sample_bytes=0)
        if self._low_bits is None and any(data):
            self._low_bits = has_low_bits(data, self.format)
        samples = decode(data, wide)
        # Exact: a power of two.
        return samples * np.float32(2 ** (wide.bits - self.format.bits)) if self._low_bits else samples


def _read_fully(stream: ByteStream, count: int) -> bytes:
    """Read ``count`` bytes, fewer only at the end: one read of a pipe may return fewer."""
    pieces = []
    while count > 0 and (piece := stream.read(count)):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


class WavDecoder(WavReader):
    """Decode a WAV stream: a `WavReader` with the attributes of all decoders, and one format throughout.

    Attributes:
        sample_rate: Hz.
        channels: Number of channels.
        subtype: libsndfile's name of the sample type.
        notes: Always empty.
    """

    def __init__(self, stream: ByteStream, name: str) -> None:
        super().__init__(stream, name)
        self.sample_rate, self.channels = self.format.sample_rate, self.format.channels
        self.subtype, self.notes = self.format.subtype, list[str]()
        self._conformer: Conformer | None = None  # from the first change on
        self._complete = False  # whether the conformer has all

    def read(self, frames: int) -> NDArray[np.float32]:
        """Read up to ``frames`` frames: (C, T) float32, full scale 1.0; T is 0 at the end."""
        if self._conformer is None:
            before, block = self._done, super().read(frames)
            if (self.format.sample_rate, len(block)) == (self.sample_rate, self.channels):
                return block
            self._conformer = Conformer(self.sample_rate, self.channels, self.name)
            self._conformer.done = before
            self._conformer.push(block, self.format.sample_rate)
        while self._conformer.waiting < frames and not self._complete:
            self._conformer.push(super().read(frames), self.format.sample_rate)
            self._complete = self._ended
            if self._complete:
                self._conformer.finish()
                self.warnings += self._conformer.warnings
        return self._conformer.take(frames)
