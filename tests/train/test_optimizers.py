"""train/optimizers.py: Muon's update, and that AdamW's is torch's."""

from __future__ import annotations

import copy

import pytest
import torch
from corpora import generator
from torch import Tensor, nn

from audiosr_cli.train.optimizers import Muon, make_optimizer, orthogonalise, restore, step_if


@pytest.mark.parametrize("shape", [(64, 64), (32, 200), (200, 32)])
def test_orthogonalise_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=generator()) * torch.logspace(-1, 1, shape[1])
    before = torch.linalg.svdvals(matrix)
    assert before.max() / before.min() > 4
    result = torch.linalg.svdvals(orthogonalise(matrix))
    assert result.max() < 1.3
    assert result.median() > 0.6
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    assert float(nn.functional.cosine_similarity((u @ vh).flatten(), orthogonalise(matrix).flatten(), dim=0)) > 0.95


def test_an_update_has_the_size_of_adamws() -> None:
    weight = nn.Parameter(torch.zeros(64, 32, 1, 5))
    weight.grad = torch.randn(weight.shape, generator=generator())
    Muon([weight], [], 0.01, 0.0, (0.9, 0.98)).step()
    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.2 * 0.01, rel=0.15)


def test_weights_that_are_no_matrices_get_adamws_update() -> None:
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
def test_a_resumed_optimizer_continues_identically(name: str) -> None:
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


def off(result: Tensor, matrix: Tensor) -> float:
    """How far ``result`` is from the iteration's polynomial on the exact singular values, relative."""
    u, values, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.norm()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    exact = (u * values) @ vh
    return float((result - exact).norm() / exact.norm())


@pytest.mark.parametrize(("shape", "most"), [((64, 576), 1e-3), ((576, 64), 1e-3), ((256, 256), 0.05)])
def test_only_large_matrices_are_orthogonalised_in_bf16(shape: tuple[int, int], most: float) -> None:
    matrix = torch.randn(shape, generator=generator())
    assert off(orthogonalise(matrix), matrix) < 1e-3
    error = off(orthogonalise(matrix, bf16=True), matrix)
    assert error < most
    assert (error > 1e-3) == (most > 1e-3)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("shape", [(24, 200), (200, 24), (200, 210)])
def test_a_stack_is_orthogonalised_like_single_matrices(shape: tuple[int, int], bf16: bool) -> None:
    stack = torch.randn(3, *shape, generator=generator())
    each = torch.stack([orthogonalise(matrix, bf16) for matrix in stack])
    torch.testing.assert_close(orthogonalise(stack, bf16), each, atol=2e-3 if bf16 else 1e-5, rtol=0)


class Mixed(nn.Module):
    """Kernels of several shapes and layouts, some of one shape, and what AdamW updates."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.plain = nn.ModuleList(nn.Conv1d(16, 24, 3) for _ in range(3))
        self.square = nn.ModuleList(nn.Conv2d(16, 16, 3) for _ in range(3))
        self.square[:2].to(memory_format=torch.channels_last)
        self.linear, self.last = nn.Linear(200, 200), nn.Conv2d(16, 2, 1)


def pass_gradients(model: nn.Module, seed: int, value: float | None = None) -> None:
    for i, p in enumerate(model.parameters()):
        p.grad = torch.empty_like(p).copy_(torch.randn(p.shape, generator=generator(100 * seed + i)))
        if value is not None:
            p.grad.fill_(value)


def muon(model: nn.Module, stacked: bool) -> Muon:
    optimizer = make_optimizer("muon", model, 0.01, 0.1, (0.9, 0.98))
    assert isinstance(optimizer, Muon)
    assert not optimizer.stacked  # on CPUs
    optimizer.stacked = stacked
    return optimizer


def test_stacked_updates_equal_single_updates() -> None:
    models = [Mixed(), Mixed()]
    optimizers = [muon(model, stacked) for model, stacked in zip(models, (False, True), strict=True)]
    start = [p.detach().clone() for p in models[0].parameters()]
    for seed in range(4):
        for model, optimizer in zip(models, optimizers, strict=True):
            pass_gradients(model, seed)
            optimizer.step()
    for one, other, before in zip(*(model.parameters() for model in models), start, strict=True):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=0)
        assert (one - before).abs().max() > 1e-3
    states = [optimizer.state_dict()["state"] for optimizer in optimizers]
    for index, state in states[0].items():
        assert state.keys() == states[1][index].keys()
        for key, value in state.items():
            torch.testing.assert_close(value, states[1][index][key], atol=1e-6, rtol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_step_that_is_not_finite_changes_nothing(name: str, value: float) -> None:
    models = [Mixed(), Mixed()]
    optimizers = [make_optimizer(name, model, 0.01, 0.1, (0.9, 0.98)) for model in models]
    for seed, bad in ((0, None), (1, value), (2, None)):
        for skips, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
            if skips or bad is None:
                pass_gradients(model, seed, bad)
                step_if(torch.tensor(bad is None), optimizer)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)
    assert not hasattr(optimizers[0], "found_inf")


def test_a_state_of_the_first_versions_can_be_resumed() -> None:
    """Its step counts were on the CPU; its keys are momentum, and mean, square and step."""
    model = Mixed()
    optimizer = muon(model, stacked=True)
    state, count = optimizer.state_dict(), len(list(model.parameters()))
    matrices = len(state["param_groups"][0]["params"])
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state["state"] = {
        i: {"momentum": torch.full_like(p, 0.5)}
        if i < matrices
        else {"mean": torch.full_like(p, 0.5), "square": torch.full_like(p, 0.25), "step": torch.tensor(9.0)}
        for i, p in enumerate(parameters)
    }
    restore(optimizer, state)
    pass_gradients(model, 0)
    optimizer.step()
    state = optimizer.state_dict()["state"]
    assert len(state) == count
    assert {frozenset(one) for one in state.values()} == {
        frozenset({"momentum"}),
        frozenset({"mean", "square", "step"}),
    }
    assert float(state[count - 1]["step"]) == 10
    torch.testing.assert_close(state[0]["momentum"], 0.5 * 0.95 + 0.05 * parameters[0].grad)


def test_a_resumed_optimizer_has_the_settings_of_the_new_call() -> None:
    model = Mixed()
    before = torch.optim.AdamW([{"params": list(model.parameters()), "scale": 1.0}], lr=1.0, foreach=True)
    pass_gradients(model, 0)
    before.step()
    after = make_optimizer("adamw", model, 0.01, 0.1, (0.9, 0.98))
    restore(after, before.state_dict())
    assert (after.param_groups[0]["lr"], after.param_groups[0]["fused"]) == (0.01, True)
    with pytest.raises(ValueError, match="parameter groups"):
        restore(muon(model, stacked=False), before.state_dict())


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_resumed_optimizer_continues_identically_in_another_layout(name: str) -> None:
    """Of weights that were trained channels-last, say, and go on without."""
    x = torch.randn(2, 3, 8, 8, generator=generator(1))

    def network(layout: torch.memory_format) -> tuple[nn.Module, torch.optim.Optimizer]:
        model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3))
        model.to(memory_format=layout)  # type: ignore[call-overload]
        return model, make_optimizer(name, model, 1e-2, 0.0, (0.9, 0.98))

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        (model(x) - 1).square().mean().backward()
        optimizer.step()

    model, optimizer = network(torch.channels_last)
    step(model, optimizer)
    other, resumed = network(torch.contiguous_format)
    other.load_state_dict(model.state_dict())
    restore(resumed, copy.deepcopy(optimizer.state_dict()))
    step(model, optimizer)
    step(other, resumed)
    for weight, same in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(same, weight, rtol=1e-4, atol=1e-5, check_stride=False)
