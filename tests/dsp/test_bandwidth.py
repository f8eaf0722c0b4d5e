"""dsp/bandwidth.py: cutoffs of walls, slopes and codecs, and signals without a cutoff."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from audiosr_cli.audio.formats import choose_format
from audiosr_cli.audio.read import read_channels
from audiosr_cli.audio.write import AudioWriter
from audiosr_cli.dsp.bandwidth import BandMeter, cutoff

SECONDS = 4
EXAMPLES = Path(__file__).parents[2] / "examples"


def brown(sample_rate: int, seed: int = 0) -> NDArray[np.float32]:
    """Return noise (1, T) with a peak of 0.5 that falls by 6 dB an octave, about as speech does."""
    wave = np.random.default_rng(seed).standard_normal(SECONDS * sample_rate)
    spectrum = np.fft.rfft(wave)
    frequency = np.fft.rfftfreq(len(wave), 1 / sample_rate)
    filtered = np.fft.irfft(spectrum * 200 / np.maximum(frequency, 200), len(wave))
    return (0.5 * filtered / np.abs(filtered).max())[None].astype(np.float32)


def below(wave: NDArray[np.float32], cutoff: float, sample_rate: int, order: float = np.inf) -> NDArray[np.float32]:
    """Apply a Butterworth low-pass of this order, or a brick wall."""
    relative = np.fft.rfftfreq(wave.shape[1], 1 / sample_rate) / cutoff
    gain = (relative <= 1) if order == np.inf else (1 + relative ** (2 * order)) ** -0.5
    return np.fft.irfft(np.fft.rfft(wave) * gain, wave.shape[1]).astype(np.float32)


def chebyshev(wave: NDArray[np.float32], cutoff: float, sample_rate: int, order: int = 8) -> NDArray[np.float32]:
    """Apply a Chebyshev low-pass with 0.5 dB of ripple."""
    relative = np.fft.rfftfreq(wave.shape[1], 1 / sample_rate) / cutoff
    polynomial = np.cosh(order * np.arccosh(relative.astype(complex))).real
    return np.fft.irfft(np.fft.rfft(wave) / np.sqrt(1 + 0.122 * polynomial**2), wave.shape[1]).astype(np.float32)


def voice() -> NDArray[np.float32]:
    """Return noise (1, T) at 48 kHz like speech: sounds of 0.2 s with a tilt, formants and a level of their own."""
    draw, size = np.random.default_rng(4), 9600
    octaves = np.log2(np.maximum(np.fft.rfftfreq(size, 1 / 48000), 100) / 1000)
    wave = np.zeros(SECONDS * 48000)
    for start in range(0, len(wave) - size + 1, size // 2):
        tilt, level, formants = draw.uniform(-12, 3), draw.uniform(-20, 0), draw.uniform(-1, 4, 4)
        bumps = 12 * np.exp(-(((octaves[:, None] - formants) / 0.25) ** 2)).sum(1)
        spectrum = np.fft.rfft(draw.standard_normal(size)) * 10 ** ((level + tilt * octaves + bumps) / 20)
        wave[start : start + size] += np.hanning(size) * np.fft.irfft(spectrum, size)
    return (0.5 * wave / np.abs(wave).max())[None].astype(np.float32)


def dithered(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to 16 bits with triangular dither."""
    draw = np.random.default_rng(9)
    return (np.round(wave * 32767 + draw.random(wave.shape) - draw.random(wave.shape)) / 32768).astype(np.float32)


def cutoff_of(wave: NDArray[np.float32], sample_rate: int, block: int = 1 << 16) -> float | None:
    meter = BandMeter(sample_rate)
    for start in range(0, wave.shape[1], block):
        meter.push(wave[:, start : start + block])
    return meter.cutoff()


@pytest.mark.parametrize("cutoff", [2000, 4000, 8000, 12000, 16000, 20000])
@pytest.mark.parametrize("sample_rate", [16000, 44100, 48000, 96000])
@pytest.mark.parametrize("level", [1.0, 0.03])
def test_detects_brick_walls(cutoff: int, sample_rate: int, level: float) -> None:
    if cutoff > 0.46 * sample_rate:
        pytest.skip("the cutoff is above half the rate")
    wave = dithered(level * below(brown(sample_rate), cutoff, sample_rate))
    assert cutoff_of(wave, sample_rate) == pytest.approx(cutoff, rel=0.05)


@pytest.mark.parametrize("level_db", [-130, -140, -150, -160])
@pytest.mark.parametrize("edge", [2000, 8000])
def test_detects_walls_far_below_a_loud_low_band(edge: int, level_db: float) -> None:
    """As float recordings have them: rounding errors of the loud bins must not reach the quiet ones."""
    frequency = np.linspace(0, 24000, 2049)
    power = np.where(frequency < edge, 10 ** (level_db / 10), 1e-19) * np.random.default_rng(0).chisquare(20, 2049) / 20
    power[frequency < 300] = 10.0
    assert cutoff(power, 48000) == pytest.approx(edge, rel=0.05)


def test_detects_a_quiet_wall_in_a_float_recording_with_rumble() -> None:
    draw = np.random.default_rng(2000)
    rumble, quiet = (below(draw.standard_normal((1, SECONDS * 44100)), hz, 44100) for hz in (300, 2000))
    assert cutoff_of(0.5 * rumble / np.abs(rumble).max() + 1e-6 * quiet, 44100) == pytest.approx(2000, rel=0.05)


@pytest.mark.parametrize("order", [6, 8, 12])
@pytest.mark.parametrize("cutoff", [2000, 4000, 8000])
def test_detects_butterworth_slopes(cutoff: int, order: int) -> None:
    wave = dithered(below(brown(48000), cutoff, 48000, order))
    assert cutoff_of(wave, 48000) == pytest.approx(cutoff, rel=0.05)


@pytest.mark.parametrize("cutoff", [3400, 7000, 11000])
def test_detects_chebyshev_slopes_of_a_voice(cutoff: int) -> None:
    assert cutoff_of(dithered(chebyshev(voice(), cutoff, 48000)), 48000) == pytest.approx(cutoff, rel=0.05)


@pytest.mark.parametrize("cutoff", [4000, 8000])
def test_detects_butterworth_slopes_of_a_voice(cutoff: int) -> None:
    assert cutoff_of(dithered(below(voice(), cutoff, 48000, 10)), 48000) == pytest.approx(cutoff, rel=0.12)


def test_a_slope_counts_although_a_wall_lies_above_it() -> None:
    wave = below(below(voice(), 5000, 48000, 10), 20000, 48000)
    assert cutoff_of(wave, 48000) == pytest.approx(5000, rel=0.1)


@pytest.mark.parametrize("level", [1.0, 1e-3])
def test_a_voice_of_full_band_has_no_cutoff(level: float) -> None:
    assert (cutoff_of(level * voice(), 48000) or 0) > 20000
    assert (cutoff_of(dithered(level * voice()), 48000) or 0) > 20000


@pytest.mark.parametrize("edge", [3400, 8000])
def test_the_level_of_a_float_recording_does_not_matter(edge: int) -> None:
    wave = chebyshev(voice(), edge, 48000)
    assert cutoff_of(1e-3 * wave, 48000) == pytest.approx(cutoff_of(wave, 48000), rel=1e-3)


def test_sinking_into_the_noise_floor_is_no_cutoff() -> None:
    """Noise that falls by 18 dB an octave, into the dither at about 4 kHz; nothing tells of a wall at 12 kHz."""
    wave = brown(48000)
    steep = np.fft.rfft(wave) * (200 / np.maximum(np.fft.rfftfreq(wave.shape[1], 1 / 48000), 200)) ** 2
    wave = np.fft.irfft(steep, wave.shape[1])
    wave = (0.5 * wave / np.abs(wave).max()).astype(np.float32)
    assert cutoff_of(dithered(wave), 48000) == 24000
    assert cutoff_of(dithered(below(wave, 12000, 48000)), 48000) == 24000


@pytest.mark.parametrize(
    ("container", "kbits", "cutoff"),
    [
        ("mp3", 64, 11000),
        ("mp3", 128, 16500),
        ("mp3", 192, 18700),
        ("m4a", 64, 12500),
        ("opus", 64, 20000),
    ],
)
def test_detects_the_low_pass_of_codecs(container: str, kbits: int, cutoff: int, tmp_path: Path) -> None:
    sample_rate = 48000 if container == "opus" else 44100
    speech = soxr.resample(voice()[0], 48000, sample_rate)
    stereo = np.stack([speech, np.roll(speech, sample_rate // 2)]).astype(np.float32)
    output_format = choose_format(container, None, "", sample_rate, 2, 1000 * kbits)
    with AudioWriter(tmp_path / f"a.{container}", output_format) as writer:
        writer.write(stereo)
        writer.finish()
        writer.commit()
    coded = read_channels(tmp_path / f"a.{container}", sample_rate)
    assert cutoff_of(coded, sample_rate) == pytest.approx(cutoff, rel=0.05)


@pytest.mark.parametrize("low", [8000, 16000])
def test_detects_the_roll_off_of_a_resampler(low: int) -> None:
    wave = soxr.resample(brown(low)[0], low, 48000)[None]
    assert 0.9 * low / 2 < (cutoff_of(wave, 48000) or 0) < low / 2


@pytest.mark.parametrize("sample_rate", [8000, 16000, 44100, 48000])
def test_full_band_noise_has_no_cutoff_below_half_the_rate(sample_rate: int) -> None:
    assert cutoff_of(dithered(brown(sample_rate)), sample_rate) == sample_rate / 2


def test_detects_the_wall_above_the_shelf_of_a_codec() -> None:
    wave = brown(48000)
    frequency = np.fft.rfftfreq(wave.shape[1], 1 / 48000)
    shelf = np.where(frequency < 11000, 1, 0.2) * (frequency < 16000)
    filtered = np.fft.irfft(np.fft.rfft(wave) * shelf, wave.shape[1]).astype(np.float32)
    assert cutoff_of(dithered(filtered), 48000) == pytest.approx(16000, rel=0.05)


def test_a_gap_between_formants_is_no_cutoff() -> None:
    """Speech with a gap at 3 kHz, resampled to 8 kHz: its cutoff is that of the resampler."""
    wave, sample_rate = soundfile.read(EXAMPLES / "narrowband.wav", dtype="float32")
    assert (cutoff_of(wave[None], sample_rate) or 0) > 0.85 * sample_rate / 2


def test_silence_has_no_cutoff() -> None:
    assert cutoff_of(np.zeros((2, 96000), np.float32), 48000) is None
    assert cutoff_of(np.zeros((1, 0), np.float32), 48000) is None
    assert cutoff_of(np.full((1, 96000), 0.1, np.float32), 48000) is None  # direct current


def test_a_recording_shorter_than_a_frame_has_a_cutoff() -> None:
    wave = below(brown(48000), 8000, 48000)[:, :2000]
    assert cutoff_of(wave, 48000) == pytest.approx(8000, rel=0.1)


def test_block_size_does_not_change_the_cutoff() -> None:
    wave = below(np.concatenate([brown(48000), brown(48000, 1)]), 6000, 48000)
    assert len({cutoff_of(wave, 48000, block) for block in (977, 4096, 1 << 16, 1 << 20)}) == 1


def test_silence_between_words_does_not_hide_a_slope() -> None:
    """Words end in dither, as from a noise gate: the noise floor is looked for where there are words."""
    filtered = dithered(0.03 * below(voice(), 5000, 48000, 8))
    words = np.split(filtered, 20, axis=1)
    gaps = np.concatenate([np.concatenate([word, 0 * word], axis=1) for word in words], axis=1)
    assert cutoff_of(gaps, 48000) == pytest.approx(5000, rel=0.1)


def test_detecting_a_cutoff_on_the_way_changes_nothing() -> None:
    wave, asked, silent = chebyshev(voice(), 5000, 48000), BandMeter(48000), BandMeter(48000)
    for start in range(0, wave.shape[1], 50000):
        for meter in (asked, silent):
            meter.push(wave[:, start : start + 50000])
        asked.cutoff()
    assert asked.cutoff() == silent.cutoff()


def test_a_meter_does_not_grow_with_the_recording() -> None:
    meter, sizes = BandMeter(8000), []
    for _ in range(3):
        for _ in range(10):
            meter.push(brown(8000, len(sizes))[:, :31_000])
        sizes.append(len(pickle.dumps(meter)))
    assert max(sizes) < 300_000
    meter.push(np.tile(brown(8000), 100))
    assert len(pickle.dumps(meter)) < 300_000


def test_all_channels_count_and_each_can_have_a_meter() -> None:
    wide, narrow = brown(48000), below(brown(48000, 1), 6000, 48000)
    assert cutoff_of(np.concatenate([wide, narrow]), 48000) == 24000
    assert cutoff_of(narrow, 48000) == pytest.approx(6000, rel=0.05)
