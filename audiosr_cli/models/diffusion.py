"""Diffusion without state or weights: a cosine schedule with zero terminal SNR, velocities, DDIM sampling, keyed noise.

A noisy x is ``a * x0 + s * eps`` for clean x0 and noise eps, with a² + s² = 1. Its velocity is ``a * eps - s * x0``
(Salimans & Ho 2022, arXiv 2202.00512).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from audiosr_cli.errors import UsageError

# Steps of the schedule that networks are trained with.
STEPS = 1000
# Offset s of the cosine schedule (Nichol & Dhariwal 2021, sec. 3.2).
_OFFSET = 0.008
# Highest guidance scale that is accepted; far above the 3.5 that AudioSR publishes as its default.
_MOST_GUIDANCE = 20.0
Velocity = Callable[[Tensor, Tensor], Tensor]  # noisy (B, ...), step (B,) → velocity (B, ...)
Noise = Callable[[int], Tensor]  # number of the draw → standard normal (B, ...)


@dataclass(frozen=True)
class Sampling:
    """How a diffusion model draws the high band.

    Args:
        steps: Number of diffusion steps, 0 to 1000; 0 uses the deterministic estimate.
        guidance: Classifier-free guidance scale, 0 to 20; above 1 the output follows the low band more strongly.
        seed: Seed of the noise; the same seed gives the same output.
        eta: Noise that each step adds, 0 to 1: 0 is deterministic DDIM, 1 is as stochastic as DDPM.

    Raises:
        UsageError: A value is out of range.
    """

    steps: int = 4
    guidance: float = 1.0
    seed: int = 0
    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.steps <= STEPS:
            raise UsageError(f"--steps {self.steps}: must be between 0 and {STEPS}")
        if not 0 <= self.guidance <= _MOST_GUIDANCE:
            raise UsageError(f"--guidance {self.guidance:g}: must be between 0 and {_MOST_GUIDANCE:g}")
        if not 0 <= self.eta <= 1:
            raise UsageError(f"eta = {self.eta:g}: must be between 0 and 1")


def signal_scale(step: Tensor) -> Tensor:
    """Return the scale a of the signal at ``step`` (B,): 1 at step 0, exactly 0 at STEPS.

    This is the cosine schedule (Nichol & Dhariwal 2021, eq. 17), rescaled to zero terminal SNR (Lin et al. 2024,
    alg. 1).
    """
    phase = (step.double() / STEPS + _OFFSET) / (1 + _OFFSET) * math.pi / 2
    first = math.cos(_OFFSET / (1 + _OFFSET) * math.pi / 2)
    last = math.cos(math.pi / 2)
    return ((phase.cos() - last) / (first - last)).clamp(0, 1)


def scales(step: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scales a of the signal and s of the noise at ``step`` (B,), broadcastable to ``like`` (B, ...)."""
    a = signal_scale(step).view(-1, *[1] * (like.dim() - 1))
    return a.to(like.dtype), (1 - a.square()).clamp_min(0).sqrt().to(like.dtype)


def add_noise(clean: Tensor, noise: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Return the noisy x at ``step`` (B,) and its velocity, both shaped as ``clean`` and ``noise`` (B, ...)."""
    a, s = scales(step, clean)
    return a * clean + s * noise, a * noise - s * clean


def clean_estimate(noisy: Tensor, velocity: Tensor, step: Tensor) -> Tensor:
    """Return x0, given a noisy x and its velocity at ``step`` (B,)."""
    a, s = scales(step, noisy)
    return a * noisy - s * velocity


def noise_estimate(noisy: Tensor, velocity: Tensor, step: Tensor) -> Tensor:
    """Return eps, given a noisy x and its velocity at ``step`` (B,)."""
    a, s = scales(step, noisy)
    return s * noisy + a * velocity


def ddim(velocity: Velocity, noise: Noise, steps: int, eta: float = 0.0) -> Tensor:
    """Draw a sample by DDIM (Song et al. 2021, eq. 12).

    Steps are spaced evenly from STEPS down ("trailing"), so the first one sees pure noise, as in training.

    Args:
        velocity: The network: noisy (B, ...), step (B,) → velocity (B, ...).
        noise: Draws: 0 is where sampling begins; the others are added, one after each step but the last, with ``eta``.
        steps: Number of steps, at least 1.
        eta: Noise that each step adds, 0 to 1.

    Returns:
        The sample, (B, ...).
    """
    x = noise(0)
    times = torch.linspace(STEPS, 0, steps + 1, device=x.device)
    for i, (now, after) in enumerate(pairwise(times)):
        here, there = now.expand(len(x)), after.expand(len(x))
        v = velocity(x, here)
        clean, eps = clean_estimate(x, v, here), noise_estimate(x, v, here)
        (a, s), (a_after, s_after) = scales(here, x), scales(there, x)
        spread = eta * s_after / s.clamp_min(1e-8) * (1 - (a / a_after.clamp_min(1e-8)).square()).clamp_min(0).sqrt()
        x = a_after * clean + (s_after.square() - spread.square()).clamp_min(0).sqrt() * eps
        if eta and i + 1 < steps:
            x = x + spread * noise(i + 1)
    return x


def keyed_noise(seed: int, draw: int, first: int, frames: int, shape: tuple[int, ...]) -> Tensor:
    """Return standard normal noise that depends on (seed, draw, frame) only, so overlapping windows share it.

    Each frame has its own Philox counter (Salmon et al. 2011).

    Args:
        seed: Seed of the recording's noise.
        draw: Number of the draw.
        first: First frame, counted from the start of the recording; may be negative.
        frames: Number of frames.
        shape: Shape of one frame.

    Returns:
        (frames, *shape) float32.
    """
    key = np.array([seed % 2**64, draw], np.uint64)
    noise = [
        np.random.Generator(
            np.random.Philox(key=key, counter=np.array([0, 0, 0, frame % 2**64], np.uint64))
        ).standard_normal(shape, dtype=np.float32)
        for frame in range(first, first + frames)
    ]
    return torch.from_numpy(np.stack(noise))
