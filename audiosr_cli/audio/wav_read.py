"""Reading WAV: RIFF, RIFX, RF64 and WAVEX headers, files and pipes, past 4 GiB, in blocks.

libsndfile refuses pipes and trusts wrong sizes. A WAV file is a header and samples, so this module reads both.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.wav import EXTENSIBLE, FLOAT, GUID_TAIL, PCM, WavFormat, check_shape
from audiosr_cli.errors import InputError

_STREAMING_BYTES = 0x7FFFF000  # what SoX writes as the size of the data chunk of a stream, rounded down to whole frames
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
_MAX_FMT_BYTES = 4096
_SKIP_BYTES = 1 << 16


class CodecError(InputError):
    """A WAV file whose samples are neither PCM nor IEEE float; libsndfile may be able to read it."""


class WavReader:
    """Read a WAV stream in blocks.

    Args:
        stream: At its first byte; it need not be seekable.
        name: For messages.

    Attributes:
        format: The sample format.
        frames: Samples of each channel according to the header; None if the header leaves that open.
        warnings: What is wrong with the file; complete at its end.

    Raises:
        InputError: If the header is damaged or implausible.
        CodecError: If the samples are neither PCM nor float.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.stream, self.name, self.warnings = stream, name, list[str]()
        self._ahead = b""  # bytes of samples that have been read already
        self.format, size = self._header()
        self._padded = (size or 0) % 2  # a padding byte follows an odd size
        self._remaining = size  # bytes that remain of the data chunk; None: up to the end of the stream
        self.frames = None if size is None else size // self.format.frame_bytes
        self._read_any = False

    def _exact(self, count: int) -> bytes:
        data = self.stream.read(count)
        if len(data) < count:
            raise InputError(f"{self.name}: the WAV header ends after {len(data)} of {count} bytes of a field")
        return data

    def _skip(self, count: int) -> None:
        while count > 0:
            skipped = len(self.stream.read(min(count, _SKIP_BYTES)))
            if not skipped:
                raise InputError(f"{self.name}: a WAV chunk claims {count} bytes more than the file has")
            count -= skipped

    def _header(self) -> tuple[WavFormat, int | None]:
        """Read up to the first sample; returns the format, and the size of the data chunk in bytes if it is known."""
        magic = self._exact(12)
        if magic[:4] not in (b"RIFF", b"RIFX", b"RF64") or magic[8:] != b"WAVE":
            raise InputError(f"{self.name}: not a WAV file (it starts with {magic[:4]!r})")
        order = ">" if magic[:4] == b"RIFX" else "<"
        wav_format: WavFormat | None = None
        size_64: int | None = None
        while True:
            head = self.stream.read(8)
            if len(head) < 8:
                missing = "data" if wav_format else "fmt"
                raise InputError(f"{self.name}: a WAV file without a {missing!r} chunk")
            tag, size = head[:4], struct.unpack(order + "I", head[4:])[0]
            if tag == b"data":
                break
            body = min(size, _MAX_FMT_BYTES) if tag in (b"fmt ", b"ds64") else 0
            content = self._exact(body)
            if tag == b"fmt ":
                wav_format = _parse_format(content, order, self.name)
            elif tag == b"ds64" and len(content) >= 24:
                size_64 = struct.unpack("<Q", content[8:16])[0]
            self._skip(size - body + size % 2)
        if wav_format is None:
            raise InputError(f"{self.name}: a WAV file without a 'fmt' chunk before its samples")
        if size == 0xFFFFFFFF:
            return wav_format, size_64 or None
        if _STREAMING_BYTES - wav_format.frame_bytes < size <= _STREAMING_BYTES:
            return wav_format, None
        if size == 0:  # the writer was interrupted, or there are no samples
            self._ahead = self.stream.read(4)
            if self._ahead and self._ahead not in _CHUNKS_AFTER_DATA:
                self.warnings.append(f"{self.name}: there are samples, but none according to the header; all are read")
                return wav_format, None
        return wav_format, size

    def read(self, frames: int) -> NDArray[np.float32]:
        """Read up to ``frames`` frames: (C, T) float32, full scale 1.0; T is 0 at the end."""
        width = self.format.frame_bytes
        size = frames * width if self._remaining is None else min(frames * width, self._remaining)
        data = self._ahead + _read_fully(self.stream, size - len(self._ahead)) if size else b""
        self._ahead = b""
        if self._remaining is not None:
            self._remaining -= len(data)
            if size and not self._remaining and len(data) == size:
                self._check_after_data()
            if len(data) < size:
                self.warnings.append(
                    f"{self.name}: ends {self._remaining / width:.0f} frames earlier than its header says"
                )
                self._remaining = 0
        if len(data) % width:
            self.warnings.append(f"{self.name}: ends within a frame; the last {len(data) % width} bytes are ignored")
            data = data[: len(data) - len(data) % width]
        if not data and not self._read_any:
            self.warnings.append(f"{self.name}: holds no samples")
        self._read_any = True
        return _decode(data, self.format)

    def _check_after_data(self) -> None:
        """Warn if more samples seem to follow than the header says; not for pipes, as this reads on."""
        if not self.stream.seekable():
            return
        self.stream.read(self._padded)
        head = self.stream.read(8)
        if len(head) == 8 and head[:4] not in _CHUNKS_AFTER_DATA and not head[:4].isalnum():
            self.warnings.append(f"{self.name}: more data follow than its header says; they are ignored")


def _read_fully(stream: BinaryIO, count: int) -> bytes:
    """Read ``count`` bytes, fewer only at the end: one read of a pipe may return fewer."""
    pieces = []
    while count > 0 and (piece := stream.read(count)):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def _parse_format(content: bytes, order: str, name: str) -> WavFormat:
    if len(content) < 16:
        raise InputError(f"{name}: the WAV format chunk has {len(content)} bytes; it must have at least 16")
    codec, channels, rate, _, _, bits = struct.unpack(order + "HHIIHH", content[:16])
    if codec == EXTENSIBLE and len(content) >= 40 and content[26:40] == GUID_TAIL:
        codec = struct.unpack(order + "H", content[24:26])[0]
    check_shape(rate, channels, name)
    if codec not in (PCM, FLOAT):
        raise CodecError(f"{name}: WAV codec {codec:#06x} is neither PCM nor float")
    stored = -(-bits // 8) * 8  # 12 valid bits are left-justified in 16
    if stored not in ((32, 64) if codec == FLOAT else (8, 16, 24, 32)):
        raise InputError(
            f"{name}: {bits}-bit samples are not supported; expected PCM of 8 to 32 bits, or float of 32 or 64"
        )
    return WavFormat(rate, channels, stored, codec == FLOAT, order == ">")


def _decode(data: bytes, wav_format: WavFormat) -> NDArray[np.float32]:
    order = ">" if wav_format.big_endian else "<"
    if wav_format.is_float:
        flat = np.frombuffer(data, f"{order}f{wav_format.bits // 8}").astype(np.float32)
    elif wav_format.bits == 8:
        flat = (np.frombuffer(data, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
    elif wav_format.bits == 24:
        byte = np.frombuffer(data, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(byte), 4), np.uint8)
        wide[:, 1:] = byte[:, ::-1] if wav_format.big_endian else byte
        flat = (wide.view("<i4").ravel() >> 8).astype(np.float32) / np.float32(2**23)
    else:
        flat = np.frombuffer(data, f"{order}i{wav_format.bits // 8}").astype(np.float32) / np.float32(
            2 ** (wav_format.bits - 1)
        )
    return np.ascontiguousarray(flat.reshape(-1, wav_format.channels).T)
