"""Losses: permutation-invariant training, and multi-resolution log spectra. All take (estimate, reference)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import torch
from torch import Tensor

from audiosr_cli.dsp import power_spectrogram
from audiosr_cli.metrics import si_sdr


def pit(
    estimate: Tensor, reference: Tensor, figure: Callable[[Tensor, Tensor], Tensor], best_db: float = 30.0
) -> Tensor:
    """Negative ``figure`` in dB of the best assignment of sources, mean over the batch; (B, S, T) both.

    uPIT (Kolbæk et al. 2017) by enumeration over a figure such as ``metrics.si_sdr``. Above ``best_db``
    nothing is gained, so that solved mixtures do not outweigh the others.
    """
    sources = range(reference.shape[1])
    pairs = figure(estimate.unsqueeze(2), reference.unsqueeze(1))  # (B, S estimates, S references)
    means = torch.stack([pairs[:, sources, order].mean(1) for order in permutations(sources)])
    return -means.amax(0).clamp_max(best_db).mean()


def si_sdr_and_level(estimate: Tensor, reference: Tensor) -> Tensor:
    """SI-SDR in dB less a tenth of the level's error in dB; (..., T) both → (...).

    SI-SDR alone leaves the level free, SNR teaches both but learns several times slower here; this is as
    fast as the one and ends at the level of the other.
    """
    error = 10 * torch.log10((estimate.square().sum(-1) + 1e-8) / (reference.square().sum(-1) + 1e-8))
    return si_sdr(estimate, reference) - 0.1 * error.abs()


def spectral(
    estimate: Tensor, reference: Tensor, sizes: tuple[int, ...] = (512, 1024, 2048), floor: float = 1e-4
) -> Tensor:
    """Distance of magnitudes at several resolutions (Yamamoto et al. 2020, Parallel WaveGAN); (B, T) both.

    For each n_fft (hop a quarter): L1 of log10 |S| floored at ``floor``, plus spectral convergence; mean.
    """
    total = estimate.new_zeros(())
    for n_fft in sizes:
        size, goal = (power_spectrogram(x, n_fft, n_fft // 4).clamp_min(floor**2).sqrt() for x in (estimate, reference))
        total = total + (size.log10() - goal.log10()).abs().mean()
        total = total + 0.25 * (size - goal).norm() / goal.norm().clamp_min(1e-3)
    return total / len(sizes)


def log_spectral(estimate: Tensor, reference: Tensor, n_fft: int = 2048, hop_length: int = 512) -> Tensor:
    """Log-spectral distance (AP-BWE definition, see metrics.lsd) as a loss; (B, T) both."""
    power, goal = (power_spectrogram(x, n_fft, hop_length).clamp_min(1e-8).log10() for x in (estimate, reference))
    distance = (power - goal).square().mean(1)
    return (distance + 1e-4).sqrt().mean()
