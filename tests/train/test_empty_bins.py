"""train/empty_bins.py: what a codec emptied is found and filled, and nothing else is touched."""

from __future__ import annotations

import math

import torch
from corpora import generator
from torch import Tensor

from audiosr_cli.dsp.spectra import low_pass, power_spectrogram
from audiosr_cli.train.empty_bins import empty_bins, fill_empty_bins

RATE, LENGTH = 48000, 48000


def decoded(waves: Tensor) -> Tensor:
    """Waveforms as a corpus has them: rounded to 16 bits."""
    return (waves * 32768).round() / 32768


def narrow(cutoff: float, level: float = 0.01) -> Tensor:
    """White noise (1, T) that ends at ``cutoff``."""
    noise = level * torch.randn(1, LENGTH, generator=generator(1))
    return decoded(low_pass(noise, torch.tensor([cutoff]), torch.tensor([0.01]), RATE))


def level_db(wave: Tensor, low: float, high: float) -> float:
    """Mean power of a waveform (1, T) between two frequencies in Hz, without the ends of the crop."""
    power = power_spectrogram(wave, 2048, 512)[0, round(low / RATE * 2048) : round(high / RATE * 2048), 6:-6]
    return 10 * math.log10(float(power.mean()))


def test_bins_without_content_are_empty() -> None:
    empty = empty_bins(narrow(18000.0))[0, :, 6:-6].float().mean(1)
    frequency = torch.linspace(0, RATE / 2, len(empty))
    assert empty[frequency < 17500].max() == 0
    assert empty[frequency > 18500].mean() > 0.99


def test_the_noise_floor_goes_on_at_its_level() -> None:
    wave = narrow(18000.0)
    filled = fill_empty_bins(wave, RATE, generator())
    own = level_db(wave, 14000, 17500)
    for low in (18500, 20000, 22000):
        assert abs(level_db(filled, low, low + 1500) - own) < 1
        assert level_db(wave, low, low + 1500) < own - 30
    assert abs(level_db(filled, 1000, 17000) - level_db(wave, 1000, 17000)) < 0.01


def test_the_level_is_that_of_the_frame() -> None:
    wave = narrow(18000.0)
    wave[:, LENGTH // 2 :] /= 8
    filled = fill_empty_bins(decoded(wave), RATE, generator())
    early, late = filled[:, : LENGTH // 2], filled[:, LENGTH // 2 :]
    assert abs(level_db(early, 20000, 23000) - level_db(late, 20000, 23000) - 20 * math.log10(8)) < 1


def test_recordings_that_end_low_and_full_ones_are_left_alone() -> None:
    full = decoded(0.01 * torch.randn(1, LENGTH, generator=generator(1)))
    for wave in (narrow(8000.0), full, torch.zeros(1, LENGTH)):
        change = (fill_empty_bins(wave, RATE, generator()) - wave).abs()
        assert change[:, 4096:-4096].max() < 1e-6 and change.max() < 1e-4  # frames at the ends mirror the crop


def test_pauses_that_somebody_muted_stay_silent() -> None:
    wave = narrow(18000.0)
    wave[:, 12000:36000] = 0
    filled = fill_empty_bins(wave, RATE, generator())
    assert filled[:, 15000:33000].abs().max() < 1e-6
    assert abs(level_db(filled[:, :11000], 20000, 23000) - level_db(wave[:, :11000], 14000, 17000)) < 1
