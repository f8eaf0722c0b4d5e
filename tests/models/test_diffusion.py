from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from audiosr_cli.models.diffusion import (
    STEPS,
    add_noise,
    clean_estimate,
    ddim,
    keyed_noise,
    noise_estimate,
    signal_scale,
)

STEP = torch.tensor([1.0, 250.0, 500.0, 999.0, STEPS])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_schedule_ends_in_noise_alone() -> None:
    a = signal_scale(torch.arange(STEPS + 1))
    assert float(a[0]) == 1
    assert float(a[-1]) == 0
    assert bool((a.diff() < 0).all())
    cosine = torch.cos((torch.arange(STEPS + 1).double() / STEPS + 0.008) / 1.008 * torch.pi / 2)
    assert float((a - cosine).abs().max()) < 1e-3


def test_velocity_noise_and_clean_say_the_same() -> None:
    clean, noise = normal(5, 3, 4), normal(5, 3, 4, seed=1)
    noisy, velocity = add_noise(clean, noise, STEP)
    torch.testing.assert_close(noisy.square().mean(), torch.tensor(1.0), rtol=0.3, atol=0)
    torch.testing.assert_close(clean_estimate(noisy, velocity, STEP), clean, rtol=0, atol=1e-5)
    torch.testing.assert_close(noise_estimate(noisy, velocity, STEP), noise, rtol=0, atol=1e-5)
    torch.testing.assert_close(noisy[-1], noise[-1])  # at the end nothing is left
    torch.testing.assert_close(velocity[-1], -clean[-1])


def gaussian(mean: float, deviation: float, x: Tensor, step: Tensor) -> Tensor:
    """The velocity that is right on average where what is sought is normally distributed."""
    a = signal_scale(step).view(-1, 1).float()
    s = (1 - a.square()).sqrt()
    clean = mean + a * deviation**2 / ((a * deviation) ** 2 + s**2) * (x - a * mean)
    return (a * (x - a * clean) / s.clamp_min(1e-6) - s * clean).where(s > 0, torch.zeros(()))


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_samples_are_distributed_as_they_should_be(eta: float) -> None:
    output = ddim(partial(gaussian, 2.0, 0.5), lambda draw: normal(1, 4000, seed=draw), 50, eta)
    assert float(output.mean()) == pytest.approx(2.0, abs=0.05)
    assert float(output.std()) == pytest.approx(0.5, abs=0.05)


def test_without_eta_noise_decides() -> None:
    velocity, asked = partial(gaussian, 0.0, 1.0), []

    def noise(draw: int) -> Tensor:
        asked.append(draw)
        return normal(1, 16)

    first = ddim(velocity, noise, 7)
    assert asked == [0]
    torch.testing.assert_close(ddim(velocity, noise, 7), first, rtol=0, atol=0)
    ddim(velocity, noise, 7, eta=1.0)
    assert asked[2:] == list(range(7))


def test_one_step_is_what_is_expected() -> None:
    output = ddim(partial(gaussian, 3.0, 0.5), lambda draw: normal(1, 8, seed=draw), 1)
    torch.testing.assert_close(output, torch.full((1, 8), 3.0))


def test_noise_belongs_to_its_frame() -> None:
    whole = keyed_noise(5, 0, -10, 40, (3, 2))
    torch.testing.assert_close(keyed_noise(5, 0, 4, 8, (3, 2)), whole[14:22], rtol=0, atol=0)
    assert abs(float(whole.mean())) < 0.25
    assert float(whole.std()) == pytest.approx(1, abs=0.15)
    frames = whole.flatten(1)
    assert len({tuple(frame.tolist()) for frame in frames}) == 40
    for seed, draw in ((6, 0), (5, 1)):
        assert not torch.equal(keyed_noise(seed, draw, -10, 40, (3, 2)), whole)
