"""streaming/order.py: correlation of sources, and the hidden Markov model over permutations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from audiosr_cli.streaming.order import PermutationHMM, squared_correlation
from audiosr_cli.streaming.tracking_config import TrackingConfig

EVERY_SOURCE = torch.ones(2, dtype=torch.bool)


def noise(sources: int, length: int = 4000) -> Tensor:
    return torch.randn(sources, length, generator=torch.Generator().manual_seed(0))


def test_correlation_ignores_level_and_polarity() -> None:
    x = noise(2)
    pairs = squared_correlation(x, torch.stack([-0.001 * x[1], 50 * x[0]]))
    torch.testing.assert_close(pairs, torch.tensor([[0.0, 1.0], [1.0, 0.0]]), rtol=0, atol=1e-2)


def test_correlation_with_silence_is_zero() -> None:
    x = noise(2)
    assert torch.equal(squared_correlation(x, torch.zeros_like(x)), torch.zeros(2, 2))
    assert torch.equal(squared_correlation(x, x, (0.0, 2.0)), torch.zeros(2, 2))


def test_posterior_follows_the_log_odds_of_two_permutations() -> None:
    model = PermutationHMM(2)
    posterior = model.step(None, torch.tensor([[0.0, 3.0], [0.0, 0.0]]), EVERY_SOURCE, EVERY_SOURCE)
    assert model.sources_by_track == [1, 0]
    assert posterior == pytest.approx(1 / (1 + math.exp(-3)))


def test_overlap_evidence_is_relative_to_the_last_permutation() -> None:
    """Swapped, then an overlap in which each source goes on as itself: still in the order of the tracks."""
    model = PermutationHMM(2)
    model.step(None, torch.tensor([[0.0, 9.0], [9.0, 0.0]]), EVERY_SOURCE, EVERY_SOURCE)
    model.step(8 * torch.eye(2), torch.zeros(2, 2), EVERY_SOURCE, EVERY_SOURCE)
    assert model.sources_by_track == [0, 1]


def test_power_floor_follows_the_peak_down_to_silence() -> None:
    model = PermutationHMM(2, TrackingConfig(peak_decay=0.5))
    model.follow_power(torch.tensor([1.0, 0.1]))
    model.follow_power(torch.zeros(2))
    assert model.power_floor(0.1) == pytest.approx(0.05)
    for _ in range(50):
        model.follow_power(torch.zeros(2))
    assert model.power_floor(0.1) == model.config.silence_power
