"""Losses on waveforms; all take (estimate, reference). The figures of separation are in dB, higher is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations

import torch
from torch import Tensor

from audiosr_cli.dsp.metrics import si_sdr, snr
from audiosr_cli.dsp.spectra import constant, mel_filters, power_spectrogram, stft

Figure = Callable[[Tensor, Tensor], Tensor]  # (..., T) both → (...), dB

_ENUMERATED = 5  # up to so many sources all orders are tried
_SILENT = 1e-6  # of the mixture's energy: a source below does not speak


def pit(estimate: Tensor, reference: Tensor, figure: Figure, best_db: float = 30.0) -> Tensor:
    """Negative ``figure`` in dB of the best assignment of sources, mean over the batch; (B, S, T) both.

    See ``pit_items``.
    """
    return pit_items(estimate, reference, figure, best_db).mean()


def pit_items(estimate: Tensor, reference: Tensor, figure: Figure, best_db: float = 30.0) -> Tensor:
    """Compute the negative ``figure`` of the best assignment of sources in each item (uPIT, Kolbæk et al. 2017).

    For a source that is silent throughout, the figure is how far the estimate lies below the mixture, up to 30 dB
    (Wisdom et al. 2021, sec. 3.2).

    Args:
        estimate: (B, S, T).
        reference: (B, S, T).
        figure: A metric in dB of (estimate, reference), higher is better.
        best_db: Above it nothing is gained, so that solved mixtures do not outweigh the others.

    Returns:
        (B,) in dB.
    """
    pairs = pair_figures(estimate, reference, figure)  # (B, S estimates, S references)
    order = best_assignment(pairs.detach())  # (B, S): the estimate for each reference
    best = pairs.gather(1, order.unsqueeze(1)).squeeze(1)  # (B, S)
    return -best.mean(1).clamp_max(best_db)


def pair_figures(estimate: Tensor, reference: Tensor, figure: Figure) -> Tensor:
    """``figure`` of every estimate for every reference, (B, S, T) both → (B, S estimates, S references)."""
    pairs = figure(estimate.unsqueeze(2), reference.unsqueeze(1))
    energy = reference.square().sum(-1)  # (B, S)
    mixture = reference.sum(1).square().sum(-1)[:, None, None] + 1e-8  # (B, 1, 1)
    below = 10 * torch.log10(mixture / (estimate.square().sum(-1).unsqueeze(2) + 1e-3 * mixture))
    silent = energy.unsqueeze(1) <= _SILENT * mixture
    return torch.where(silent, below, pairs)


def best_assignment(pairs: Tensor) -> Tensor:
    """Which estimate each reference gets so that the sum is highest: (B, S, S) → (B, S) int64.

    All orders are tried for up to five sources; for more the Hungarian algorithm decides, which a GPU has to wait for.
    """
    count = pairs.shape[-1]
    if count > _ENUMERATED:
        return torch.tensor([hungarian((-item.T).tolist()) for item in pairs.double().cpu()], device=pairs.device)
    orders = _orders(count, pairs.device)
    sums = pairs[:, orders, torch.arange(count, device=pairs.device)].sum(-1)  # (B, orders)
    return orders[sums.argmax(1)]


@constant
def _orders(count: int, device: torch.device) -> Tensor:
    """Return all orders of ``count`` sources: (orders, S) int64."""
    return torch.tensor(list(permutations(range(count))), device=device)


def hungarian(cost: list[list[float]]) -> list[int]:
    """The column of each row in the cheapest assignment of a square matrix (Kuhn 1955; Munkres 1957).

    Rows are added one after the other, each along a shortest augmenting path in reduced costs: O(n³).
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
    """Mean of ``loss`` over a network's stages, each with a target of its own (SFSRNet; Nachmani et al. 2020)."""
    return torch.stack([loss(made, goal) for made, goal in zip(estimates, references, strict=True)]).mean()


def thresholded_si_snr(estimate: Tensor, reference: Tensor, most_db: float = 30.0) -> Tensor:
    """SI-SNR in dB that saturates softly at ``most_db`` (Wisdom et al. 2020); (..., T) both → (...)."""
    return _soften(si_sdr(estimate, reference), most_db)


def thresholded_snr(estimate: Tensor, reference: Tensor, most_db: float = 30.0) -> Tensor:
    """SNR in dB that saturates softly at ``most_db``; (..., T) both → (...)."""
    return _soften(snr(estimate, reference), most_db)


def _soften(figure: Tensor, most_db: float) -> Tensor:
    return -10 * torch.log10(torch.pow(10, -figure / 10) + 10 ** (-most_db / 10))


def si_snr_and_level(estimate: Tensor, reference: Tensor) -> Tensor:
    """SI-SNR in dB less a tenth of the level's error in dB, less up to 10 dB for polarity; (..., T) both → (...).

    SI-SNR alone leaves level and polarity free, SNR teaches both but learns several times slower here; this is as
    fast as the one and ends at the level of the other.
    """
    energy_1, energy_2 = (x.square().sum(-1) + 1e-8 for x in (estimate, reference))
    error = 10 * torch.log10(energy_1 / energy_2)
    cosine = (estimate * reference).sum(-1) / (energy_1 * energy_2).sqrt()
    return si_sdr(estimate, reference) - 0.1 * error.abs() - 10 * (-cosine).clamp_min(0)


FIGURES: dict[str, Figure] = {
    "si_snr": si_sdr,
    "si_snr_and_level": si_snr_and_level,
    "snr": snr,
    "thresholded_si_snr": thresholded_si_snr,
    "thresholded_snr": thresholded_snr,
}


def band_mask(band: Tensor | None, bins: int, sample_rate: int, like: Tensor) -> Tensor:
    """Weights (B, bins, 1) of STFT bins: 0 above ``band`` (B,) Hz, their mean 1."""
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
    """Distance of magnitudes at several resolutions (Yamamoto et al. 2020, Parallel WaveGAN); (B, T) both.

    For each n_fft (hop a quarter): L1 of log10 |S| floored at ``floor``, and a quarter of the spectral
    convergence of each item; mean. Nothing above ``band`` (B,) in Hz counts.
    """
    total = estimate.new_zeros(())
    for n_fft in sizes:
        mask = band_mask(band, n_fft // 2 + 1, sample_rate, estimate)
        size, goal = (_magnitude(x, n_fft, n_fft // 4, floor) for x in (estimate, reference))
        total = total + ((size.log10() - goal.log10()).abs() * mask).mean()
        error, full = (((x.square() * mask).sum((1, 2)) + 1e-12).sqrt() for x in (size - goal, goal))
        total = total + 0.25 * (error / full.clamp_min(1e-2)).mean()
    return total / len(sizes)


def complex_stft(
    estimate: Tensor, reference: Tensor, sample_rate: int, band: Tensor | None = None, n_fft: int = 1024
) -> Tensor:
    """L1 of real and imaginary parts against the reference's mean magnitude; (B, T) both, ``band`` (B,) in Hz.

    It tells phase, as an error of the waveform does, and can be limited to a band.
    """
    mask = band_mask(band, n_fft // 2 + 1, sample_rate, estimate).unsqueeze(-1)
    made, goal = (torch.view_as_real(stft(x, n_fft, n_fft // 4)) for x in (estimate, reference))  # (B, F, L, 2)
    error, full = (((x.abs() * mask).mean((1, 2, 3))) for x in (made - goal, goal))
    return (error / full.clamp_min(1e-4)).mean()


def log_spectral(
    estimate: Tensor,
    reference: Tensor,
    sample_rate: int,
    band: Tensor | None = None,
    n_fft: int = 2048,
    hop_length: int = 512,
) -> Tensor:
    """Log-spectral distance (AP-BWE definition, see metrics.lsd) as a loss; (B, T) both, ``band`` (B,) in Hz."""
    mask = band_mask(band, n_fft // 2 + 1, sample_rate, estimate)
    power, goal = (_magnitude(x, n_fft, hop_length, 1e-4).log10() * 2 for x in (estimate, reference))
    return (((power - goal).square() * mask).mean(1) + 1e-4).sqrt().mean()


def log_mel(
    estimate: Tensor,
    reference: Tensor,
    sample_rate: int,
    band: Tensor | None = None,
    n_fft: int = 2048,
    n_mels: int = 128,
) -> Tensor:
    """L1 of log mel magnitudes (HiFi-GAN's mel loss); (B, T) both; mels that reach above ``band`` Hz do not count."""
    filters = _mel_filters(n_fft, n_mels, sample_rate, estimate.device)  # (M, F)
    made, goal = (filters @ _magnitude(x, n_fft, n_fft // 4, 1e-7) for x in (estimate, reference))
    error = (made.clamp_min(1e-5).log() - goal.clamp_min(1e-5).log()).abs()  # (B, M, L)
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
