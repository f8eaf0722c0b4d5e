"""How good an estimate is: pure functions of (estimate, reference), tensors with time last."""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

from audiosr_cli.dsp.spectra import power_spectrogram

_EPS = 1e-8


def si_sdr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB; (..., T) both → (...) (Le Roux et al. 2019).

    Both are made zero-mean first, as the tables of the field do; called SI-SNR as well.
    """
    estimate = estimate - estimate.mean(-1, keepdim=True)
    reference = reference - reference.mean(-1, keepdim=True)
    gain = (estimate * reference).sum(-1, keepdim=True) / (reference.square().sum(-1, keepdim=True) + _EPS)
    target = gain * reference
    noise = (estimate - target).square().sum(-1)
    return 10 * torch.log10((target.square().sum(-1) + _EPS) / (noise + _EPS))


def snr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Signal-to-noise ratio in dB, gain and offset counted as noise; (..., T) both → (...)."""
    noise = (estimate - reference).square().sum(-1)
    return 10 * torch.log10((reference.square().sum(-1) + _EPS) / (noise + _EPS))


def sdr(estimate: Tensor, reference: Tensor, taps: int = 512) -> Tensor:
    """Signal-to-distortion ratio in dB of BSS Eval v3 (Vincent et al. 2006); (..., T) both → (...).

    What a filter of ``taps`` makes of the reference counts as the reference. One reference at a time, so what comes
    from the others is distortion; computed in float64.
    """
    made, true = estimate.double(), reference.double()
    n = 1 << (true.shape[-1] + taps - 1).bit_length()
    spectrum, other = torch.fft.rfft(true, n), torch.fft.rfft(made, n)
    own = torch.fft.irfft(spectrum.abs().square(), n)[..., :taps]  # autocorrelation of the reference
    cross = torch.fft.irfft(spectrum.conj() * other, n)[..., :taps]  # with the estimate
    lag = (torch.arange(taps)[:, None] - torch.arange(taps)).abs()
    matrix = own[..., lag] + _EPS * own[..., :1, None] * torch.eye(taps, dtype=own.dtype, device=own.device)
    matrix = matrix + 1e-20 * torch.eye(taps, dtype=own.dtype, device=own.device)  # of silence
    # Not linalg.solve: with two threads its LU of a batch fails in MKL (DLASWP; torch 2.13 on an AMD EPYC).
    solution = torch.cholesky_solve(cross.unsqueeze(-1), torch.linalg.cholesky(matrix)).squeeze(-1)
    explained = (solution * cross).sum(-1)
    total = made.square().sum(-1)
    return (10 * torch.log10((explained.clamp_min(0) + _EPS) / ((total - explained).clamp_min(0) + _EPS))).float()


def best_order(estimate: Tensor, reference: Tensor) -> tuple[int, ...]:
    """Which estimate belongs to each reference, by mean SI-SDR; (S, T) both."""
    pairs = si_sdr(estimate.unsqueeze(1), reference.unsqueeze(0))  # (S estimates, S references)
    orders = list(permutations(range(len(reference))))
    return max(orders, key=lambda order: float(sum(pairs[order[i], i] for i in range(len(order)))))


def lsd(estimate: Tensor, reference: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Log-spectral distance after AP-BWE (Lu et al. 2024); (T,) both → scalar. Raw: no gain is matched.

    n_fft 2048, hop 512, log10 of powers floored at 1e-8 on each signal; ``low`` and ``high`` bound the
    band as shares of the Nyquist frequency. Not comparable with ``lsd_ssr_eval``.
    """
    distance = torch.stack([power_spectrogram(x, 2048, 512).clamp_min(1e-8).log10() for x in (estimate, reference)])
    return (distance[0] - distance[1])[_band(distance.shape[-2], low, high)].square().mean(0).sqrt().mean()


def lsd_ssr_eval(estimate: Tensor, reference: Tensor, sample_rate: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Log-spectral distance after ssr_eval (Liu et al. 2022); (T,) both → scalar. Raw: no gain is matched.

    The size follows the rate: n_fft int(2048 / (44100 / rate)), hop rate / 100. The quotient of powers is
    taken before the logarithm, so what the estimate lacks weighs far more than in ``lsd``. Bands as there.
    """
    n_fft, hop_length = int(2048 / (44100 / sample_rate)), sample_rate // 100
    made, true = (power_spectrogram(x, n_fft, hop_length).sqrt() for x in (estimate, reference))
    quotient = torch.log10(true.square() / (made + 1e-12).square() + 1e-12)
    return quotient[_band(len(quotient), low, high)].square().mean(0).sqrt().mean()


def _band(bins: int, low: float, high: float) -> slice:
    """The bins between two shares of the Nyquist frequency, both included."""
    return slice(round(low * (bins - 1)), round(high * (bins - 1)) + 1)


def lag(estimate: Tensor, reference: Tensor) -> int:
    """By how many samples the estimate comes late: where the cross-correlation is largest; (T,) both.

    Without regard to sign, so an inverted wave has lag 0. Negative where it comes early; 0 of silence.
    """
    length = reference.shape[-1]
    n = 1 << (2 * length - 1).bit_length()
    shared = torch.fft.irfft(torch.fft.rfft(estimate.double(), n) * torch.fft.rfft(reference.double(), n).conj(), n)
    at = int(shared.abs().argmax())
    return at if at < length else at - n


def gain_db(estimate: Tensor, reference: Tensor) -> Tensor:
    """Level of what the estimate has of the reference, against the reference, in dB; (..., T) both → (...).

    The reference is projected out, so what else is in the estimate counts for nothing.
    """
    share = (estimate * reference).sum(-1) / (reference.square().sum(-1) + _EPS)
    return 20 * torch.log10(share.abs() + _EPS)
