"""dsp/voicing.py: speech-like signals are voiced and vary in level; noise and steady tones are not or do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import noise, tone

from audiosr_cli.dsp.voicing import measure_voicing

RATE = 8000


def syllables(hz: float, frames: int = 16384) -> np.ndarray:
    """Harmonics of a pitch (1, T), three syllables a second."""
    time = np.arange(frames) / RATE
    harmonics = sum(np.sin(2 * np.pi * hz * k * time) / k for k in range(1, 9))
    return (0.1 * harmonics * (1 + np.cos(6 * np.pi * time)) ** 2)[None].astype(np.float32)


@pytest.mark.parametrize("hz", [80.0, 130.0, 380.0])
def test_syllables_are_voiced_and_vary_in_level(hz: float) -> None:
    measured = measure_voicing(torch.from_numpy(syllables(hz)), RATE)
    assert measured.voiced > 0.5
    assert measured.voiced_active > 0.9
    assert measured.level_spread_db > 6


def test_noise_is_not_voiced_and_a_steady_tone_has_one_level() -> None:
    waves = torch.from_numpy(np.concatenate([noise(16384), tone(16384, 200.0, RATE)]))
    measured = measure_voicing(waves, RATE)
    assert measured.voiced[0] < 0.05
    assert measured.voiced[1] > 0.95
    assert (measured.level_spread_db < 1).all()


def test_pauses_count_as_frames_but_not_as_active_ones() -> None:
    wave = torch.from_numpy(tone(16384, 200.0, RATE))
    wave[:, 8192:] = 0
    measured = measure_voicing(wave, RATE)
    assert measured.voiced.item() == pytest.approx(0.5, abs=0.02)
    assert measured.voiced_active.item() == pytest.approx(1.0, abs=0.05)


def test_silence_is_neither_voiced_nor_varied() -> None:
    measured = measure_voicing(torch.zeros(1, 16384), RATE)
    assert (measured.voiced, measured.voiced_active, measured.level_spread_db) == (0, 0, 0)
