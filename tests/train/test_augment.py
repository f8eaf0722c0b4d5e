"""train/augment.py: noise floors have their level and slope, equalisers their range, and silence stays silent."""

from __future__ import annotations

import math

import pytest
import torch
from corpora import generator
from torch import Tensor

from audiosr_cli.errors import UsageError
from audiosr_cli.train import augment
from audiosr_cli.train.augment import Augmentation

RATE, LENGTH = 48000, 48000


def plain(count: int = 1, **changes: Tensor) -> dict[str, Tensor]:
    """Parameters that change nothing, but for ``changes``."""
    off = augment.draw(Augmentation(), count, generator())
    return off | changes


def spectrum_db(wave: Tensor, low: float, high: float) -> float:
    power = torch.fft.rfft(wave)[..., int(low) : int(high)].abs().square()  # bins of 1 Hz
    return 10 * math.log10(float(power.mean()))


def test_nothing_changes_without_augmentation() -> None:
    waves = torch.randn(3, LENGTH, generator=generator())
    torch.testing.assert_close(augment.render(waves, plain(3), RATE), waves, rtol=0, atol=1e-5)
    assert not Augmentation().active
    assert Augmentation(noise_prob=0.1).active and Augmentation(equalizer_prob=0.1).active


@pytest.mark.parametrize("slope", [-3.0, 0.0, 3.0])
def test_noise_has_its_level_and_slope(slope: float) -> None:
    """Its level is relative to the recording's own."""
    tone = 0.1 * torch.sin(torch.arange(LENGTH) * 2 * math.pi * 500 / RATE)[None]
    params = plain(noise_db=torch.tensor([-30.0]), noise_slope_db=torch.tensor([slope]))
    noise = augment.render(tone, params, RATE) - tone
    level = 10 * math.log10(float(noise.square().mean() / tone.square().mean()))
    assert level == pytest.approx(-30.0, abs=0.3)
    octave = spectrum_db(noise, 9000, 11000) - spectrum_db(noise, 4500, 5500)
    assert octave == pytest.approx(slope, abs=0.3)
    assert spectrum_db(noise, 22000, 24000) > spectrum_db(noise, 9000, 11000) - 10  # up to the top


def test_noise_is_drawn_anew_and_silence_stays_silent() -> None:
    waves = torch.cat([0.1 * torch.randn(2, LENGTH, generator=generator()), torch.zeros(1, LENGTH)])
    always = Augmentation(noise_prob=1.0)
    first, second = (augment.render(waves, augment.draw(always, 3, generator(seed)), RATE) - waves for seed in (1, 2))
    assert (first[:2].square().mean(1) > 0).all() and first[2].abs().max() == 0
    assert float(torch.corrcoef(torch.stack([first[0], first[1], second[0]])).triu(1).abs().max()) < 0.05


def test_equalisers_stay_within_their_range_and_are_smooth() -> None:
    impulse = torch.zeros(16, LENGTH)
    impulse[:, LENGTH // 2] = 1
    config = Augmentation(equalizer_prob=1.0, equalizer_db=6.0, tilt_db=0.0)
    output = augment.render(impulse, augment.draw(config, 16, generator()), RATE)
    level = 20 * torch.log10(torch.fft.rfft(output).abs())  # (16, F), bins of 1 Hz
    assert level.abs().max() <= 6.01 and level.abs().amax(1).min() > 1
    octaves = level[:, [500, 1000, 2000, 4000, 8000, 16000]]
    assert octaves.std(0).min() > 1  # a different one for each recording
    assert (level[:, 1001:] - level[:, 1000:-1]).abs().max() < 0.02  # dB a Hz
    tilted = augment.render(impulse[:1], plain(tilt_db=torch.tensor([2.0])), RATE)
    gain = 20 * torch.log10(torch.fft.rfft(tilted)[0].abs())
    assert float(gain[1000]) == pytest.approx(0, abs=1e-3) and float(gain[8000]) == pytest.approx(6, abs=1e-3)


def test_noise_passes_through_the_equaliser() -> None:
    tone = 0.1 * torch.sin(torch.arange(LENGTH) * 2 * math.pi * 1000 / RATE)[None]
    params = plain(noise_db=torch.tensor([-30.0]), noise_slope_db=torch.zeros(1))
    flat, tilted = (augment.render(tone, params | {"tilt_db": torch.tensor([t])}, RATE) for t in (0.0, 3.0))
    assert spectrum_db(tilted, 7900, 8100) - spectrum_db(flat, 7900, 8100) == pytest.approx(9, abs=0.1)


def test_impossible_values_are_errors() -> None:
    with pytest.raises(UsageError, match=r"noise_prob = 1\.5"):
        Augmentation(noise_prob=1.5)
    with pytest.raises(UsageError, match="noise_db"):
        Augmentation(noise_db=(-40.0, -60.0))
