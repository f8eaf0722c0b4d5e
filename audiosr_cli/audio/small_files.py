"""Small files for large corpora: mono recordings as Ogg Opus or Ogg Vorbis, and the bandwidth of these codecs."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from audiosr_cli.audio.read import AudioReader

OPUS_RATES = (8000, 12000, 16000)  # Hz; Opus also takes 24 and 48 kHz, but its band ends at 20 kHz
_OPUS_LOWEST, _OPUS_SPAN = 6000, 250_000  # bit/s; libsndfile's compression levels 1 to 0 are linear between them
_BLOCK = 1 << 16  # frames; one very long Vorbis write overflows libsndfile's stack
_PASSES_DB = -6.0  # the band of a codec ends where it passes less of white noise than this


@dataclass(frozen=True)
class Codec:
    """How to encode: ``strength`` is bit/s for Opus, the quality from 0 to 1 for Vorbis."""

    name: Literal["opus", "vorbis"]
    strength: float

    @property
    def suffix(self) -> str:
        """The usual file suffix."""
        return ".opus" if self.name == "opus" else ".ogg"

    @property
    def level(self) -> float:
        """The compression level of libsndfile, from 0 for the largest to 1 for the smallest files."""
        if self.name == "vorbis":
            return 1 - self.strength
        return min(1.0, max(0.0, 1 - (self.strength - _OPUS_LOWEST) / _OPUS_SPAN))


def encode(path: Path, wave: NDArray[np.float32], sample_rate: int, codec: Codec) -> int:
    """Write a mono recording, clipped to full scale, as an Ogg file.

    Args:
        path: The file to write.
        wave: (T,), full scale is ±1.
        sample_rate: Hz; Opus takes those in ``OPUS_RATES``.
        codec: How to encode.

    Returns:
        The bytes written.
    """
    with soundfile.SoundFile(
        path, "w", sample_rate, 1, format="OGG", subtype=codec.name.upper(), compression_level=codec.level
    ) as file:
        for start in range(0, len(wave), _BLOCK):
            file.write(np.clip(wave[start : start + _BLOCK], -1, 1))
    return path.stat().st_size


def probe(path: Path) -> tuple[int, float]:
    """Read the header of a recording.

    Args:
        path: The file.

    Returns:
        The sample rate in Hz, and the duration in seconds; 0 if the header does not state it.

    Raises:
        InputError: If the file cannot be read.
    """
    with AudioReader(path) as reader:
        return reader.encoded_rate, (reader.frames or 0) / reader.sample_rate


@cache
def bandwidth(codec: Codec, sample_rate: int) -> float:
    """Measure the bandwidth of a codec with white noise.

    Args:
        codec: How to encode.
        sample_rate: Hz of the recording.

    Returns:
        The upper end of the band in Hz, 0 if nothing passes.
    """
    noise = (0.1 * np.random.default_rng(0).standard_normal(2 * sample_rate)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"noise{codec.suffix}"
        encode(path, noise, sample_rate, codec)
        decoded = soundfile.read(path, dtype="float32")[0][: len(noise)]
    gains = _powers(decoded) / _powers(noise[: len(decoded)])
    passed = np.nonzero(gains >= 10 ** (_PASSES_DB / 10))[0]
    return float((passed.max() + 1) / len(gains) * sample_rate / 2) if len(passed) else 0.0


def _powers(wave: NDArray[Any]) -> NDArray[np.float64]:
    """Compute the power of ``wave`` (T,) in 100 bands of equal width."""
    power = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
    width = len(power) // 100
    return np.asarray(power[: 100 * width].reshape(100, width).sum(1), np.float64)
