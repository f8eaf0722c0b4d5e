"""Writing WAV: RIFF, RF64 and WAVEX headers, files and pipes, past 4 GiB, in blocks.

libsndfile refuses pipes and writes broken files past 4 GiB. A WAV file is a header and samples, so this module writes
both.
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

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
GUID_TAIL = bytes.fromhex("0000 0000 1000 8000 00aa 0038 9b71")
_DS64_BYTES = 28


@dataclass(frozen=True)
class WavFormat:
    """The sample format of a WAV file.

    Attributes:
        sample_rate: Hz.
        channels: Number of channels.
        bits: Bits a sample: 8, 16, 24 or 32 (PCM), 32 or 64 (float).
        is_float: Whether samples are IEEE floats.
        big_endian: Whether the file is RIFX.
        sample_bytes: Bytes that a sample occupies, where they are more than it has bits; 0: no more.
    """

    sample_rate: int
    channels: int
    bits: int
    is_float: bool = False
    big_endian: bool = False
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
    codec = FLOAT if wav_format.is_float else PCM
    extensible = wav_format.channels > 2 or (wav_format.bits > 16 and not wav_format.is_float)
    rate, width = wav_format.sample_rate, wav_format.frame_bytes
    fmt = struct.pack("<HHIIHH", codec, wav_format.channels, rate, rate * width, width, wav_format.bits)
    if extensible:
        fmt = struct.pack("<H", EXTENSIBLE) + fmt[2:] + struct.pack("<HHIH", 22, wav_format.bits, 0, codec) + GUID_TAIL
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
