"""Spectra of tensors: spectrograms, mel filters, low-pass filters, resampling; the only state is a cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from functools import lru_cache, wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])


def constant(function: Function) -> Function:
    """Cache the tensors that ``function`` returns for each set of arguments; callers must not write to them.

    On a GPU, creating a small constant costs a kernel launch and often a copy each time.
    """

    @lru_cache(maxsize=64)
    def cached(*args: Hashable) -> Any:
        with torch.inference_mode(False):  # or training could not use tensors cached in inference
            return function(*args)

    @wraps(function)
    def call(*args: Hashable) -> Any:
        # torch.compile warns about caches, and needs none.
        return function(*args) if torch.compiler.is_compiling() else cached(*args)

    return cast(Function, call)


@constant
def hann_window(length: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the periodic Hann window (length,)."""
    return torch.hann_window(length, device=device, dtype=dtype)


def irfft(spectrum: Tensor, length: int) -> Tensor:
    """Compute the inverse real FFT, ignoring the imaginary parts of DC and Nyquist on every device.

    No real signal has those. FFTs on CPUs ignore them; cuFFT does not at some lengths (PyTorch issue 154496).

    Args:
        spectrum: (..., F) complex.
        length: Samples of the result.

    Returns:
        (..., length).
    """
    if spectrum.device.type != "cpu":
        parts = torch.view_as_real(spectrum)
        spectrum = torch.view_as_complex(parts * _real_ends(spectrum.shape[-1], length, parts.dtype, parts.device))
    waves: Tensor = torch.fft.irfft(spectrum, length)
    return waves


@constant
def _real_ends(bins: int, length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return factors (bins, 2) for real and imaginary parts: 0 for the imaginary parts of DC and Nyquist, else 1."""
    factors = torch.ones(bins, 2, dtype=dtype, device=device)
    factors[0, 1].zero_()
    if length % 2 == 0 and bins == length // 2 + 1:
        factors[-1, 1].zero_()
    return factors


def stft(waves: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Compute the centred Hann STFT, (..., T) → (..., F, L) complex; not normalised."""
    window = hann_window(n_fft, waves.device, waves.dtype)
    spectrum = torch.stft(waves.reshape(-1, waves.shape[-1]), n_fft, hop_length, window=window, return_complex=True)
    return spectrum.reshape(*waves.shape[:-1], *spectrum.shape[-2:])


def squared(spectrum: Tensor) -> Tensor:
    """Compute squared magnitudes of complex values, at a fifth of the cost of ``abs`` and ``square``.

    They are sums of squared real and imaginary parts, so the gradient at silence is zero rather than NaN.
    """
    return spectrum.real.square() + spectrum.imag.square()


def power_spectrogram(waves: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Compute squared magnitudes of the centred Hann STFT, (..., T) → (..., F, L); not normalised."""
    return squared(stft(waves, n_fft, hop_length))


def mel_filters(n_fft: int, n_mels: int, sample_rate: int, low: float = 0.0, high: float | None = None) -> Tensor:
    """Build triangular mel filters of unit area on Slaney's scale (Auditory Toolbox, 1998), as librosa does.

    The scale is linear up to 1 kHz and logarithmic above.

    Args:
        n_fft: Length of the transform in samples.
        n_mels: Number of filters.
        sample_rate: Hz.
        low: Lower end of the first filter in Hz.
        high: Upper end of the last filter in Hz, by default half the rate.

    Returns:
        (n_mels, n_fft // 2 + 1).
    """
    step, corner, growth = 200 / 3, 1000.0, math.log(6.4) / 27

    def to_mel(hz: float) -> float:
        return hz / step if hz < corner else corner / step + math.log(hz / corner) / growth

    mels = torch.linspace(to_mel(low), to_mel(high or sample_rate / 2), n_mels + 2, dtype=torch.float64)
    above = corner * torch.exp(growth * (mels - corner / step))
    edges = torch.where(mels < corner / step, mels * step, above)  # (n_mels + 2,) Hz
    frequency = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    rising = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
    filters = torch.minimum(rising, falling).clamp_min(0) * (2 / (edges[2:] - edges[:-2]))[:, None]
    return filters.float()


def low_pass(waves: Tensor, cutoff: Tensor, roll_off: Tensor, sample_rate: int) -> Tensor:
    """Remove content above a cutoff, with zero phase; the ends wrap around (circular convolution).

    Args:
        waves: (B, T).
        cutoff: (B,) in Hz: there the response is 0.
        roll_off: (B,) in (0, 1]: the share of the band below the cutoff over which the response falls from 1 to 0, as a
            raised cosine.
        sample_rate: Hz.

    Returns:
        (B, T).
    """
    length = waves.shape[-1]
    frequency = torch.fft.rfftfreq(length, 1 / sample_rate, device=waves.device)  # (F,)
    response = raised_cosine(frequency / cutoff[:, None].clamp_min(1e-3), roll_off[:, None])
    return irfft(torch.fft.rfft(waves) * response, length)


def change_rate(waves: Tensor, before: int, after: int, roll_off: float = 0.1) -> Tensor:
    """Resample whole waveforms in memory, for training, with zero phase; the ends wrap around.

    Recordings are resampled by soxr (`audio/resample.py`).

    Args:
        waves: (..., T) at ``before`` Hz.
        before: Hz.
        after: Hz.
        roll_off: Upper share of the narrower band over which the response falls from 1 to 0.

    Returns:
        (..., round(T * after / before)).
    """
    if before == after:
        return waves
    length = waves.shape[-1]
    out_length = round(length * after / before)
    spectrum = torch.fft.rfft(waves)
    bins = min(spectrum.shape[-1], out_length // 2 + 1)
    cutoff = min(before, after) / 2
    frequency = torch.arange(bins, device=waves.device) * (before / length)
    response = raised_cosine(frequency / cutoff, torch.tensor(roll_off))
    return irfft(spectrum[..., :bins] * response, out_length) * (out_length / length)


def raised_cosine(relative: Tensor, roll_off: Tensor) -> Tensor:
    """Compute gains at ``relative`` = frequency / cutoff: 1 up to 1 - ``roll_off``, falling to 0 at 1 (broadcast)."""
    return (1 - torch.cos(torch.pi * ((1 - relative) / roll_off).clamp(0, 1))) / 2
