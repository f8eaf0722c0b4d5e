"""conversation/activity.py: levels in frames of 10 ms, however the signal is cut into blocks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from conftest import noise

from audiosr_cli.conversation.activity import ActivityMeter


def levels(signal: np.ndarray, rate: int, tracks: int, block: int) -> np.ndarray:
    meter = ActivityMeter(rate, tracks)
    for start in range(0, signal.shape[1], block):
        meter.push(signal[:, start : start + block])
    return meter.levels()


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 16001])
@pytest.mark.parametrize("block", [1, 97, 4096, 10**6])
def test_levels_are_the_power_of_each_hundredth_of_a_second(rate: int, block: int) -> None:
    frames = rate // 4 + 3
    if block == 1:
        frames //= 8
    signal = noise(frames, 2)
    result = levels(signal, rate, 2, block)
    starts = [-(-k * rate // 100) for k in range(-(-frames * 100 // rate))] + [frames]
    expected = [[np.mean(np.square(row[a:b], dtype=np.float64)) for a, b in pairwise(starts)] for row in signal]
    np.testing.assert_allclose(result, 10 * np.log10(np.array(expected) + 1e-12), atol=1e-3)


def test_the_channels_of_a_track_are_averaged() -> None:
    signal = np.repeat(np.array([[0.1], [0.3], [0.0], [0.2]], np.float32), 1600, axis=1)
    expected = 10 * np.log10([(0.01 + 0.09) / 2, 0.04 / 2])
    np.testing.assert_allclose(levels(signal, 16000, 2, 500), np.tile(expected[:, None], 10), atol=1e-4)


def test_silence_and_nothing() -> None:
    assert levels(np.zeros((1, 320), np.float32), 16000, 1, 320) == pytest.approx(np.full((1, 2), -120.0), abs=1e-3)
    assert ActivityMeter(16000, 3).levels().shape == (3, 0)
