"""dsp/spectra.py: known spectra and responses."""

from __future__ import annotations

import pytest
import torch

from audiosr_cli.dsp.spectra import _real_ends, constant, irfft, low_pass, power_spectrogram, stft


def test_power_of_a_tone() -> None:
    """A sine of amplitude 1 at the centre of a bin has power (n_fft / 4)² there with a Hann window."""
    wave = torch.sin(2 * torch.pi * 32 / 512 * torch.arange(8192))
    power = power_spectrogram(wave, 512, 128)
    assert power.shape == (257, 65)
    torch.testing.assert_close(power[32, 10:-10], torch.full((45,), 128.0**2), rtol=1e-3, atol=0)


def test_gradient_at_silence_is_finite() -> None:
    wave = torch.zeros(4096, requires_grad=True)
    power_spectrogram(wave, 512, 128).clamp_min(1e-8).log10().sum().backward()
    assert wave.grad is not None
    assert torch.isfinite(wave.grad).all()


def test_low_pass_keeps_the_passband_and_removes_the_rest() -> None:
    wave = torch.randn(2, 48000, generator=torch.Generator().manual_seed(0))
    output = low_pass(wave, torch.tensor([4000.0, 12000.0]), torch.tensor([0.1, 0.01]), 48000)
    spectrum, original = (torch.fft.rfft(x).abs() for x in (output, wave))
    for i, cutoff in enumerate((4000, 12000)):
        assert spectrum[i, cutoff + 1 :].max() < 1e-2
        torch.testing.assert_close(
            spectrum[i, 1 : cutoff * 89 // 100], original[i, 1 : cutoff * 89 // 100], rtol=1e-3, atol=0.05
        )


def test_stft_of_a_batch_equals_that_of_each() -> None:
    waves = torch.randn(2, 3, 2000, generator=torch.Generator().manual_seed(0))
    output = stft(waves, 256, 64)
    assert output.shape == (2, 3, 129, 32)
    torch.testing.assert_close(output[1, 2], stft(waves[1, 2], 256, 64))


def test_constants_are_cached_and_usable_in_training_after_inference() -> None:
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
    (weight * first).sum().backward()  # fails for an inference tensor
    assert weight.grad is not None


@pytest.mark.parametrize(("bins", "length", "zeros"), [(9, 16, [0, 8]), (8, 15, [0]), (5, 16, [0])])
def test_irfft_ignores_imaginary_parts_of_dc_and_nyquist(bins: int, length: int, zeros: list[int]) -> None:
    factors = _real_ends(bins, length, torch.float32, torch.device("cpu"))
    assert factors[:, 0].tolist() == [1] * bins
    assert (factors[:, 1] == 0).nonzero().flatten().tolist() == zeros
    spectrum = torch.randn(bins, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    real = torch.view_as_complex(torch.view_as_real(spectrum) * factors)
    torch.testing.assert_close(irfft(real, length), irfft(spectrum, length))
