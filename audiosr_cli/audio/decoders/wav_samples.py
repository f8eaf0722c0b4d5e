"""The format chunk of WAV files, and their samples as floats."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.wav import EXTENSIBLE, FLOAT, GUID_TAIL, PCM, WavFormat, check_shape
from audiosr_cli.errors import InputError


class CodecError(InputError):
    """A WAV file whose samples are neither PCM nor IEEE float; other decoders may be able to read it.

    Attributes:
        codec: The format tag.
    """

    def __init__(self, message: str, codec: int) -> None:
        super().__init__(message)
        self.codec = codec


def parse_format(content: bytes, order: str, name: str) -> WavFormat:
    """Parse a format chunk.

    Args:
        content: Its bytes.
        order: "<" for little-endian numbers, ">" for big-endian ones.
        name: Of the file, for errors.

    Raises:
        InputError: If the format is damaged or implausible.
        CodecError: If the samples are neither PCM nor float.
    """
    if len(content) < 16:
        raise InputError(f"{name}: the WAV format chunk has {len(content)} bytes; it must have at least 16")
    codec, channels, rate, byte_rate, block, bits = struct.unpack(order + "HHIIHH", content[:16])
    if codec == EXTENSIBLE and len(content) >= 40 and content[26:40] == GUID_TAIL:
        codec = struct.unpack(order + "H", content[24:26])[0]
    check_shape(rate, channels, name)
    if codec not in (PCM, FLOAT):
        raise CodecError(f"{name}: WAV codec {codec:#06x} is neither PCM nor float", codec)
    stored = -(-bits // 8) * 8  # 12 valid bits are left-justified in 16
    if stored not in ((32, 64) if codec == FLOAT else (8, 16, 24, 32)):
        raise InputError(
            f"{name}: {bits}-bit samples are not supported; expected PCM of 8 to 32 bits, or float of 32 or 64"
        )
    wider = container_bytes(block, byte_rate, rate, channels) if codec == PCM else 0
    sample_bytes = wider if wider > stored // 8 else 0
    return WavFormat(rate, channels, stored, codec == FLOAT, order == ">", sample_bytes=sample_bytes)


def container_bytes(block: int, byte_rate: int, sample_rate: int, channels: int) -> int:
    """Return the bytes of a sample according to the block alignment; 0 if that is not to be believed."""
    # nBlockAlign decides where a frame ends (RIFF 1.0, "WAVE Format": samples are in containers of whole bytes, the
    # valid bits at the top, zeros below). Headers that lie in it, or leave it empty, contradict their own byte rate.
    width = block // channels
    consistent = block == width * channels and (not byte_rate or byte_rate == block * sample_rate)
    return width if consistent and width in (2, 3, 4) else 0


def has_low_bits(data: bytes, wav_format: WavFormat) -> bool:
    """Return whether samples are at the bottom of their containers, against the specification."""
    # libsndfile ignores the alignment and reads noise, FFmpeg takes 24 bits in 32 for a float format of Cool Edit. We
    # follow the specification, but some recorders extend the sign instead: then the lowest byte is in use, which is
    # zero otherwise, and the highest only repeats the sign.
    array = np.frombuffer(data, np.uint8).reshape(-1, wav_format.sample_bytes)
    array = array[:, ::-1] if wav_format.big_endian else array
    used = wav_format.bits // 8
    sign = np.where(array[:, used - 1] & 0x80, 0xFF, 0)
    return bool(array[:, 0].any() and (array[:, used:] == sign[:, None]).all())


def decode(data: bytes, wav_format: WavFormat) -> NDArray[np.float32]:
    """Decode whole frames to (C, T) float32, full scale 1.0."""
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
