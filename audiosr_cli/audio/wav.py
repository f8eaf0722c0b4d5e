"""Reading and writing WAV: RIFF, RIFX, RF64 and WAVEX headers, files and pipes, past 4 GiB.

libsndfile refuses pipes, trusts wrong sizes and writes broken files past 4 GiB. A WAV file is a header and samples, so
this module reads and writes both, in blocks.
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
_DS64_BYTES = 28
_MAX_FMT_BYTES = 4096
_SKIP_BYTES = 1 << 16


class CodecError(InputError):
    """A WAV file whose samples are neither PCM nor IEEE float; libsndfile may be able to read it."""


@dataclass(frozen=True)
class WavFormat:
    """The sample format of a WAV file.

    Attributes:
        sample_rate: Hz.
        channels: Number of channels.
        bits: Bits a sample: 8, 16, 24 or 32 (PCM), 32 or 64 (float).
        is_float: Whether samples are IEEE floats.
        big_endian: Whether the file is RIFX.
    """

    sample_rate: int
    channels: int
    bits: int
    is_float: bool = False
    big_endian: bool = False

    @property
    def frame_bytes(self) -> int:
        """The bytes of one frame: one sample of every channel."""
        return self.channels * self.bits // 8

    @property
    def subtype(self) -> str:
        """The name of the sample type in libsndfile."""
        if self.is_float:
            return "FLOAT" if self.bits == 32 else "DOUBLE"
        return "PCM_U8" if self.bits == 8 else f"PCM_{self.bits}"


def check_shape(sample_rate: int, channels: int, name: str) -> None:
    """Raise InputError unless the sample rate (Hz) and the number of channels are plausible for audio."""
    if sample_rate not in RATES:
        allowed = f"between {RATES.start} and {RATES.stop - 1} Hz"
        raise InputError(f"{name}: the sample rate is {sample_rate} Hz; it must be {allowed}")
    if not 1 <= channels <= MAX_CHANNELS:
        raise InputError(f"{name}: {channels} channels; the number must be between 1 and {MAX_CHANNELS}")


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
    if codec == _EXTENSIBLE and len(content) >= 40 and content[26:40] == _GUID_TAIL:
        codec = struct.unpack(order + "H", content[24:26])[0]
    check_shape(rate, channels, name)
    if codec not in (_PCM, _FLOAT):
        raise CodecError(f"{name}: WAV codec {codec:#06x} is neither PCM nor float")
    stored = -(-bits // 8) * 8  # 12 valid bits are left-justified in 16
    if stored not in ((32, 64) if codec == _FLOAT else (8, 16, 24, 32)):
        raise InputError(
            f"{name}: {bits}-bit samples are not supported; expected PCM of 8 to 32 bits, or float of 32 or 64"
        )
    return WavFormat(rate, channels, stored, codec == _FLOAT, order == ">")


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


def header(wav_format: WavFormat, frames: int | None) -> bytes:
    """Build a little-endian WAV header, which has the same length for every number of frames.

    Past 4 GiB the JUNK chunk becomes ds64 and the file RF64 (EBU Tech 3306). The header is WAVEX with more than two
    channels, or more than 16 bits of PCM.

    Args:
        wav_format: The sample format.
        frames: Samples of each channel; None leaves the sizes open (0xFFFFFFFF), for pipes.

    Returns:
        The bytes up to the first sample.
    """
    codec = _FLOAT if wav_format.is_float else _PCM
    extensible = wav_format.channels > 2 or (wav_format.bits > 16 and not wav_format.is_float)
    rate, width = wav_format.sample_rate, wav_format.frame_bytes
    fmt = struct.pack("<HHIIHH", codec, wav_format.channels, rate, rate * width, width, wav_format.bits)
    if extensible:
        fmt = (
            struct.pack("<H", _EXTENSIBLE) + fmt[2:] + struct.pack("<HHIH", 22, wav_format.bits, 0, codec) + _GUID_TAIL
        )
    elif wav_format.is_float:
        fmt += struct.pack("<H", 0)
    data = 0xFFFFFFFF if frames is None else frames * width
    header_bytes = 12 + 8 + _DS64_BYTES + 8 + len(fmt) + 12 * wav_format.is_float + 8
    total = header_bytes - 8 + data + data % 2
    huge = frames is not None and total > 0xFFFFFFFF
    if huge:
        size_chunk = b"ds64" + struct.pack("<IQQQI", _DS64_BYTES, total, data, frames, 0)
    else:
        size_chunk = b"JUNK" + struct.pack("<I", _DS64_BYTES) + bytes(_DS64_BYTES)
    capped = 0xFFFFFFFF if huge or frames is None else total
    chunks = [b"RF64" if huge else b"RIFF", struct.pack("<I", capped), b"WAVE", size_chunk]
    chunks += [b"fmt ", struct.pack("<I", len(fmt)), fmt]
    if wav_format.is_float:
        chunks += [b"fact", struct.pack("<II", 4, min(frames if frames is not None else 0xFFFFFFFF, 0xFFFFFFFF))]
    chunks += [b"data", struct.pack("<I", min(data, 0xFFFFFFFF))]
    return b"".join(chunks)


def encode(samples: NDArray[np.float32] | NDArray[np.int32], wav_format: WavFormat) -> bytes:
    """Encode samples (C, T), without scaling: integers in units of the last bit for PCM, floats for float."""
    flat = np.ascontiguousarray(samples.T).ravel()
    if wav_format.is_float:
        return flat.astype(f"<f{wav_format.bits // 8}").tobytes()
    if wav_format.bits == 24:
        return np.ascontiguousarray(flat.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3]).tobytes()
    return flat.astype(f"<i{wav_format.bits // 8}").tobytes()


class WavWriter:
    """Write a WAV stream in blocks.

    Args:
        stream: The file or pipe.
        wav_format: The sample format: little-endian PCM of 16, 24 or 32 bits, or float.
        seekable: Whether ``close`` can write the sizes into the header; otherwise they stay open.
    """

    def __init__(self, stream: BinaryIO, wav_format: WavFormat, seekable: bool) -> None:
        assert not wav_format.big_endian and (wav_format.is_float or wav_format.bits in (16, 24, 32))
        self.stream, self.format, self.seekable, self.frames = stream, wav_format, seekable, 0
        stream.write(header(wav_format, 0 if seekable else None))

    def write(self, samples: NDArray[np.float32] | NDArray[np.int32]) -> None:
        """Append quantised samples (C, T)."""
        self.stream.write(encode(samples, self.format))
        self.frames += samples.shape[1]

    def close(self) -> None:
        """Pad to an even size and write the sizes into the header; the stream stays open."""
        if self.seekable:
            if self.frames * self.format.frame_bytes % 2:
                self.stream.write(b"\0")
            self.stream.seek(0)
            self.stream.write(header(self.format, self.frames))
        self.stream.flush()
