"""DC, rumble and hum are removed from speech, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from audiosr_cli.dsp.hum import HumFilter, InterferenceFilter, LowCut

Samples = NDArray[np.float32]
RATE = 16000
MIXTURE = Path(__file__).parents[2] / "examples" / "two_speakers.wav"


@pytest.fixture(scope="module")
def speech() -> Samples:
    wave, rate = soundfile.read(MIXTURE, dtype="float32", frames=5 * RATE)
    assert rate == RATE
    return filtered(LowCut, wave[None])  # so that nothing below the voice is missed after the filter


def filtered(kind: type[LowCut] | type[HumFilter], wave: Samples, block: int = 4000, rate: int = RATE) -> Samples:
    stream = kind(rate, len(wave))
    pieces = [stream.push(wave[:, i : i + block]) for i in range(0, wave.shape[1], block)]
    return np.concatenate([*pieces, stream.push(wave[:, :0], last=True)], axis=1)


def tones(frames: int, *frequencies: float, rate: int = RATE) -> Samples:
    time = np.arange(frames) / rate
    wave = sum(np.cos(2 * np.pi * f * time + f) for f in frequencies)
    return np.asarray(wave, np.float32)[None]


def level_db(wave: Samples, reference: Samples) -> float:
    """The level of ``wave`` below that of ``reference``, in dB; both without their ends."""
    inner = slice(RATE // 10, -RATE // 10)
    return float(10 * np.log10(np.square(wave[:, inner]).mean() / np.square(reference[:, inner]).mean() + 1e-20))


@pytest.mark.parametrize("kind", [LowCut, HumFilter])
@pytest.mark.parametrize("frames", [0, 1, 2, 700, 1160, 16384, 31999, 32001, 70000])
def test_length_is_exact_and_blocks_do_not_matter(kind: type[LowCut] | type[HumFilter], frames: int) -> None:
    wave = np.random.default_rng(0).standard_normal((2, 70000)).astype(np.float32)[:, :frames]
    whole = filtered(kind, wave, 100000)
    assert whole.shape == wave.shape
    np.testing.assert_array_equal(filtered(kind, wave, 1013), whole)


@pytest.mark.parametrize("wave", [np.full((1, 20000), 0.05, np.float32), tones(48000, 15.0), tones(48000, 2.0)])
def test_dc_and_rumble_are_gone(wave: Samples) -> None:
    assert level_db(filtered(LowCut, wave), wave) < -40


@pytest.mark.parametrize("rumble_db", [-12.0, -30.0])
def test_rumble_as_recordings_have_it_is_unchanged(speech: Samples, rumble_db: float) -> None:
    rumble = tones(speech.shape[1], 15.0)
    wave = speech + rumble * np.float32(speech.std() / rumble.std() * 10 ** (rumble_db / 20))
    np.testing.assert_array_equal(filtered(LowCut, wave), wave)


def test_loud_rumble_that_ends_is_cut_without_a_step(speech: Samples) -> None:
    rumble = tones(speech.shape[1], 15.0) * np.float32(0.3)
    rumble[:, RATE:] = 0
    output = filtered(LowCut, speech + rumble)
    assert level_db((output - speech)[:, : RATE - 2000], rumble[:, : RATE - 2000]) < -30
    assert np.abs(np.diff(output - speech))[:, RATE + 2000 :].max() < 1e-3


def test_low_cut_has_no_step_at_the_ends_of_an_offset() -> None:
    assert np.abs(filtered(LowCut, np.full((1, 5000), 0.5, np.float32))).max() < 1e-5


@pytest.mark.parametrize("frequency", [85.0, 120.0, 1000.0, 7900.0])
def test_voices_pass_the_low_cut(frequency: float) -> None:
    wave = tones(48000, frequency)
    assert level_db(filtered(LowCut, wave) - wave, wave) < -40


@pytest.mark.parametrize("mains", [50.0, 50.1, 49.8, 60.0, 59.9])
def test_hum_is_removed_with_its_harmonics(speech: Samples, mains: float) -> None:
    hum = tones(speech.shape[1], *(k * mains for k in range(1, 9)))
    hum *= speech.std() / hum.std()
    output = filtered(HumFilter, speech + hum)
    assert level_db(output - speech, hum) < -18


def test_hum_that_starts_late_is_removed(speech: Samples) -> None:
    wave = np.tile(speech, 3)
    hum = tones(wave.shape[1], 50.0, 150.0) * np.float32(0.1)
    hum[:, : 7 * RATE] = 0
    stretch = slice(9 * RATE, None)
    assert level_db((filtered(HumFilter, wave + hum) - wave)[:, stretch], hum[:, stretch]) < -18


def test_speech_without_hum_is_unchanged(speech: Samples) -> None:
    np.testing.assert_array_equal(filtered(HumFilter, speech), speech)


def test_music_that_holds_a_tone_is_unchanged() -> None:
    wave = tones(8 * RATE, 200.0, 400.0, 600.0)
    np.testing.assert_array_equal(filtered(HumFilter, wave), wave)


def test_silence_is_unchanged() -> None:
    wave = np.zeros((1, 5 * RATE), np.float32)
    np.testing.assert_array_equal(filtered(HumFilter, wave), wave)


def test_channels_are_independent(speech: Samples) -> None:
    hum = speech + tones(speech.shape[1], 50.0)
    both = filtered(HumFilter, np.concatenate([speech, hum]))
    np.testing.assert_array_equal(both, np.concatenate([speech, filtered(HumFilter, hum)]))


def test_filter_reports_the_mains_frequency(speech: Samples) -> None:
    stream = HumFilter(RATE, 1)
    stream.push(speech)
    assert stream.mains_hz is None
    stream = HumFilter(RATE, 1)
    stream.push(speech + tones(speech.shape[1], 60.0, 180.0))
    assert stream.mains_hz == 60


def test_what_is_removed_is_returned() -> None:
    wave = np.random.default_rng(1).standard_normal((2, 50000)).astype(np.float32) + 1
    stream = InterferenceFilter(RATE, 2)
    pairs = [stream.push(wave[:, i : i + 7000], i + 7000 >= 50000) for i in range(0, 50000, 7000)]
    output, removed = (np.concatenate(parts, axis=1) for parts in zip(*pairs, strict=True))
    assert output.shape == removed.shape == wave.shape
    np.testing.assert_allclose(output + removed, wave, atol=1e-6)
    assert removed.mean() == pytest.approx(1, abs=0.02)
