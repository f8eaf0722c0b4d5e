"""Fill what lossy coding removed from training targets: noise floors above 10 kHz."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from audiosr_cli.dsp.spectra import constant, hann_window, squared, stft

# Samples of a frame, and from one to the next. At 48 kHz as in the log-spectral distance.
_N_FFT, _HOP = 2048, 512
# Bins on each side over which the power of a bin is averaged to see whether it is empty.
_AVERAGED_BINS = 4
# Bins on each side over which the level beside an empty region is averaged: 0.5 kHz at 48 kHz.
_LEVEL_BINS = 20
# How many bins below an empty region the middle of those lies: the content next to it often is falling already.
_DISTANCE_BINS = 24
# Power of a bin, in multiples of what rounding to 16 bits leaves there, below which it counts as empty. Measured on
# speech48k: the noise floors of its microphones are 20 to 35 dB above that.
_EMPTY = 5.0
# Power spectral density of rounding to 16 bits, full scale 1.
_ROUNDING = 1 / 12 / 32768**2
# Empty regions that begin lower are left alone, in Hz. Codecs empty the highs of almost any recording; a frame
# without lower content is a pause that somebody has muted.
_LOWEST_HZ = 10000.0


def empty_bins(waves: Tensor, n_fft: int = _N_FFT, hop_length: int = _HOP) -> Tensor:
    """Find the time-frequency bins that hold nothing but rounding to 16 bits.

    Lossy coders drop highs that nobody would hear, among them the noise floors of microphones, bin by bin and frame by
    frame. Decoded, such bins are empty.

    Args:
        waves: (B, T), decoded to 16 bits, at the level of the file.
        n_fft: Samples of a frame.
        hop_length: Samples from one frame to the next.

    Returns:
        (B, F, L) bool, aligned with ``stft``.
    """
    return _empty(squared(stft(waves, n_fft, hop_length)))


def _empty(power: Tensor) -> Tensor:
    """Find the empty bins of (B, F, L) powers of a Hann window, whose mean square is 3 / 8."""
    n_fft = 2 * (power.shape[1] - 1)
    return _smooth(power, _AVERAGED_BINS) < _EMPTY * _ROUNDING * n_fft * 3 / 8


def _smooth(values: Tensor, bins: int) -> Tensor:
    """Average (B, F, L) over the ``bins`` on each side along F."""
    frames_first = values.transpose(1, 2).contiguous()  # (B, L, F)
    return F.avg_pool1d(frames_first, 2 * bins + 1, 1, bins, count_include_pad=False).transpose(1, 2)


def fill_empty_bins(waves: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Fill the empty bins above 10 kHz with noise at the level of the bins below them, in every frame.

    A network that learned from emptiness would end noise floors where a codec ended them: of VCTK as stored for the
    bundled models, three quarters of the bins from 21.5 kHz on are empty, while the microphones' noise goes on.

    Args:
        waves: (B, T), decoded to 16 bits, at the level of the file.
        sample_rate: Hz.
        generator: Source of the noise, on the CPU.

    Returns:
        (B, T). Recordings without content at 10 kHz, and muted frames, are as before.
    """
    spectrum = stft(waves, _N_FFT, _HOP)  # (B, F, L)
    power = squared(spectrum)
    empty = _empty(power)
    content = (~empty).to(power.dtype)
    level = _smooth(power * content, _LEVEL_BINS) / _smooth(content, _LEVEL_BINS).clamp_min(1e-6)
    bins = torch.arange(power.shape[1], device=waves.device)[None, :, None]
    source = torch.where(empty, 0, bins).cummax(1).values  # the last bin with content up to each
    high = source >= _LOWEST_HZ / sample_rate * _N_FFT
    wanted = (level.gather(1, (source - _DISTANCE_BINS).clamp_min(0)) * (empty & high)).sqrt()
    noise = torch.randn(2, *power.shape, generator=generator).to(waves.device) * 0.5**0.5
    # Frames overlap by three quarters, and only what they agree on survives synthesis.
    filler = torch.complex(noise[0], noise[1]) * wanted * _redundancy_gain(waves.device)
    window = hann_window(_N_FFT, waves.device)
    return waves + torch.istft(filler, _N_FFT, _HOP, window=window, length=waves.shape[-1])


@constant
def _redundancy_gain(device: torch.device) -> Tensor:
    """Return the gain that gives independent noise in each bin its own level after synthesis and analysis."""
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(2, 1, _N_FFT // 2 + 1, 257, generator=generator) * 0.5**0.5
    wave = torch.istft(torch.complex(parts[0], parts[1]), _N_FFT, _HOP, window=hann_window(_N_FFT, parts.device))
    return squared(stft(wave, _N_FFT, _HOP))[0, 64:-64, 8:-8].mean().rsqrt().to(device)
