"""train/discriminators.py and adversary.py: shapes, gradients, and a game that has an effect."""

from __future__ import annotations

import pytest
import torch
from corpora import generator
from torch import nn

from audiosr_cli.train.adversary import Opponent
from audiosr_cli.train.discriminators import (
    Critics,
    Discriminators,
    adversarial_loss,
    discriminator_loss,
    feature_matching,
)
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks import Adversary

SMALL = Critics(periods=(2, 3), resolutions=(256,), channels=4)


@pytest.mark.parametrize("length", [2000, 2001])
def test_each_judges_and_every_weight_learns(length: int) -> None:
    torch.manual_seed(0)
    critics = Discriminators(SMALL)
    judged = critics(torch.randn(3, length))
    assert len(judged) == 3
    assert all(score.shape[0] == 3 and len(maps) in (4, 5) for score, maps in judged)
    discriminator_loss(judged, critics(torch.randn(3, length))).backward()
    learning = {name: p.grad for name, p in critics.named_parameters() if not name.endswith("out.bias")}
    assert all(grad is not None and grad.abs().sum() > 0 for grad in learning.values())  # a bias pulls both ways


def test_losses_by_hand() -> None:
    made, true = (
        [(torch.tensor([[-2.0, 0.5]]), [torch.tensor([[1.0]])])],
        [(torch.tensor([[0.0, 3.0]]), [torch.tensor([[2.0]])])],
    )
    assert float(discriminator_loss(made, true)) == pytest.approx(0.75 + 0.5)
    assert float(adversarial_loss(made)) == pytest.approx(0.75)
    assert float(feature_matching(made, true)) == pytest.approx(0.5)


def test_the_game_separates_noise_from_tones_and_moves_the_generator() -> None:
    torch.manual_seed(0)
    opponent = Opponent(Adversary(SMALL, 1.0, 2.0), 2e-3, Ranks())
    time = torch.arange(2000) / 8000
    tones = torch.sin(2 * torch.pi * (200 + 300 * torch.rand(8, 1, generator=generator())) * time)
    for _ in range(30):
        opponent.play(torch.randn(8, 2000), tones, bf16=False)
    with torch.no_grad():
        judged = [opponent.critics(waves) for waves in (torch.randn(8, 2000), tones)]
    assert all(true.mean() > made.mean() + 0.5 for (made, _), (true, _) in zip(*judged, strict=True))

    estimate = nn.Parameter(torch.randn(8, 2000))
    before = [p.detach().clone() for p in opponent.critics.parameters()]
    terms = opponent.play(estimate, tones, bf16=True)
    sum(terms.values()).backward()
    assert set(terms) == {"adversarial", "features"}
    assert torch.isfinite(estimate.grad).all()
    assert estimate.grad.abs().sum() > 0
    assert any(not torch.equal(a, b) for a, b in zip(before, opponent.critics.parameters(), strict=True))
    assert all(p.grad is None or p.grad.shape == p.shape for p in opponent.critics.parameters())


@pytest.mark.parametrize("adversary", [Adversary(SMALL, 1.0, 2.0), Adversary(SMALL, 0.3, 0.0)])
def test_the_generator_pays_by_its_weights(adversary: Adversary) -> None:
    torch.manual_seed(0)
    opponent = Opponent(adversary, 0.0, Ranks())  # critics that do not learn meanwhile
    estimate, reference = nn.Parameter(torch.randn(4, 2000)), torch.randn(4, 2000)
    with torch.no_grad():
        made, true = opponent.critics(estimate), opponent.critics(reference)
    terms = opponent.play(estimate, reference, bf16=False)
    expected = {
        "adversarial": adversary.adversarial * adversarial_loss(made),
        "features": adversary.features * feature_matching(made, true),
    }
    for name, term in terms.items():
        torch.testing.assert_close(term.detach(), expected[name], rtol=1e-4, atol=1e-6)
    terms["adversarial"].backward()
    assert estimate.grad.abs().sum() > 0


def test_a_resumed_opponent_is_the_same() -> None:
    torch.manual_seed(0)
    first = Opponent(Adversary(SMALL, 1.0, 0.0), 1e-3, Ranks())
    first.play(torch.randn(2, 500), torch.randn(2, 500), bf16=False)
    second = Opponent(Adversary(SMALL, 1.0, 0.0), 1e-3, Ranks())
    second.load(first.state())
    waves = torch.randn(2, 500)
    assert torch.equal(first.critics(waves)[0][0], second.critics(waves)[0][0])
