"""audio/coding.py: what comes back from a codec is in place, as long, and as wide as the codec."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import noise
from numpy.typing import NDArray

from audiosr_cli.audio.coding import CODINGS, code, has_coding
from audiosr_cli.errors import UsageError

pytest.importorskip("av")
RATE, LENGTH = 48000, 48000


def voice() -> NDArray[np.float32]:
    """A gliding harmonic tone in bursts, with noise up to the top: (T,)."""
    time = np.arange(LENGTH) / RATE
    phase = 2 * np.pi * (120 * time + 20 * time**2)
    tone = sum(np.sin(k * phase) / k for k in range(1, 25)) * (np.sin(2 * np.pi * 4 * time) > -0.3)
    return (0.1 * tone + 0.02 * noise(LENGTH, seed=5)[0]).astype(np.float32)


def middle(wave: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 to 2.5 kHz, which all codecs keep, with its phase."""
    spectrum = np.fft.rfft(wave)
    spectrum[:1000], spectrum[2500:] = 0, 0  # bins of 1 Hz
    return np.fft.irfft(spectrum, len(wave))


def level_db(wave: NDArray[np.float32], low_hz: int, high_hz: int) -> float:
    power = np.abs(np.fft.rfft(wave * np.hanning(LENGTH))[low_hz:high_hz]) ** 2  # bins of 1 Hz
    return float(10 * np.log10(power.mean() + 1e-12))


@pytest.mark.parametrize("name", CODINGS)
def test_coding_keeps_place_and_length(name: str) -> None:
    if not has_coding(name):
        pytest.skip("this FFmpeg has no such encoder")
    wave, coding = voice(), CODINGS[name]
    output = code(wave, RATE, name, coding.rates[0], coding.bit_rates[-1])
    assert output.shape == wave.shape and output.dtype == np.float32
    assert not np.array_equal(output, wave)
    similarity = [
        float(np.corrcoef(middle(wave)[4800:-4800], np.roll(middle(output), shift)[4800:-4800])[0, 1])
        for shift in (-6, 0, 6)  # an eighth of a millisecond
    ]
    assert similarity[1] == max(similarity) > 0.7
    nyquist = min(coding.rates[0], RATE) // 2
    if nyquist < 20000:
        assert level_db(output, nyquist + 300, 23000) < level_db(wave, nyquist + 300, 23000) - 20


def test_low_bit_rates_lose_the_highs() -> None:
    wave = voice()
    lost = [
        level_db(code(wave, RATE, "mp3", 48000, rate), 14000, 15000) - level_db(wave, 14000, 15000)
        for rate in (32000, 96000)
    ]
    assert lost[0] < -20 < -5 < lost[1]


def test_what_an_encoder_refuses_is_an_error() -> None:
    with pytest.raises(UsageError, match="codec opus at 44100 Hz"):
        code(voice(), RATE, "opus", 44100, 24000)
