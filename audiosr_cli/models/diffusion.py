"""Diffusion: a cosine schedule that ends in noise alone, velocities, and DDIM (no state, no weights).

Of a clean x0 and noise eps, the noisy x is ``a * x0 + s * eps`` with a² + s² = 1; its velocity is ``a * eps - s * x0``
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

STEPS = 1000
_OFFSET = 0.008
_MOST_GUIDANCE = 20.0
Velocity = Callable[[Tensor, Tensor], Tensor]  # noisy (B, ...) and step (B,) → velocity (B, ...)
Noise = Callable[[int], Tensor]  # which draw → standard normal (B, ...)


@dataclass(frozen=True)
class Sampling:
    """How highs are drawn: in ``steps`` of diffusion, none of them being what is expected; ``guidance`` exaggerates.

    The same ``seed`` draws the same. ``eta`` is how much noise each step adds (1: as much as it takes out).
    """

    steps: int = 4
    guidance: float = 1.0
    seed: int = 0
    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.steps <= STEPS:
            raise UsageError(f"--steps {self.steps}: 0 to {STEPS} are possible")
        if not 0 <= self.guidance <= _MOST_GUIDANCE:
            raise UsageError(f"--guidance {self.guidance:g}: 0 to {_MOST_GUIDANCE:g} are possible")
        if not 0 <= self.eta <= 1:
            raise UsageError(f"eta = {self.eta:g}: 0 to 1 are possible")


def signal(step: Tensor) -> Tensor:
    """The signal's part a at ``step`` (B,), from 1 at 0 to exactly 0 at STEPS.

    The cosine schedule (Nichol & Dhariwal 2021, eq. 17), made to end with no signal at all (Lin et al. 2024, alg. 1).
    """
    phase = (step.double() / STEPS + _OFFSET) / (1 + _OFFSET) * math.pi / 2
    first = math.cos(_OFFSET / (1 + _OFFSET) * math.pi / 2)
    last = math.cos(math.pi / 2)
    return ((phase.cos() - last) / (first - last)).clamp(0, 1)


def parts(step: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """The parts of signal and noise, shaped so that they scale ``like`` (B, ...)."""
    a = signal(step).view(-1, *[1] * (like.dim() - 1))
    return a.to(like.dtype), (1 - a.square()).clamp_min(0).sqrt().to(like.dtype)


def add_noise(clean: Tensor, noise: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """The noisy x at ``step`` (B,), and its velocity."""
    a, s = parts(step, clean)
    return a * clean + s * noise, a * noise - s * clean


def clean_of(noisy: Tensor, velocity: Tensor, step: Tensor) -> Tensor:
    """x0 of a noisy x and its velocity."""
    a, s = parts(step, noisy)
    return a * noisy - s * velocity


def noise_of(noisy: Tensor, velocity: Tensor, step: Tensor) -> Tensor:
    """Eps of a noisy x and its velocity."""
    a, s = parts(step, noisy)
    return s * noisy + a * velocity


def ddim(velocity: Velocity, noise: Noise, steps: int, eta: float = 0.0) -> Tensor:
    """A sample in ``steps`` (Song et al. 2021, eq. 12), from ``noise(0)`` on; with ``eta`` each step adds some.

    Steps are spaced evenly from STEPS down ("trailing": the first one sees noise alone, as in training).
    """
    x = noise(0)
    times = torch.linspace(STEPS, 0, steps + 1, device=x.device)
    for i, (now, after) in enumerate(pairwise(times)):
        here, there = now.expand(len(x)), after.expand(len(x))
        v = velocity(x, here)
        clean, eps = clean_of(x, v, here), noise_of(x, v, here)
        (a, s), (a_after, s_after) = parts(here, x), parts(there, x)
        spread = eta * s_after / s.clamp_min(1e-8) * (1 - (a / a_after.clamp_min(1e-8)).square()).clamp_min(0).sqrt()
        x = a_after * clean + (s_after.square() - spread.square()).clamp_min(0).sqrt() * eps
        if eta and i + 1 < steps:
            x = x + spread * noise(i + 1)
    return x


def keyed_noise(seed: int, draw: int, first: int, frames: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise (frames, *shape) of the frames from ``first`` on, which may be negative.

    Each frame's is a function of (seed, draw, frame) alone (Philox, Salmon et al. 2011), so windows that share a frame
    share its noise, wherever they begin.
    """
    key = np.array([seed % 2**64, draw], np.uint64)
    made = [
        np.random.Generator(
            np.random.Philox(key=key, counter=np.array([0, 0, 0, frame % 2**64], np.uint64))
        ).standard_normal(shape, dtype=np.float32)
        for frame in range(first, first + frames)
    ]
    return torch.from_numpy(np.stack(made))
