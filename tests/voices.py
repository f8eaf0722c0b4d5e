"""Noise that comes and goes like speech, full-band or band-limited, for tests of what changes within a recording."""

from __future__ import annotations

import numpy as np
from conftest import noise


def talk(seconds: float, cutoff_hz: float | None = None, sample_rate: int = 48000, seed: int = 0) -> np.ndarray:
    """Four syllables a second with a spectrum that falls as that of speech does, (1, T) float32.

    Args:
        seconds: Length.
        cutoff_hz: Frequency above which there is nothing; None for full band.
        sample_rate: Hz.
        seed: Of the random numbers.
    """
    wave = noise(round(seconds * sample_rate), 1, 1.0, seed)[0]
    spectrum = np.fft.rfft(wave)
    frequency = np.fft.rfftfreq(len(wave), 1 / sample_rate)
    spectrum /= 1 + (frequency / 500) ** 1.3
    if cutoff_hz is not None:
        spectrum[frequency > cutoff_hz] = 0
    syllables = 0.02 + np.sin(4 * np.pi * np.arange(len(wave)) / sample_rate) ** 2
    wave = np.fft.irfft(spectrum, len(wave)) * syllables
    if cutoff_hz is not None:  # the syllables have spread the spectrum a little
        spectrum = np.fft.rfft(wave)
        spectrum[frequency > cutoff_hz] = 0
        wave = np.fft.irfft(spectrum, len(wave))
    return (0.05 / np.std(wave) * wave[None]).astype(np.float32)


def turns(*parts: tuple[float, float | None], sample_rate: int = 48000, floor: float = 1e-5) -> np.ndarray:
    """People who speak in turns, each for so many seconds up to a cutoff in Hz, over a noise floor: (1, T) float32."""
    voices = [talk(seconds, cutoff, sample_rate, seed) for seed, (seconds, cutoff) in enumerate(parts)]
    wave = np.concatenate(voices, axis=1)
    return wave + noise(wave.shape[1], 1, floor, 99)
