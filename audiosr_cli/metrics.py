"""How good an estimate is: pure functions of (estimate, reference), tensors with time last."""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

from audiosr_cli.dsp import power_spectrogram

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
    bins = distance.shape[-2]
    band = slice(round(low * (bins - 1)), round(high * (bins - 1)) + 1)
    return (distance[0] - distance[1])[band].square().mean(0).sqrt().mean()


def lsd_ssr_eval(estimate: Tensor, reference: Tensor, sample_rate: int) -> Tensor:
    """Log-spectral distance after ssr_eval (Liu et al. 2022); (T,) both → scalar. Raw: no gain is matched.

    The size follows the rate: n_fft int(2048 / (44100 / rate)), hop rate / 100. The quotient of powers is
    taken before the logarithm, so what the estimate lacks weighs far more than in ``lsd``.
    """
    n_fft, hop_length = int(2048 / (44100 / sample_rate)), sample_rate // 100
    made, true = (power_spectrogram(x, n_fft, hop_length).sqrt() for x in (estimate, reference))
    quotient = torch.log10(true.square() / (made + 1e-12).square() + 1e-12)
    return quotient.square().mean(0).sqrt().mean()
