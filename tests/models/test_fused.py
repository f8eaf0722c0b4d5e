"""Compiled loops compute what torch's operations do, forward and backward."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.models import build, fused, make_config

UNET = {"sample_rate": 8000, "n_fft": 64, "hop_length": 32, "fine": 16, "group": 2, "widths": [8, 16, 16, 16]}
UNET |= {"hidden": 16, "layers": 1, "heads": 2, "context": 0, "core": 2048, "overlap": 512}
TASNET = {"filters": 16, "width": 8, "hidden": 16, "skip": 8, "blocks": 3, "repeats": 1}
TASNET |= {"context": 0, "core": 2048, "overlap": 512}
TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 6e-3}


@pytest.fixture(autouse=True)
def loops(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """numba's, even where the environment switches them off."""
    pytest.importorskip("numba")
    monkeypatch.delenv("AUDIOSR_NUMBA", raising=False)
    fused._kernels.cache_clear()
    yield
    fused._kernels.cache_clear()


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def away(estimate: Tensor, reference: Tensor) -> float:
    return float((estimate.float() - reference).norm() / reference.norm())


def norm_act_by_torch(
    x: Tensor, norm: nn.GroupNorm, residual: Tensor | None, inner: Tensor | None, outer: float
) -> Tensor:
    h = x if inner is None else torch.where(x > 0, x, x * inner)
    h = norm(h.movedim(-1, 1)).movedim(1, -1)
    h = h if residual is None else h + residual
    return F.leaky_relu(h, outer) if outer != 1 else h


def group_norm(groups: int, features: int) -> nn.GroupNorm:
    norm = nn.GroupNorm(groups, features)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    return norm


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("with_residual", "slope", "outer"), [(True, None, 0.1), (False, None, 0.1), (False, 0.25, 1.0), (True, 0.3, 0.2)]
)
@pytest.mark.parametrize("shape", [(2, 7, 5, 24), (3, 300, 16), (1, 1, 8), (2, 40, 1200)])
def test_norm_act_is_torchs(
    shape: tuple[int, ...], with_residual: bool, slope: float | None, outer: float, kind: torch.dtype
) -> None:
    torch.manual_seed(0)
    x, residual, dy = (torch.randn(shape).to(kind) for _ in range(3))
    norm = group_norm(shape[-1] // 8, shape[-1])
    inner = None if slope is None else torch.tensor([slope])
    results = []
    for compute, form in ((fused.norm_act, kind), (norm_act_by_torch, torch.float32)):
        leaves = [x.to(form), *([residual.to(form)] if with_residual else []), *([] if inner is None else [inner])]
        leaves = [leaf.clone().requires_grad_() for leaf in leaves]
        norm.zero_grad()
        y = compute(leaves[0], norm, leaves[1] if with_residual else None, None if inner is None else leaves[-1], outer)
        assert y.dtype == form
        y.backward(dy.to(form))
        results.append([y.detach(), *(leaf.grad for leaf in leaves), norm.weight.grad.clone(), norm.bias.grad.clone()])
    assert fused._loops(x.requires_grad_()) is not None
    for estimate, reference in zip(*results, strict=True):
        cancelling = reference.numel() == 1  # the slope's gradient: a sum over everything
        assert away(estimate, reference) < (30 if cancelling else 1) * TOLERANCE[kind]


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("rows", "features", "kernel", "dilation"), [(50, 24, 3, 1), (50, 24, 3, 16), (9, 2000, 5, 2), (3, 8, 3, 8)]
)
def test_depthwise_is_torchs(rows: int, features: int, kernel: int, dilation: int, kind: torch.dtype) -> None:
    torch.manual_seed(0)
    conv = nn.Conv1d(features, features, kernel, padding=kernel // 2 * dilation, dilation=dilation, groups=features)
    x, dy = (torch.randn(2, rows, features).to(kind) for _ in range(2))
    results = []
    for compute, form in (
        (fused.depthwise, kind),
        (lambda x, conv: conv(x.transpose(1, 2)).transpose(1, 2), torch.float32),
    ):
        leaf = x.to(form).clone().requires_grad_()
        conv.zero_grad()
        y = compute(leaf, conv)
        assert y.dtype == form
        y.backward(dy.to(form))
        results.append([y.detach(), leaf.grad, conv.weight.grad.clone(), conv.bias.grad.clone()])
    for estimate, reference in zip(*results, strict=True):
        assert away(estimate, reference) < TOLERANCE[kind]


def test_items_are_shared_between_threads(threads: Callable[[int], None]) -> None:
    norm, x = group_norm(2, 16), torch.randn(5, 40, 16, requires_grad=True)
    results = []
    for count in (1, 2, 3):
        threads(count)
        x.grad = None
        y = fused.norm_act(x, norm, outer=0.1)
        y.square().sum().backward()
        results.append((y.detach(), x.grad))
    for y, gradient in results[1:]:
        assert torch.equal(y, results[0][0])
        assert torch.equal(gradient, results[0][1])


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(bad: float, kind: torch.dtype) -> None:
    x = torch.randn(1, 30, 8).to(kind)
    x[0, 3, 2] = bad
    x.requires_grad_()
    y = fused.norm_act(x, group_norm(1, 8), outer=0.1)
    y.sum().backward()
    assert not y.isfinite().all()
    assert not x.grad.isfinite().all()


def test_a_constant_map_does_not_divide_by_zero() -> None:
    x = torch.full((1, 100, 8), 1000.0, requires_grad=True)
    norm = group_norm(1, 8)
    y = fused.norm_act(x, norm)
    assert y.isfinite().all()
    assert (y - norm.bias).abs().max() < 0.5


def test_in_use_numba_waits_to_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    x, half = torch.zeros(1, 2, 8), torch.zeros(1, 2, 8, dtype=torch.bfloat16)
    with torch.no_grad():
        assert fused._loops(x) is fused._loops(half) is None
        monkeypatch.setenv("AUDIOSR_NUMBA", "1")
        assert fused._loops(x) is None
        assert fused._loops(half) is not None
    monkeypatch.setenv("AUDIOSR_NUMBA", "0")
    assert fused._loops(half) is None


@pytest.mark.parametrize("error", [ImportError, OSError, MemoryError])
def test_numba_that_cannot_be_loaded_is_done_without(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "audiosr_cli.models.kernels":
                raise error

    monkeypatch.delitem(sys.modules, "audiosr_cli.models.kernels", raising=False)
    monkeypatch.delattr("audiosr_cli.models.kernels", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    assert fused.kernels() is None


def test_without_numba_it_is_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    x, norm = torch.randn(2, 20, 16, requires_grad=True), group_norm(2, 16)
    with_loops = fused.norm_act(x, norm, outer=0.1)
    monkeypatch.setenv("AUDIOSR_NUMBA", "0")
    fused._kernels.cache_clear()
    monkeypatch.setattr(fused, "_NormAct", None)
    torch.testing.assert_close(fused.norm_act(x, norm, outer=0.1), with_loops)


@pytest.mark.parametrize(
    ("architecture", "values"),
    [
        ("spectral_unet", UNET), ("conv_tasnet", TASNET),
    ],
)  # fmt: skip
def test_models_learn_alike_with_and_without(
    architecture: str, values: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = build(architecture, make_config(architecture, values)).train()
    x, results = torch.randn(2, 1, 2048), []
    for switch in ("1", "0"):
        monkeypatch.setenv("AUDIOSR_NUMBA", switch)
        fused._kernels.cache_clear()
        model.zero_grad()
        y = model(x)
        (y * torch.linspace(-1, 1, y.shape[-1])).square().sum().backward()
        results.append([y.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    largest = max(float(reference.norm()) for reference in results[1][1:])
    for loops, reference in zip(*results, strict=True):
        assert float((loops - reference).norm()) < 1e-4 * max(float(reference.norm()), 1e-2 * largest)
