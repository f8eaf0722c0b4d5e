"""train/optimizers.py: Muon's update, and that AdamW's is torch's."""

from __future__ import annotations

import pytest
import torch
from corpora import generator
from torch import nn

from audiosr_cli.train.optimizers import Muon, make_optimizer, orthogonalise


@pytest.mark.parametrize("shape", [(64, 64), (32, 200), (200, 32)])
def test_orthogonalise_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=generator()) * torch.logspace(-1, 1, shape[1])
    before = torch.linalg.svdvals(matrix)
    assert before.max() / before.min() > 4
    made = torch.linalg.svdvals(orthogonalise(matrix))
    assert made.max() < 1.3
    assert made.median() > 0.6
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    assert float(nn.functional.cosine_similarity((u @ vh).flatten(), orthogonalise(matrix).flatten(), dim=0)) > 0.95


def test_an_update_has_the_size_of_adamws() -> None:
    weight = nn.Parameter(torch.zeros(64, 32, 1, 5))
    weight.grad = torch.randn(weight.shape, generator=generator())
    Muon([weight], [], 0.01, 0.0, (0.9, 0.98)).step()
    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.2 * 0.01, rel=0.15)


def test_what_does_not_mix_channels_gets_adamws_update() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 16, (1, 5)), nn.Conv2d(16, 16, (1, 5)), nn.Conv2d(16, 2, 1))
    optimizer = make_optimizer("muon", model, 0.01, 0.1, (0.9, 0.98))
    shapes = [sorted(tuple(p.shape) for p in group["params"]) for group in optimizer.param_groups]
    assert shapes[0] == [(16, 16, 1, 5)]
    assert len(shapes[1]) == 5
    twin = nn.Parameter(model[0].weight.detach().clone())
    adamw = torch.optim.AdamW([twin], lr=0.01, weight_decay=0.1, betas=(0.9, 0.98))
    for seed in range(5):
        for p in (*model.parameters(), twin):
            p.grad = torch.randn(p.shape, generator=generator(seed))
        optimizer.step()
        adamw.step()
    torch.testing.assert_close(model[0].weight.detach(), twin.detach(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_resumed_optimizer_goes_on_the_same(name: str) -> None:
    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
        for seed in seeds:
            for p in model.parameters():
                p.grad = torch.randn(p.shape, generator=generator(seed))
            optimizer.step()

    torch.manual_seed(0)
    whole, first, second = (nn.Conv1d(16, 16, 3) for _ in range(3))
    first.load_state_dict(whole.state_dict())
    optimizers = [make_optimizer(name, m, 0.01, 0.1, (0.9, 0.98)) for m in (whole, first, second)]
    steps(whole, optimizers[0], range(6))
    steps(first, optimizers[1], range(3))
    second.load_state_dict(first.state_dict())
    optimizers[2].load_state_dict(optimizers[1].state_dict())
    steps(second, optimizers[2], range(3, 6))
    torch.testing.assert_close(second.weight, whole.weight, atol=1e-6, rtol=1e-6)
