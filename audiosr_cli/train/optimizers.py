"""Optimizers, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn

NAMES = ("adamw", "muon")

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024: steep at 0, no need to end at exactly 1
_ITERATIONS = 5


def make_optimizer(
    name: str, model: nn.Module, learning_rate: float, weight_decay: float, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    """The optimizer ``name`` for all parameters of ``model``; each group's ``scale`` multiplies the rate of a run.

    Under ``muon`` weights that mix channels are orthogonalised, whatever is left (gains, biases, a first or
    last layer of few channels) has AdamW's update.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in parameters if name == "muon" and _mixes(p)]
    rest = [p for p in parameters if all(p is not q for q in matrices)]
    if not matrices:
        groups = [{"params": rest, "scale": 1.0}]
        return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay, betas=betas, fused=True)
    return Muon(matrices, rest, learning_rate, weight_decay, betas)


def restore(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load what the optimizer has gathered, not its settings: those are this run's. Raises ValueError on a misfit."""
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)


def _mixes(parameter: Tensor) -> bool:
    """Whether it is a matrix, or a convolution's kernel, between more than a few channels."""
    return parameter.ndim >= 2 and min(parameter.shape[:2]) >= 8


class Muon(torch.optim.Optimizer):
    """Muon: momentum whose singular values are all brought near one, so that every direction learns alike.

    Jordan et al. 2024 (kellerjordan.github.io/posts/muon), scaled after Liu et al. 2025 (arXiv 2502.16982,
    sec. 2.2) so that rates and weight decay are AdamW's. A convolution's kernel counts as a matrix of its
    outputs by everything it sums over. ``rest`` is updated by AdamW.
    """

    def __init__(
        self,
        matrices: Sequence[Tensor],
        rest: Sequence[Tensor],
        lr: float,
        weight_decay: float,
        betas: tuple[float, float],
        momentum: float = 0.95,
    ) -> None:
        groups: list[dict[str, Any]] = [{"params": list(matrices), "muon": True, "scale": 1.0}]
        if rest:
            groups.append({"params": list(rest), "muon": False, "scale": 1.0})
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "betas": betas, "momentum": momentum})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every parameter that has a gradient."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    (self._orthogonal_step if group["muon"] else self._adamw_step)(p, p.grad, group)
        return loss

    def _orthogonal_step(self, p: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(state["momentum"], group["momentum"]).flatten(1)  # Nesterov's
        update = orthogonalise(ahead) * (0.2 * max(ahead.shape) ** 0.5)  # RMS 0.2, as AdamW's usually is
        p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update.view_as(p), alpha=group["lr"])

    def _adamw_step(self, p: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (first, second) = self.state[p], group["betas"]
        if not state:
            state |= {"mean": torch.zeros_like(p), "square": torch.zeros_like(p), "step": torch.zeros(())}
        state["step"] += 1
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].lerp_(gradient.square(), 1 - second)
        step = float(state["step"])
        size = (state["square"] / (1 - second**step)).sqrt().add_(1e-8)
        p.mul_(1 - group["lr"] * group["weight_decay"]).addcdiv_(
            state["mean"], size, value=-group["lr"] / (1 - first**step)
        )


def orthogonalise(matrix: Tensor) -> Tensor:
    """The nearest matrix with singular values near one (0.7 to 1.2), by five Newton-Schulz iterations.

    They run on the smaller Gram matrix: x ← (a + b·xxᵀ + c·(xxᵀ)²)·x only ever multiplies from the left, so
    the factors are gathered (in bf16 rounding would grow with every one) and applied once.
    """
    a, b, c = _NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    gram, factors = x @ x.T, torch.eye(len(x), device=x.device)
    for _ in range(_ITERATIONS):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        factors, gram = factor @ factors, factor @ (gram @ factor)
    made: Tensor = factors @ x
    return made.T if tall else made
