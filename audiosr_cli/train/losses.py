"""Losses on waveforms; all take (estimate, reference). Separation metrics are in dB, higher is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations

import torch
from torch import Tensor

from audiosr_cli.dsp.metrics import si_sdr, snr
from audiosr_cli.dsp.spectra import constant, mel_filters, power_spectrogram, stft

# (estimate, reference), (..., T) both → (...) in dB.
Metric = Callable[[Tensor, Tensor], Tensor]

# Largest number of sources for which all permutations are tried.
_MAX_ENUMERATED = 5
# Share of the mixture's energy below which a source counts as silent (-60 dB).
_SILENT = 1e-6


def pit(estimate: Tensor, reference: Tensor, metric: Metric, best_db: float = 30.0) -> Tensor:
    """Compute the permutation-invariant loss of a batch: the mean of ``pit_items``.

    Args:
        estimate: (B, S, T).
        reference: (B, S, T).
        metric: As for ``pit_items``.
        best_db: As for ``pit_items``.

    Returns:
        A scalar in dB.
    """
    return pit_items(estimate, reference, metric, best_db).mean()


def pit_items(estimate: Tensor, reference: Tensor, metric: Metric, best_db: float = 30.0) -> Tensor:
    """Compute the negative ``metric`` of the best permutation of the sources in each item.

    Utterance-level permutation-invariant training (uPIT, Kolbæk et al. 2017). For a silent source, the metric is the
    level of the estimate below that of the mixture, up to 30 dB (Wisdom et al. 2021, sec. 3.2).

    Args:
        estimate: (B, S, T).
        reference: (B, S, T).
        metric: A metric in dB of (estimate, reference), higher is better.
        best_db: The item's mean metric is clamped here, so that solved mixtures do not outweigh the others.

    Returns:
        (B,) in dB.
    """
    pairs = pairwise_metric(estimate, reference, metric)  # (B, S estimates, S references)
    order = best_permutation(pairs.detach())  # (B, S): the estimate for each reference
    best = pairs.gather(1, order.unsqueeze(1)).squeeze(1)  # (B, S)
    return -best.mean(1).clamp_max(best_db)


def pairwise_metric(estimate: Tensor, reference: Tensor, metric: Metric) -> Tensor:
    """Compute ``metric`` of every estimate and reference: (B, S, T) both → (B, S estimates, S references)."""
    pairs = metric(estimate.unsqueeze(2), reference.unsqueeze(1))
    energy = reference.square().sum(-1)  # (B, S)
    mixture = reference.sum(1).square().sum(-1)[:, None, None] + 1e-8  # (B, 1, 1)
    below = 10 * torch.log10(mixture / (estimate.square().sum(-1).unsqueeze(2) + 1e-3 * mixture))
    silent = energy.unsqueeze(1) <= _SILENT * mixture
    return torch.where(silent, below, pairs)


def best_permutation(pairs: Tensor) -> Tensor:
    """Find the permutation with the highest sum of metrics.

    For up to five sources all permutations are tried; for more, the Hungarian algorithm runs on the CPU, and a GPU has
    to wait for it.

    Args:
        pairs: What ``pairwise_metric`` returns (B, S estimates, S references).

    Returns:
        The estimate for each reference (B, S) int64.
    """
    count = pairs.shape[-1]
    if count > _MAX_ENUMERATED:
        return torch.tensor([hungarian((-item.T).tolist()) for item in pairs.double().cpu()], device=pairs.device)
    orders = _permutations(count, pairs.device)
    sums = pairs[:, orders, torch.arange(count, device=pairs.device)].sum(-1)  # (B, permutations)
    return orders[sums.argmax(1)]


@constant
def _permutations(count: int, device: torch.device) -> Tensor:
    """Return all permutations of ``count`` sources: (permutations, S) int64."""
    return torch.tensor(list(permutations(range(count))), device=device)


def hungarian(cost: list[list[float]]) -> list[int]:
    """Solve the linear assignment problem of a square matrix: the column of each row (Kuhn 1955; Munkres 1957).

    Rows are added one at a time, each along a shortest augmenting path in reduced costs: O(n³).
    """
    size = len(cost)
    row_price, column_price = [0.0] * size, [0.0] * size
    owner = [-1] * size  # the row that holds each column
    for row in range(size):
        slack = [float("inf")] * size
        came_from = [-1] * size
        done = [False] * size
        at, column = row, -1
        while at >= 0:
            if column >= 0:
                done[column] = True
            for j in range(size):
                reduced = cost[at][j] - row_price[at] - column_price[j]
                if not done[j] and reduced < slack[j]:
                    slack[j], came_from[j] = reduced, column
            nearest = min((j for j in range(size) if not done[j]), key=slack.__getitem__)
            step = slack[nearest]
            row_price[row] += step
            for j in range(size):
                if done[j]:
                    row_price[owner[j]] += step
                    column_price[j] -= step
                else:
                    slack[j] -= step
            column, at = nearest, owner[nearest]
        while column >= 0:  # shift the columns back along the path
            before = came_from[column]
            owner[column] = owner[before] if before >= 0 else row
            column = before
    return [owner.index(row) for row in range(size)]


def multi_stage(
    estimates: Sequence[Tensor], references: Sequence[Tensor], loss: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Average ``loss`` over the stages of a network, each with its own target (SFSRNet; Nachmani et al. 2020)."""
    return torch.stack(
        [loss(estimate, reference) for estimate, reference in zip(estimates, references, strict=True)]
    ).mean()


def thresholded_si_snr(estimate: Tensor, reference: Tensor, max_db: float = 30.0) -> Tensor:
    """Compute SI-SNR in dB that saturates softly at ``max_db`` (Wisdom et al. 2020): (..., T) both → (...)."""
    return _saturate(si_sdr(estimate, reference), max_db)


def thresholded_snr(estimate: Tensor, reference: Tensor, max_db: float = 30.0) -> Tensor:
    """Compute SNR in dB that saturates softly at ``max_db`` (Wisdom et al. 2020): (..., T) both → (...)."""
    return _saturate(snr(estimate, reference), max_db)


def _saturate(metric: Tensor, max_db: float) -> Tensor:
    return -10 * torch.log10(torch.pow(10, -metric / 10) + 10 ** (-max_db / 10))


def si_snr_and_level(estimate: Tensor, reference: Tensor) -> Tensor:
    """Compute SI-SNR in dB minus penalties for level and polarity: (..., T) both → (...).

    The penalties are a tenth of the level error in dB, and up to 10 dB for inverted polarity. SI-SNR ignores level and
    polarity. SNR includes them but trained several times slower here; this trains as fast as SI-SNR and reaches the
    result of SNR.
    """
    energy_1, energy_2 = (x.square().sum(-1) + 1e-8 for x in (estimate, reference))
    error = 10 * torch.log10(energy_1 / energy_2)
    cosine = (estimate * reference).sum(-1) / (energy_1 * energy_2).sqrt()
    return si_sdr(estimate, reference) - 0.1 * error.abs() - 10 * (-cosine).clamp_min(0)


METRICS: dict[str, Metric] = {
    "si_snr": si_sdr,
    "si_snr_and_level": si_snr_and_level,
    "snr": snr,
    "thresholded_si_snr": thresholded_si_snr,
    "thresholded_snr": thresholded_snr,
}


def band_mask(band: Tensor | None, bins: int, sample_rate: int, like: Tensor) -> Tensor:
    """Compute weights (B, bins, 1) of STFT bins: 0 above ``band`` (B,) in Hz, with a mean of 1."""
    if band is None:
        return like.new_ones(1, 1, 1)
    frequency = torch.linspace(0, sample_rate / 2, bins, device=like.device)
    inside = (frequency <= band.unsqueeze(1)).to(like.dtype)
    return (inside * (bins / inside.sum(1, keepdim=True).clamp_min(1))).unsqueeze(-1)


def multi_resolution_stft(
    estimate: Tensor,
    reference: Tensor,
    sample_rate: int,
    band: Tensor | None = None,
    sizes: tuple[int, ...] = (512, 1024, 2048),
    floor: float = 1e-4,
) -> Tensor:
    """Compute the multi-resolution STFT loss (Yamamoto et al. 2020, Parallel WaveGAN).

    For each FFT size, with a hop of a quarter: L1 of log10 magnitudes, plus a quarter of the spectral convergence of
    each item.

    Args:
        estimate: (B, T).
        reference: (B, T).
        sample_rate: Hz.
        band: Bandwidth of each reference (B,) in Hz; nothing above it counts.
        sizes: FFT sizes in samples.
        floor: Smallest magnitude.

    Returns:
        A scalar.
    """
    total = estimate.new_zeros(())
    for n_fft in sizes:
        mask = band_mask(band, n_fft // 2 + 1, sample_rate, estimate)
        own, target = (_magnitude(x, n_fft, n_fft // 4, floor) for x in (estimate, reference))
        total = total + ((own.log10() - target.log10()).abs() * mask).mean()
        error, norm = (((x.square() * mask).sum((1, 2)) + 1e-12).sqrt() for x in (own - target, target))
        total = total + 0.25 * (error / norm.clamp_min(1e-2)).mean()
    return total / len(sizes)


def complex_stft(
    estimate: Tensor, reference: Tensor, sample_rate: int, band: Tensor | None = None, n_fft: int = 1024
) -> Tensor:
    """Compute L1 of real and imaginary parts, relative to the reference's mean: (B, T) both, ``band`` (B,) in Hz.

    Like an error of the waveform it includes the phase, but it can be limited to a band.
    """
    mask = band_mask(band, n_fft // 2 + 1, sample_rate, estimate).unsqueeze(-1)
    own, target = (torch.view_as_real(stft(x, n_fft, n_fft // 4)) for x in (estimate, reference))  # (B, F, L, 2)
    error, norm = (((x.abs() * mask).mean((1, 2, 3))) for x in (own - target, target))
    return (error / norm.clamp_min(1e-4)).mean()


def log_spectral(
    estimate: Tensor,
    reference: Tensor,
    sample_rate: int,
    band: Tensor | None = None,
    n_fft: int = 2048,
    hop_length: int = 512,
) -> Tensor:
    """Compute the log-spectral distance as AP-BWE defines it (see metrics.lsd): (B, T) both, ``band`` (B,) in Hz."""
    mask = band_mask(band, n_fft // 2 + 1, sample_rate, estimate)
    own, target = (_magnitude(x, n_fft, hop_length, 1e-4).log10() * 2 for x in (estimate, reference))
    return (((own - target).square() * mask).mean(1) + 1e-4).sqrt().mean()


def log_mel(
    estimate: Tensor,
    reference: Tensor,
    sample_rate: int,
    band: Tensor | None = None,
    n_fft: int = 2048,
    n_mels: int = 128,
) -> Tensor:
    """Compute L1 of log mel magnitudes (HiFi-GAN's mel loss): (B, T) both; mels above ``band`` do not count."""
    filters = _mel_filters(n_fft, n_mels, sample_rate, estimate.device)  # (M, F)
    own, target = (filters @ _magnitude(x, n_fft, n_fft // 4, 1e-7) for x in (estimate, reference))
    error = (own.clamp_min(1e-5).log() - target.clamp_min(1e-5).log()).abs()  # (B, M, L)
    if band is None:
        return error.mean()
    top = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, device=estimate.device)
    upper = (top * (filters > 0)).amax(1)  # (M,)
    inside = (upper <= band.unsqueeze(1)).to(error.dtype).unsqueeze(-1)
    return (error * inside).mean((1, 2)).div(inside.mean((1, 2)).clamp_min(1e-6)).mean()


@constant
def _mel_filters(n_fft: int, n_mels: int, sample_rate: int, device: torch.device) -> Tensor:
    return mel_filters(n_fft, n_mels, sample_rate).to(device)


def _magnitude(waves: Tensor, n_fft: int, hop_length: int, floor: float) -> Tensor:
    return power_spectrogram(waves, n_fft, hop_length).clamp_min(floor**2).sqrt()
