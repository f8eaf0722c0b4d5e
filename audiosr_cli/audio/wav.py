"""WAV by our own hand: RIFF, RIFX, RF64 and WAVEX headers, from files and pipes, past 4 GiB.

libsndfile refuses pipes, trusts sizes that lie and writes broken files past 4 GiB; a WAV file is a header
and samples, so this reads and writes both in blocks, and never more than was asked for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.errors import InputError

MAX_CHANNELS = 64
RATES = range(1_000, 768_001)

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_GUID_TAIL = bytes.fromhex("0000 0000 1000 8000 00aa 0038 9b71")
_STREAMING_BYTES = 0x7FFFF000  # what sox leaves in the data chunk's size, rounded down to whole frames
_CHUNKS_BEHIND = {
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
_DS64_BYTES = 28
_MAX_FMT_BYTES = 4096
_SKIP_BYTES = 1 << 16


class CodecError(InputError):
    """A WAV file whose samples are neither PCM nor IEEE float: libsndfile may know it."""


@dataclass(frozen=True)
class WavFormat:
    """How samples lie in a WAV file; ``bits`` is 8, 16, 24 or 32 (PCM), 32 or 64 (float)."""

    sample_rate: int
    channels: int
    bits: int
    is_float: bool = False
    big_endian: bool = False

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return self.channels * self.bits // 8

    @property
    def subtype(self) -> str:
        """Libsndfile's name for it."""
        if self.is_float:
            return "FLOAT" if self.bits == 32 else "DOUBLE"
        return "PCM_U8" if self.bits == 8 else f"PCM_{self.bits}"


def check_shape(sample_rate: int, channels: int, name: str) -> None:
    """Raise InputError unless rate (Hz) and channel count are ones that audio has."""
    if sample_rate not in RATES:
        allowed = f"{RATES.start} to {RATES.stop - 1} Hz"
        raise InputError(f"{name}: a sample rate of {sample_rate} Hz; {allowed} can be read")
    if not 1 <= channels <= MAX_CHANNELS:
        raise InputError(f"{name}: {channels} channels; 1 to {MAX_CHANNELS} can be read")


class WavReader:
    """Samples of a WAV stream in blocks; ``stream`` need not be seekable and stands at its first byte.

    ``frames`` is what the header promises, None where it leaves that open; ``warnings`` fills while
    reading. Raises InputError on a header that cannot be believed, CodecError on other encodings.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.stream, self.name, self.warnings = stream, name, list[str]()
        self._ahead = b""  # read already, and part of the samples
        self.format, size = self._header()
        self._padded = (size or 0) % 2  # a byte after an odd number of them
        self.left = size  # bytes of the data chunk still to come; None: to the end
        self.frames = None if size is None else size // self.format.frame_bytes
        self._read_any = False

    def _exact(self, count: int) -> bytes:
        data = self.stream.read(count)
        if len(data) < count:
            raise InputError(f"{self.name}: the WAV header ends after {len(data)} of {count} bytes of a field")
        return data

    def _skip(self, count: int) -> None:
        while count > 0:
            got = len(self.stream.read(min(count, _SKIP_BYTES)))
            if not got:
                raise InputError(f"{self.name}: a WAV chunk claims {count} bytes more than the file has")
            count -= got

    def _header(self) -> tuple[WavFormat, int | None]:
        """The format, and the size of the data chunk in bytes; leaves the stream at the first sample."""
        magic = self._exact(12)
        if magic[:4] not in (b"RIFF", b"RIFX", b"RF64") or magic[8:] != b"WAVE":
            raise InputError(f"{self.name}: not a WAV file (it starts with {magic[:4]!r})")
        order = ">" if magic[:4] == b"RIFX" else "<"
        form: WavFormat | None = None
        size_64: int | None = None
        while True:
            head = self.stream.read(8)
            if len(head) < 8:
                missing = "data" if form else "fmt"
                raise InputError(f"{self.name}: a WAV file without a {missing!r} chunk")
            tag, size = head[:4], struct.unpack(order + "I", head[4:])[0]
            if tag == b"data":
                break
            body = min(size, _MAX_FMT_BYTES) if tag in (b"fmt ", b"ds64") else 0
            content = self._exact(body)
            if tag == b"fmt ":
                form = _parse_format(content, order, self.name)
            elif tag == b"ds64" and len(content) >= 24:
                size_64 = struct.unpack("<Q", content[8:16])[0]
            self._skip(size - body + size % 2)
        if form is None:
            raise InputError(f"{self.name}: a WAV file without a 'fmt' chunk before its samples")
        if size == 0xFFFFFFFF:
            return form, size_64 or None
        if _STREAMING_BYTES - form.frame_bytes < size <= _STREAMING_BYTES:
            return form, None
        if size == 0:  # a writer that was stopped, or nothing but other chunks
            self._ahead = self.stream.read(4)
            if self._ahead and self._ahead not in _CHUNKS_BEHIND:
                self.warnings.append(f"{self.name}: its header promises no samples, but there are some: all are read")
                return form, None
        return form, size

    def read(self, frames: int) -> NDArray[np.float32]:
        """Up to ``frames`` frames as (C, T) float32, full scale 1.0; none (T = 0) at the end."""
        width = self.format.frame_bytes
        want = frames * width if self.left is None else min(frames * width, self.left)
        data = self._ahead + _read_fully(self.stream, want - len(self._ahead)) if want else b""
        self._ahead = b""
        if self.left is not None:
            self.left -= len(data)
            if want and not self.left and len(data) == want:
                self._check_behind()
            if len(data) < want:
                self.warnings.append(f"{self.name}: ends {self.left / width:.0f} frames before what its header says")
                self.left = 0
        if len(data) % width:
            self.warnings.append(f"{self.name}: ends within a frame; the last {len(data) % width} bytes are dropped")
            data = data[: len(data) - len(data) % width]
        if not data and not self._read_any:
            self.warnings.append(f"{self.name}: holds no samples")
        self._read_any = True
        return _decode(data, self.format)

    def _check_behind(self) -> None:
        """Warn where more samples seem to follow than the header promises; of pipes nothing is read for that."""
        if not self.stream.seekable():
            return
        self.stream.read(self._padded)
        behind = self.stream.read(8)
        if len(behind) == 8 and behind[:4] not in _CHUNKS_BEHIND and not behind[:4].isalnum():
            self.warnings.append(f"{self.name}: something follows the samples that its header promises: it is left out")


def _read_fully(stream: BinaryIO, count: int) -> bytes:
    """``count`` bytes, fewer only at the end: raw pipes hand out what they have."""
    pieces = []
    while count > 0 and (piece := stream.read(count)):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def _parse_format(content: bytes, order: str, name: str) -> WavFormat:
    if len(content) < 16:
        raise InputError(f"{name}: the WAV format chunk has {len(content)} bytes; 16 are the least")
    codec, channels, rate, _, _, bits = struct.unpack(order + "HHIIHH", content[:16])
    if codec == _EXTENSIBLE and len(content) >= 40 and content[26:40] == _GUID_TAIL:
        codec = struct.unpack(order + "H", content[24:26])[0]
    check_shape(rate, channels, name)
    if codec not in (_PCM, _FLOAT):
        raise CodecError(f"{name}: WAV codec {codec:#06x} is neither PCM nor float")
    stored = -(-bits // 8) * 8  # 12 valid bits lie left-justified in 16
    if stored not in ((32, 64) if codec == _FLOAT else (8, 16, 24, 32)):
        raise InputError(f"{name}: {bits}-bit samples; PCM of 8 to 32 bits and float of 32 or 64 can be read")
    return WavFormat(rate, channels, stored, codec == _FLOAT, order == ">")


def _decode(data: bytes, form: WavFormat) -> NDArray[np.float32]:
    order = ">" if form.big_endian else "<"
    if form.is_float:
        flat = np.frombuffer(data, f"{order}f{form.bits // 8}").astype(np.float32)
    elif form.bits == 8:
        flat = (np.frombuffer(data, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
    elif form.bits == 24:
        byte = np.frombuffer(data, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(byte), 4), np.uint8)
        wide[:, 1:] = byte[:, ::-1] if form.big_endian else byte
        flat = (wide.view("<i4").ravel() >> 8).astype(np.float32) / np.float32(2**23)
    else:
        flat = np.frombuffer(data, f"{order}i{form.bits // 8}").astype(np.float32) / np.float32(2 ** (form.bits - 1))
    return np.ascontiguousarray(flat.reshape(-1, form.channels).T)


def header(form: WavFormat, frames: int | None) -> bytes:
    """A WAV header, always of the same length for one format; little-endian.

    ``frames`` None leaves the sizes open (0xFFFFFFFF) for pipes. Past 4 GiB the JUNK chunk becomes ds64
    and the file RF64 (EBU Tech 3306). More than two channels, or more than 16 bits, make it WAVEX.
    """
    codec = _FLOAT if form.is_float else _PCM
    extensible = form.channels > 2 or (form.bits > 16 and not form.is_float)
    rate, width = form.sample_rate, form.frame_bytes
    fmt = struct.pack("<HHIIHH", codec, form.channels, rate, rate * width, width, form.bits)
    if extensible:
        fmt = struct.pack("<H", _EXTENSIBLE) + fmt[2:] + struct.pack("<HHIH", 22, form.bits, 0, codec) + _GUID_TAIL
    elif form.is_float:
        fmt += struct.pack("<H", 0)
    data = 0xFFFFFFFF if frames is None else frames * width
    rest = 12 + 8 + _DS64_BYTES + 8 + len(fmt) + 12 * form.is_float + 8
    total = rest - 8 + data + data % 2
    huge = frames is not None and total > 0xFFFFFFFF
    if huge:
        size_chunk = b"ds64" + struct.pack("<IQQQI", _DS64_BYTES, total, data, frames, 0)
    else:
        size_chunk = b"JUNK" + struct.pack("<I", _DS64_BYTES) + bytes(_DS64_BYTES)
    capped = 0xFFFFFFFF if huge or frames is None else total
    parts = [b"RF64" if huge else b"RIFF", struct.pack("<I", capped), b"WAVE", size_chunk]
    parts += [b"fmt ", struct.pack("<I", len(fmt)), fmt]
    if form.is_float:
        parts += [b"fact", struct.pack("<II", 4, min(frames if frames is not None else 0xFFFFFFFF, 0xFFFFFFFF))]
    parts += [b"data", struct.pack("<I", min(data, 0xFFFFFFFF))]
    return b"".join(parts)


def encode(samples: NDArray[np.float32] | NDArray[np.int32], form: WavFormat) -> bytes:
    """Samples (C, T) as bytes: integers in units of the last bit for PCM, floats for float; no scaling."""
    flat = np.ascontiguousarray(samples.T).ravel()
    if form.is_float:
        return flat.astype(f"<f{form.bits // 8}").tobytes()
    if form.bits == 24:
        return np.ascontiguousarray(flat.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3]).tobytes()
    return flat.astype(f"<i{form.bits // 8}").tobytes()


class WavWriter:
    """Writes blocks to ``stream``; where it can seek, ``close`` puts the true sizes into the header."""

    def __init__(self, stream: BinaryIO, form: WavFormat, seekable: bool) -> None:
        assert not form.big_endian and (form.is_float or form.bits in (16, 24, 32))
        self.stream, self.format, self.seekable, self.frames = stream, form, seekable, 0
        stream.write(header(form, 0 if seekable else None))

    def write(self, samples: NDArray[np.float32] | NDArray[np.int32]) -> None:
        """Append samples (C, T), quantised already."""
        self.stream.write(encode(samples, self.format))
        self.frames += samples.shape[1]

    def close(self) -> None:
        """Pad to an even size and patch the header; the stream stays open."""
        if self.seekable:
            if self.frames * self.format.frame_bytes % 2:
                self.stream.write(b"\0")
            self.stream.seek(0)
            self.stream.write(header(self.format, self.frames))
        self.stream.flush()
