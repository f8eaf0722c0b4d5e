"""Tensor maths without state: power spectrograms, filters."""

from __future__ import annotations

import torch
from torch import Tensor


def power_spectrogram(waves: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Squared magnitudes of the centred Hann STFT, (..., T) → (..., F, L); not normalised.

    Summed from real and imaginary parts, so that the gradient at silence is zero rather than NaN.
    """
    window = torch.hann_window(n_fft, device=waves.device, dtype=waves.dtype)
    spectrum = torch.stft(waves, n_fft, hop_length, window=window, return_complex=True)
    return torch.view_as_real(spectrum).square().sum(-1)


def low_pass(waves: Tensor, edge: Tensor, roll_off: Tensor, sample_rate: int) -> Tensor:
    """Waves (B, T) without what lies above ``edge`` (B,) Hz, with zero phase.

    The response falls as a raised cosine from 1 at ``edge * (1 - roll_off)`` to 0 at ``edge``;
    ``roll_off`` (B,) lies in (0, 1]. The ends of the wave wrap around (circular convolution).
    """
    length = waves.shape[-1]
    frequency = torch.fft.rfftfreq(length, 1 / sample_rate)  # (F,)
    below = (1 - frequency / edge[:, None]) / roll_off[:, None]
    response = (1 - torch.cos(torch.pi * below.clamp(0, 1))) / 2
    made: Tensor = torch.fft.irfft(torch.fft.rfft(waves) * response, length)
    return made
