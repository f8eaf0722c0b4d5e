"""train/gan.py: shapes, gradients, and discriminators that learn and move the generator."""

from __future__ import annotations

import pytest
import torch
from corpora import generator
from torch import nn

from audiosr_cli.train.gan import (
    AdversarialConfig,
    DiscriminatorConfig,
    Discriminators,
    DiscriminatorTrainer,
    adversarial_loss,
    discriminator_loss,
    feature_matching,
)
from audiosr_cli.train.ranks import Ranks

SMALL = DiscriminatorConfig(periods=(2, 3), resolutions=(256,), channels=4)


@pytest.mark.parametrize("length", [2000, 2001])
def test_every_discriminator_scores_and_every_weight_gets_a_gradient(length: int) -> None:
    torch.manual_seed(0)
    discriminators = Discriminators(SMALL)
    outputs = discriminators(torch.randn(3, length))
    assert len(outputs) == 3
    assert all(score.shape[0] == 3 and len(maps) in (4, 5) for score, maps in outputs)
    discriminator_loss(outputs, discriminators(torch.randn(3, length))).backward()
    learning = {name: p.grad for name, p in discriminators.named_parameters() if not name.endswith("out.bias")}
    assert all(grad is not None and grad.abs().sum() > 0 for grad in learning.values())  # a bias pulls both ways


def test_losses_by_hand() -> None:
    fake, real = (
        [(torch.tensor([[-2.0, 0.5]]), [torch.tensor([[1.0]])])],
        [(torch.tensor([[0.0, 3.0]]), [torch.tensor([[2.0]])])],
    )
    assert float(discriminator_loss(fake, real)) == pytest.approx(0.75 + 0.5)
    assert float(adversarial_loss(fake)) == pytest.approx(0.75)
    assert float(feature_matching(fake, real)) == pytest.approx(0.5)


def test_discriminators_learn_to_separate_noise_from_tones() -> None:
    torch.manual_seed(0)
    trainer = DiscriminatorTrainer(AdversarialConfig(SMALL, 1.0, 2.0), 2e-3, Ranks())
    time = torch.arange(2000) / 8000
    tones = torch.sin(2 * torch.pi * (200 + 300 * torch.rand(8, 1, generator=generator())) * time)
    for _ in range(30):
        trainer.step(torch.randn(8, 2000), tones, bf16=False)
    with torch.no_grad():
        outputs = [trainer.discriminators(waves) for waves in (torch.randn(8, 2000), tones)]
    assert all(real.mean() > fake.mean() + 0.5 for (fake, _), (real, _) in zip(*outputs, strict=True))

    estimate = nn.Parameter(torch.randn(8, 2000))
    before = [p.detach().clone() for p in trainer.discriminators.parameters()]
    terms = trainer.step(estimate, tones, bf16=True)
    sum(terms.values()).backward()
    assert set(terms) == {"adversarial", "feature_matching"}
    assert torch.isfinite(estimate.grad).all()
    assert estimate.grad.abs().sum() > 0
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.discriminators.parameters(), strict=True))
    assert all(p.grad is None or p.grad.shape == p.shape for p in trainer.discriminators.parameters())


@pytest.mark.parametrize("config", [AdversarialConfig(SMALL, 1.0, 2.0), AdversarialConfig(SMALL, 0.3, 0.0)])
def test_the_generators_losses_have_their_weights(config: AdversarialConfig) -> None:
    torch.manual_seed(0)
    trainer = DiscriminatorTrainer(config, 0.0, Ranks())  # discriminators that do not learn meanwhile
    estimate, reference = nn.Parameter(torch.randn(4, 2000)), torch.randn(4, 2000)
    with torch.no_grad():
        fake, real = trainer.discriminators(estimate), trainer.discriminators(reference)
    terms = trainer.step(estimate, reference, bf16=False)
    expected = {
        "adversarial": config.adversarial_weight * adversarial_loss(fake),
        "feature_matching": config.feature_matching_weight * feature_matching(fake, real),
    }
    for name, term in terms.items():
        torch.testing.assert_close(term.detach(), expected[name], rtol=1e-4, atol=1e-6)
    terms["adversarial"].backward()
    assert estimate.grad.abs().sum() > 0


def test_resumed_discriminators_are_the_same() -> None:
    torch.manual_seed(0)
    first = DiscriminatorTrainer(AdversarialConfig(SMALL, 1.0, 0.0), 1e-3, Ranks())
    first.step(torch.randn(2, 500), torch.randn(2, 500), bf16=False)
    second = DiscriminatorTrainer(AdversarialConfig(SMALL, 1.0, 0.0), 1e-3, Ranks())
    second.load(first.state())
    waves = torch.randn(2, 500)
    assert torch.equal(first.discriminators(waves)[0][0], second.discriminators(waves)[0][0])
