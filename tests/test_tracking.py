"""tracking.py: scale-free agreement, and orders across channels and time."""

from __future__ import annotations

import pytest
import torch

from audiosr_cli.tracking import Tracker, agreement, best_permutation


def waves(sources: int, length: int = 4000) -> torch.Tensor:
    return torch.randn(sources, length, generator=torch.Generator().manual_seed(0))


def test_agreement_is_free_of_level_and_polarity() -> None:
    x = waves(2)
    pairs = agreement(x, torch.stack([-0.001 * x[1], 50 * x[0]]))
    torch.testing.assert_close(pairs, torch.tensor([[0.0, 1.0], [1.0, 0.0]]), rtol=0, atol=1e-2)


def test_silence_agrees_with_nothing() -> None:
    x = waves(2)
    assert torch.equal(agreement(x, torch.zeros_like(x)), torch.zeros(2, 2))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_best_permutation(order: tuple[int, ...]) -> None:
    x = waves(3)
    shuffled = torch.empty_like(x)
    shuffled[list(order)] = x
    assert best_permutation(agreement(x, shuffled)) == order


def test_ties_keep_the_order() -> None:
    assert best_permutation(torch.zeros(3, 3)) == (0, 1, 2)


def test_silence_in_the_overlap_keeps_the_order() -> None:
    core = waves(2).unsqueeze(1)
    assert torch.equal(Tracker()(torch.zeros(2, 1, 500), core), core)


def test_one_party_a_channel_stays_where_it_is() -> None:
    """Telephone stereo: A left, B right, the rest of each channel noise that agrees with nothing."""
    a, b = waves(2, 20_000)
    rest = 0.003 * torch.randn(2, 20_000, generator=torch.Generator().manual_seed(1))
    whole = torch.stack([torch.stack([a, rest[0]]), torch.stack([rest[1], b])])  # (S, C, T)
    tracker, tail, step = Tracker(), None, 1500
    for i in range(10):
        core = whole[..., i * step : (i + 1) * step + 500]
        shuffled = torch.stack(
            [core[:, 0].flip(0) if i % 2 else core[:, 0], core[:, 1].flip(0) if i % 3 else core[:, 1]], 1
        )
        made = tracker(tail, shuffled)
        tail = made[..., step:]
        if i == 0:
            first = [torch.equal(made[0, c], core[0, c]) for c in range(2)]
        assert [torch.equal(made[0, c], core[0, c]) for c in range(2)] == first


def test_a_model_of_all_channels_is_ordered_as_one() -> None:
    core = waves(2).unsqueeze(1).repeat(1, 2, 1)
    tail = core[..., :500].flip(0)
    assert torch.equal(Tracker(per_channel=False)(tail, core), core.flip(0))


def test_channels_follow_the_loudest() -> None:
    x = waves(2)
    core = torch.stack([x * 0.1, x.flip(0)], dim=1)  # (S, C, T): the second channel is louder and swapped
    made = Tracker()(None, core)
    assert torch.equal(made[:, 1], x.flip(0))
    assert torch.equal(made[:, 0], x.flip(0) * 0.1)
