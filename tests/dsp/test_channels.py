"""Calls with a voice in each channel are told from stereo recordings."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from audiosr_cli.dsp.channels import ChannelMeter

RATE = 8000
Voices = NDArray[np.float64]


def voices(seconds: float = 20.0, turns: bool = False) -> Voices:
    """Two noises (2, T) with the levels of speech: syllables, pauses, and turns if asked for."""
    rng = np.random.default_rng(0)
    frames = round(seconds * 10)
    levels = 10 ** (rng.uniform(-30, 0, (2, frames)) / 20)
    levels *= np.repeat(rng.random((2, frames // 10)) < 0.7, 10, axis=1)
    if turns:
        first = np.arange(frames) // 30 % 2 == 0
        levels *= np.stack([first, ~first])
    return np.repeat(levels, RATE // 10, axis=1) * rng.standard_normal((2, round(seconds * RATE))) * 0.1


def separate(wave: Voices, block: int = 4000) -> bool:
    meter = ChannelMeter(RATE)
    for i in range(0, wave.shape[1], block):
        meter.push(wave[:, i : i + block].astype(np.float32))
    return meter.hold_separate_voices()


def mixed(wave: Voices, leakage_db: float) -> Voices:
    return wave + 10 ** (leakage_db / 20) * wave[::-1]


@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("leakage_db", [-80.0, -25.0, -15.0])
@pytest.mark.parametrize("gain", [1.0, 0.2])
def test_calls_hold_separate_voices(turns: bool, leakage_db: float, gain: float) -> None:
    assert separate(mixed(voices(turns=turns), leakage_db) * [[1], [gain]])


@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("leakage_db", [0.0, -3.0])
def test_stereo_does_not(turns: bool, leakage_db: float) -> None:
    assert not separate(mixed(voices(turns=turns), leakage_db) * [[1], [0.5]])


def test_one_voice_in_one_channel_is_no_call() -> None:
    wave = voices()
    wave[1] = 1e-4 * np.random.default_rng(1).standard_normal(wave.shape[1])
    assert not separate(wave)


@pytest.mark.parametrize(
    "wave", [np.zeros((2, 0)), np.zeros((2, 16000)), np.full((2, 16000), np.nan), voices(1.0)[:, :4000]]
)
def test_little_or_nothing_is_no_call(wave: Voices) -> None:
    assert not separate(wave)


def test_block_size_does_not_matter() -> None:
    one, other = ChannelMeter(RATE), ChannelMeter(RATE)
    wave = voices(3.0).astype(np.float32)
    one.push(wave)
    for i in range(0, wave.shape[1], 333):
        other.push(wave[:, i : i + 333])
    np.testing.assert_allclose(np.concatenate(one._powers, 1), np.concatenate(other._powers, 1))
