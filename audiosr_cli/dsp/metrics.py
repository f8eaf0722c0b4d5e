"""Metrics: pure functions of (estimate, reference), tensors with time last."""

from __future__ import annotations

import math
from itertools import permutations

import torch
from torch import Tensor

from audiosr_cli.dsp.spectra import power_spectrogram

_EPS = 1e-8


def si_sdr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Compute the scale-invariant signal-to-distortion ratio (Le Roux et al. 2019), also called SI-SNR.

    Means are removed first, as in the published tables.

    Args:
        estimate: (..., T).
        reference: (..., T).

    Returns:
        (...) in dB.
    """
    estimate = estimate - estimate.mean(-1, keepdim=True)
    reference = reference - reference.mean(-1, keepdim=True)
    gain = (estimate * reference).sum(-1, keepdim=True) / (reference.square().sum(-1, keepdim=True) + _EPS)
    target = gain * reference
    noise = (estimate - target).square().sum(-1)
    return 10 * torch.log10((target.square().sum(-1) + _EPS) / (noise + _EPS))


def snr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Compute the signal-to-noise ratio in dB, (..., T) both → (...); errors of gain and offset count as noise."""
    noise = (estimate - reference).square().sum(-1)
    return 10 * torch.log10((reference.square().sum(-1) + _EPS) / (noise + _EPS))


def sdr(estimate: Tensor, reference: Tensor, taps: int = 512) -> Tensor:
    """Compute the signal-to-distortion ratio of BSS Eval v3 (Vincent et al. 2006), in float64.

    The reference filtered by any filter of ``taps`` coefficients counts as the reference. Each reference is used by
    itself, so interference from the others counts as distortion.

    Args:
        estimate: (..., T).
        reference: (..., T).
        taps: Length of the filter in samples.

    Returns:
        (...) in dB.
    """
    estimate, reference = estimate.double(), reference.double()
    n = 1 << (reference.shape[-1] + taps - 1).bit_length()
    spectrum, other = torch.fft.rfft(reference, n), torch.fft.rfft(estimate, n)
    own = torch.fft.irfft(spectrum.abs().square(), n)[..., :taps]  # autocorrelation of the reference
    cross = torch.fft.irfft(spectrum.conj() * other, n)[..., :taps]  # correlation with the estimate
    # The best filter solves the normal equations, whose matrix is Toeplitz; the diagonal keeps silence solvable.
    lag = (torch.arange(taps)[:, None] - torch.arange(taps)).abs()
    matrix = own[..., lag] + _EPS * own[..., :1, None] * torch.eye(taps, dtype=own.dtype, device=own.device)
    matrix = matrix + 1e-20 * torch.eye(taps, dtype=own.dtype, device=own.device)
    # Not linalg.solve: with two threads its LU of a batch fails in MKL (DLASWP; torch 2.13 on an AMD EPYC).
    solution = torch.cholesky_solve(cross.unsqueeze(-1), torch.linalg.cholesky(matrix)).squeeze(-1)
    explained = (solution * cross).sum(-1)
    total = estimate.square().sum(-1)
    return (10 * torch.log10((explained.clamp_min(0) + _EPS) / ((total - explained).clamp_min(0) + _EPS))).float()


def best_order(estimate: Tensor, reference: Tensor) -> tuple[int, ...]:
    """Return the estimate that belongs to each reference, by the best mean SI-SDR; (S, T) both."""
    pairs = si_sdr(estimate.unsqueeze(1), reference.unsqueeze(0))  # (S estimates, S references)
    orders = list(permutations(range(len(reference))))
    return max(orders, key=lambda order: float(sum(pairs[order[i], i] for i in range(len(order)))))


def lsd(estimate: Tensor, reference: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Compute the log-spectral distance as AP-BWE does (Lu et al. 2024), without matching gains.

    n_fft is 2048, the hop 512, and the power of each signal has a floor of 1e-8. Not comparable with `lsd_ssr_eval`.

    Args:
        estimate: (T,).
        reference: (T,).
        low: Lower end of the band, as a share of the Nyquist frequency.
        high: Upper end of the band, likewise.

    Returns:
        A scalar: the mean over frames of the root mean square difference of log10 powers.
    """
    distance = torch.stack([power_spectrogram(x, 2048, 512).clamp_min(1e-8).log10() for x in (estimate, reference)])
    return (distance[0] - distance[1])[_band(distance.shape[-2], low, high)].square().mean(0).sqrt().mean()


def lsd_ssr_eval(estimate: Tensor, reference: Tensor, sample_rate: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Compute the log-spectral distance as ssr_eval does (Liu et al. 2022), without matching gains.

    n_fft is int(2048 / (44100 / sample_rate)), the hop sample_rate / 100. Powers have no floor, so content that the
    estimate lacks weighs far more than in `lsd`.

    Args:
        estimate: (T,).
        reference: (T,).
        sample_rate: Hz.
        low: Lower end of the band, as a share of the Nyquist frequency.
        high: Upper end of the band, likewise.

    Returns:
        A scalar.
    """
    n_fft, hop_length = int(2048 / (44100 / sample_rate)), sample_rate // 100
    ours, true = (power_spectrogram(x, n_fft, hop_length).sqrt() for x in (estimate, reference))
    quotient = torch.log10(true.square() / (ours + 1e-12).square() + 1e-12)
    return quotient[_band(len(quotient), low, high)].square().mean(0).sqrt().mean()


def _band(bins: int, low: float, high: float) -> slice:
    """Return the bins between two shares of the Nyquist frequency, both included."""
    return slice(round(low * (bins - 1)), round(high * (bins - 1)) + 1)


def lag(estimate: Tensor, reference: Tensor) -> int:
    """Find by how many samples the estimate is late: where the cross-correlation is largest in magnitude.

    Args:
        estimate: (T,).
        reference: (T,).

    Returns:
        Samples; negative if the estimate is early, 0 for an inverted waveform or silence.
    """
    length = reference.shape[-1]
    n = 1 << (2 * length - 1).bit_length()
    shared = torch.fft.irfft(torch.fft.rfft(estimate.double(), n) * torch.fft.rfft(reference.double(), n).conj(), n)
    at = int(shared.abs().argmax())
    return at if at < length else at - n


def gain_db(estimate: Tensor, reference: Tensor) -> Tensor:
    """Compute the gain of the reference within the estimate in dB, (..., T) both → (...).

    The estimate is projected onto the reference, so anything orthogonal to it does not count.
    """
    share = (estimate * reference).sum(-1) / (reference.square().sum(-1) + _EPS)
    return 20 * torch.log10(share.abs() + _EPS)


def equal_error_rate(vectors: Tensor, labels: Tensor) -> float:
    """Compute the equal error rate of the cosine similarity in telling speakers apart, over all pairs of vectors.

    Args:
        vectors: Embeddings (N, D) of unit length.
        labels: The speaker of each, (N,).

    Returns:
        The rate in [0, 1] at which as many pairs of one speaker are below a threshold as pairs of two are above it;
        not a number if there are no pairs of one of these kinds.
    """
    pairs = torch.ones(len(vectors), len(vectors), dtype=torch.bool, device=vectors.device).triu(1)
    similarity, same = (vectors @ vectors.T)[pairs], (labels[:, None] == labels)[pairs]
    if same.all() or not same.any():
        return math.nan
    same = same[similarity.argsort()]
    rejected = same.cumsum(0) / same.sum()  # with a threshold above each pair in turn
    accepted = 1 - (~same).cumsum(0) / (~same).sum()
    crossing = int((rejected - accepted).abs().argmin())
    return float(rejected[crossing] + accepted[crossing]) / 2
