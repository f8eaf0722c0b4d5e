"""Writing WAV: RIFF, RF64 and WAVEX headers, files and pipes, past 4 GiB, in blocks.

libsndfile refuses pipes and writes broken files past 4 GiB. A WAV file is a header and samples, so this module writes
both.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.errors import InputError

MAX_CHANNELS = 64
RATES = range(1_000, 768_001)

MAGICS = (b"RIFF", b"RIFX", b"RF64", b"BW64")
OPEN_SIZE = 0xFFFFFFFF  # of the data chunk: up to the end of the file, unless a ds64 chunk says more
STREAMED_SIZE = 0x7FFFF000  # the same from SoX, rounded down to whole frames
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
GUID_TAIL = bytes.fromhex("0000 0000 1000 8000 00aa 0038 9b71")
W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # of the GUIDs of its chunks, behind an id of four letters
W64_WAVE, W64_FMT, W64_DATA = (name + W64_TAIL for name in (b"wave", b"fmt ", b"data"))
_DS64_BYTES = 28
_USUAL_MASKS = {1: 0x4, 2: 0x3}  # mono is the centre, stereo is left and right


@dataclass(frozen=True)
class WavFormat:
    """The sample format of a WAV file.

    Attributes:
        sample_rate: Hz.
        channels: Number of channels.
        bits: Bits a sample: 8, 16, 24 or 32 (PCM), 32 or 64 (float).
        is_float: Whether samples are IEEE floats.
        big_endian: Whether the file is RIFX.
        channel_mask: The speaker position of each channel, one bit each; 0 leaves them open.
        sample_bytes: Bytes that a sample occupies, where they are more than it has bits; 0: no more.
    """

    sample_rate: int
    channels: int
    bits: int
    is_float: bool = False
    big_endian: bool = False
    channel_mask: int = 0
    sample_bytes: int = 0

    @property
    def frame_bytes(self) -> int:
        """The bytes of one frame: one sample of every channel."""
        return self.channels * (self.sample_bytes or self.bits // 8)

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


def _format_body(wav_format: WavFormat) -> bytes:
    """Return the body of the fmt chunk."""
    codec = FLOAT if wav_format.is_float else PCM
    unusual = wav_format.channel_mask not in (0, _USUAL_MASKS.get(wav_format.channels))
    extensible = wav_format.channels > 2 or (wav_format.bits > 16 and not wav_format.is_float) or unusual
    rate, width = wav_format.sample_rate, wav_format.frame_bytes
    fmt = struct.pack("<HHIIHH", codec, wav_format.channels, rate, rate * width, width, wav_format.bits)
    if extensible:
        extension = struct.pack("<HHIH", 22, wav_format.bits, wav_format.channel_mask, codec) + GUID_TAIL
        return struct.pack("<H", EXTENSIBLE) + fmt[2:] + extension
    return fmt + struct.pack("<H", 0) if wav_format.is_float else fmt


def header(wav_format: WavFormat, frames: int | None, chunks: bytes = b"") -> bytes:
    """Build a little-endian WAV header, which has the same length for every number of frames.

    Past 4 GiB the JUNK chunk becomes ds64 and the file RF64 (EBU Tech 3306). The header is WAVEX with more than two
    channels, more than 16 bits of PCM, or an unusual channel mask.

    Args:
        wav_format: The sample format.
        frames: Samples of each channel; None leaves the sizes open (0xFFFFFFFF), for pipes.
        chunks: Further chunks, which come before the samples.

    Returns:
        The bytes up to the first sample.
    """
    width, fmt = wav_format.frame_bytes, _format_body(wav_format)
    data = OPEN_SIZE if frames is None else frames * width
    header_bytes = 12 + 8 + _DS64_BYTES + 8 + len(fmt) + 12 * wav_format.is_float + 8
    total = header_bytes + len(chunks) - 8 + data + data % 2
    huge = frames is not None and total > 0xFFFFFFFF
    if huge:
        size_chunk = b"ds64" + struct.pack("<IQQQI", _DS64_BYTES, total, data, frames, 0)
    else:
        size_chunk = b"JUNK" + struct.pack("<I", _DS64_BYTES) + bytes(_DS64_BYTES)
    capped = 0xFFFFFFFF if huge or frames is None else total
    pieces = [b"RF64" if huge else b"RIFF", struct.pack("<I", capped), b"WAVE", size_chunk]
    pieces += [b"fmt ", struct.pack("<I", len(fmt)), fmt]
    if wav_format.is_float:
        pieces += [b"fact", struct.pack("<II", 4, min(frames if frames is not None else 0xFFFFFFFF, 0xFFFFFFFF))]
    pieces += [chunks, b"data", struct.pack("<I", min(data, 0xFFFFFFFF))]
    return b"".join(pieces)


def w64_header(wav_format: WavFormat, frames: int | None, chunks: bytes = b"") -> bytes:
    """Build the header of a Sony Wave64 file, as `header` does; sizes are never open, 0 stands for that."""
    fmt = w64_chunk(W64_FMT, _format_body(wav_format))
    data = 24 + (frames or 0) * wav_format.frame_bytes
    total = 40 + len(fmt) + len(chunks) + data + -data % 8
    head = W64_RIFF + struct.pack("<Q", total) + W64_WAVE + fmt + chunks
    return head + W64_DATA + struct.pack("<Q", data)


def w64_chunk(guid: bytes, body: bytes) -> bytes:
    """Return a chunk of a Wave64 file, padded to eight bytes."""
    return guid + struct.pack("<Q", 24 + len(body)) + body + bytes(-len(body) % 8)


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
        chunks: Further chunks, which come before the samples.
        make_header: `header`, or `w64_header` for Wave64, which must be seekable.
    """

    def __init__(
        self,
        stream: BinaryIO,
        wav_format: WavFormat,
        seekable: bool,
        chunks: bytes = b"",
        make_header: Callable[[WavFormat, int | None, bytes], bytes] = header,
    ) -> None:
        assert not wav_format.big_endian and (wav_format.is_float or wav_format.bits in (16, 24, 32))
        self.stream, self.format, self.seekable, self.frames = stream, wav_format, seekable, 0
        self._chunks, self._make_header = chunks, make_header
        self._alignment = 8 if make_header is w64_header else 2  # bytes
        stream.write(make_header(wav_format, 0 if seekable else None, chunks))

    def write(self, samples: NDArray[np.float32] | NDArray[np.int32]) -> None:
        """Append quantised samples (C, T)."""
        self.stream.write(encode(samples, self.format))
        self.frames += samples.shape[1]

    def close(self) -> None:
        """Pad the last chunk and write the sizes into the header; the stream stays open."""
        if self.seekable:
            self.stream.write(bytes(-self.frames * self.format.frame_bytes % self._alignment))
            self.stream.seek(0)
            self.stream.write(self._make_header(self.format, self.frames, self._chunks))
        self.stream.flush()
