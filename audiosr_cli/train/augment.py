"""Augmentation of recordings: noise floors, equalisers and tilts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from audiosr_cli.dsp.spectra import irfft
from audiosr_cli.train.checks import ascending, within
from audiosr_cli.train.corpus import RandomParameters
from audiosr_cli.train.transfer import upload_all

# Frequencies of the equaliser's control points, two thirds of which lie where speech is: Hz.
_POINTS_HZ = (60.0, 200.0, 600.0, 1500.0, 3500.0, 7000.0, 11000.0, 16000.0, 24000.0)
# Frequency in Hz at which a tilt has no effect, and the lowest one up to which noise and tilts follow their slope.
_PIVOT_HZ, _LOWEST_HZ = 1000.0, 60.0
# Quietest crop that gets noise: its RMS, full scale 1 (-80 dBFS). Silence stays silent.
_SILENT = 1e-4


@dataclass(frozen=True)
class Augmentation:
    """What is done to recordings.

    Attributes:
        noise_prob: Probability of an added stationary noise floor.
        noise_db: Range of its RMS relative to the crop's, in dB.
        noise_slope_db: Range of its slope in dB an octave: 0 is white, -3 pink.
        equalizer_prob: Probability of a random smooth equaliser, as microphones and rooms are.
        equalizer_db: Its gain lies within ± this many dB.
        tilt_db: Its slope on top of that lies within ± this many dB an octave.
    """

    noise_prob: float = 0.0
    noise_db: tuple[float, float] = (-75.0, -45.0)
    noise_slope_db: tuple[float, float] = (-6.0, 2.0)
    equalizer_prob: float = 0.0
    equalizer_db: float = 6.0
    tilt_db: float = 1.0

    def __post_init__(self) -> None:
        within(self, 0, 1, "noise_prob", "equalizer_prob")
        within(self, 0, 40, "equalizer_db", "tilt_db")
        ascending(self, "noise_db", "noise_slope_db")

    @property
    def active(self) -> bool:
        """Whether anything is done."""
        return self.noise_prob > 0 or self.equalizer_prob > 0


def draw(augmentation: Augmentation, count: int, generator: torch.Generator) -> RandomParameters:
    """Draw the augmentation of ``count`` recordings: one row each in every entry."""
    a = augmentation

    def between(limits: tuple[float, float], *shape: int) -> Tensor:
        return limits[0] + (limits[1] - limits[0]) * torch.rand(count, *shape, generator=generator)

    has_noise = torch.rand(count, generator=generator) < a.noise_prob
    has_equalizer = (torch.rand(count, generator=generator) < a.equalizer_prob).float()
    symmetric = (-1.0, 1.0)
    return {
        "noise_db": torch.where(has_noise, between(a.noise_db), -torch.inf),
        "noise_slope_db": between(a.noise_slope_db),
        "noise_seed": torch.randint(1 << 62, (count,), generator=generator),
        "equalizer_db": a.equalizer_db * between(symmetric, len(_POINTS_HZ)) * has_equalizer[:, None],
        "tilt_db": a.tilt_db * between(symmetric) * has_equalizer,
    }


def render(waves: Tensor, params: RandomParameters, sample_rate: int) -> Tensor:
    """Add noise to ``waves``, then equalise both, with zero phase.

    The noise is added first: what a microphone hears and what it adds pass through the same equaliser. The ends of the
    crop wrap around.

    Args:
        waves: (B, T).
        params: What ``draw`` returned for B recordings.
        sample_rate: Hz.

    Returns:
        (B, T).
    """
    length = waves.shape[-1]
    spectrum = torch.fft.rfft(waves)
    own = {key: value for key, value in params.items() if key not in ("noise_seed",)}
    r = {key: value.unsqueeze(-1) for key, value in upload_all(own, waves.device).items()}  # (B, 1), (B, K, 1)
    octave = (torch.fft.rfftfreq(length, 1 / sample_rate, device=waves.device).clamp_min(_LOWEST_HZ) / _PIVOT_HZ).log2()
    rms = waves.square().mean(-1, keepdim=True).sqrt()
    floor = torch.where(rms > _SILENT, rms * _gain(r["noise_db"]), 0.0)
    if bool((params["noise_db"] > -torch.inf).any()):
        spectrum = spectrum + floor * _noise(octave, r["noise_slope_db"], int(params["noise_seed"][0]), length)
    curve = _curve(octave, r["equalizer_db"].squeeze(-1)) + r["tilt_db"] * octave  # (B, F)
    return irfft(spectrum * _gain(curve), length)


def _gain(level_db: Tensor) -> Tensor:
    return torch.pow(10, level_db / 20)


def _noise(octave: Tensor, slope_db: Tensor, seed: int, length: int) -> Tensor:
    """Return spectra (B, F) of Gaussian noise with an RMS of 1 and ``slope_db`` (B, 1) an octave."""
    shape = _gain(slope_db * octave)
    shape = shape / shape.square().mean(-1, keepdim=True).sqrt()
    parts = torch.randn(2, *shape.shape, generator=torch.Generator().manual_seed(seed)).to(shape.device)
    return torch.complex(parts[0], parts[1]) * shape * math.sqrt(length / 2)


def _curve(octave: Tensor, points_db: Tensor) -> Tensor:
    """Interpolate control points (B, K) in dB over ``octave`` (F,), with raised cosines between them: (B, F)."""
    places = (torch.tensor(_POINTS_HZ, device=octave.device) / _PIVOT_HZ).log2()
    upper = torch.searchsorted(places, octave).clamp(1, len(places) - 1)
    share = ((octave - places[upper - 1]) / (places[upper] - places[upper - 1])).clamp(0, 1)
    share = (1 - torch.cos(torch.pi * share)) / 2
    curve: Tensor = points_db[:, upper - 1] * (1 - share) + points_db[:, upper] * share
    return curve
