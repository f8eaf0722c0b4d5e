"""dsp/spectra.py: known spectra and responses."""

from __future__ import annotations

import pytest
import torch

from audiosr_cli.dsp.spectra import _real_ends, constant, irfft, low_pass, power_spectrogram, stft


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
    for i, cutoff in enumerate((4000, 12000)):
        assert spectrum[i, cutoff + 1 :].max() < 1e-2
        torch.testing.assert_close(
            spectrum[i, 1 : cutoff * 89 // 100], original[i, 1 : cutoff * 89 // 100], rtol=1e-3, atol=0.05
        )


def test_batches_of_waves_are_as_each_alone() -> None:
    waves = torch.randn(2, 3, 2000, generator=torch.Generator().manual_seed(0))
    made = stft(waves, 256, 64)
    assert made.shape == (2, 3, 129, 32)
    torch.testing.assert_close(made[1, 2], stft(waves[1, 2], 256, 64))


def test_constants_are_made_once_and_serve_training_after_inference() -> None:
    calls = list[int]()

    @constant
    def ones(length: int, device: torch.device) -> torch.Tensor:
        calls.append(length)
        return torch.ones(length, device=device)

    device = torch.device("cpu")
    with torch.inference_mode():
        first = ones(3, device)
    assert ones(3, device) is first
    assert len(ones(4, device)) == 4
    assert calls == [3, 4]
    weight = torch.ones(3, requires_grad=True)
    (weight * first).sum().backward()  # fails for a tensor of inference
    assert weight.grad is not None


@pytest.mark.parametrize(("bins", "length", "zeros"), [(9, 16, [0, 8]), (8, 15, [0]), (5, 16, [0])])
def test_imaginary_parts_that_no_real_wave_has(bins: int, length: int, zeros: list[int]) -> None:
    factors = _real_ends(bins, length, torch.float32, torch.device("cpu"))
    assert factors[:, 0].tolist() == [1] * bins
    assert (factors[:, 1] == 0).nonzero().flatten().tolist() == zeros
    spectrum = torch.randn(bins, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    real = torch.view_as_complex(torch.view_as_real(spectrum) * factors)
    torch.testing.assert_close(irfft(real, length), irfft(spectrum, length))
