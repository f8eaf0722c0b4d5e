"""dsp.py: known spectra and responses."""

from __future__ import annotations

import torch

from audiosr_cli.dsp import low_pass, power_spectrogram, stft


def test_power_of_a_tone() -> None:
    """A sine of amplitude 1 in the middle of a bin: (n_fft / 4)² there under a Hann window."""
    wave = torch.sin(2 * torch.pi * 32 / 512 * torch.arange(8192))
    power = power_spectrogram(wave, 512, 128)
    assert power.shape == (257, 65)
    torch.testing.assert_close(power[32, 10:-10], torch.full((45,), 128.0**2), rtol=1e-3, atol=0)


def test_gradient_at_silence_is_finite() -> None:
    wave = torch.zeros(4096, requires_grad=True)
    power_spectrogram(wave, 512, 128).clamp_min(1e-8).log10().sum().backward()
    assert wave.grad is not None
    assert torch.isfinite(wave.grad).all()


def test_low_pass_cuts_where_it_should() -> None:
    wave = torch.randn(2, 48000, generator=torch.Generator().manual_seed(0))
    made = low_pass(wave, torch.tensor([4000.0, 12000.0]), torch.tensor([0.1, 0.01]), 48000)
    spectrum, original = (torch.fft.rfft(x).abs() for x in (made, wave))
    for i, edge in enumerate((4000, 12000)):
        assert spectrum[i, edge + 1 :].max() < 1e-2
        torch.testing.assert_close(
            spectrum[i, 1 : edge * 89 // 100], original[i, 1 : edge * 89 // 100], rtol=1e-3, atol=0.05
        )


def test_batches_of_waves_are_as_each_alone() -> None:
    waves = torch.randn(2, 3, 2000, generator=torch.Generator().manual_seed(0))
    made = stft(waves, 256, 64)
    assert made.shape == (2, 3, 129, 32)
    torch.testing.assert_close(made[1, 2], stft(waves[1, 2], 256, 64))
