"""audio/resample.py: exact length, no delay, equal samples for all block sizes."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
from conftest import noise, tone

from audiosr_cli.audio.resample import Resampler, resampled_length


def stream(wave: np.ndarray, in_rate: int, out_rate: int, block: int) -> np.ndarray:
    resampler = Resampler(in_rate, out_rate, len(wave))
    pieces = [resampler.push(wave[:, i : i + block]) for i in range(0, wave.shape[1], block)]
    return np.concatenate([*pieces, resampler.push(wave[:, :0], last=True)], axis=1)


@pytest.mark.parametrize("rates", [(44100, 48000), (8000, 48000), (48000, 16000), (44100, 8000), (16000, 16000)])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frames", [0, 1, 2, 999, 30011])
@pytest.mark.parametrize("block", [1, 509, 100000])
def test_stream_equals_one_call_on_the_whole(rates: tuple[int, int], channels: int, frames: int, block: int) -> None:
    if block == 1 and frames > 1000:
        block = 17
    wave = noise(frames, channels)
    output = stream(wave, *rates, block)
    assert output.shape[1] == resampled_length(frames, *rates)
    if frames:
        np.testing.assert_array_equal(output.T, soxr.resample(wave.T, *rates, quality="HQ"))


def test_no_delay_and_no_change_of_level() -> None:
    output = stream(tone(16000, 440, 16000), 16000, 44100, 333)
    np.testing.assert_allclose(output[:, 500:-500], tone(44100, 440, 44100)[:, 500:-500], atol=1e-4)


def test_length_is_rounded_in_integers() -> None:
    assert resampled_length(10**18 + 1, 3, 1) == (10**18 + 2) // 3
    assert [resampled_length(n, 2, 1) for n in range(4)] == [0, 1, 1, 2]
