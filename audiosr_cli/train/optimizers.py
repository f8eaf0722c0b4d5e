"""Optimizers by name: AdamW and Muon."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

NAMES = ("adamw", "muon")

# Coefficients and number of iterations of Jordan et al. 2024: steep at 0, without converging to exactly 1.
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
# Smallest number of rows for which bf16 is faster on CPUs, measured: docs/experiments/muon.md.
_LARGE_ROWS = 192


def make_optimizer(
    name: str,
    model: nn.Module,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
    bf16: bool = False,
) -> torch.optim.Optimizer:
    """Create an optimizer for all parameters of ``model``.

    Each parameter group has a ``scale`` that multiplies the learning rate. With muon, weights between more than a few
    channels are orthogonalised; all others (gains, biases, a first or last layer of few channels) are updated by AdamW.

    Args:
        name: One of NAMES.
        model: The network to train.
        learning_rate: Of both kinds of parameters.
        weight_decay: Decoupled weight decay.
        betas: AdamW's.
        bf16: Whether muon may use bf16 where that is faster.

    Returns:
        The optimizer.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in parameters if name == "muon" and _is_matrix(p)]
    rest = [p for p in parameters if all(p is not q for q in matrices)]
    if not matrices:
        groups = [{"params": rest, "scale": 1.0}]
        return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay, betas=betas, fused=True)
    return Muon(matrices, rest, learning_rate, weight_decay, betas, bf16=bf16)


def step_if(finite: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Step if ``finite`` () bool, on the optimizer's device, is true; otherwise change nothing.

    The device decides, so that the host does not wait. The protocol is that of ``torch.amp.GradScaler``, which torch's
    fused optimizers and Muon follow.
    """
    skipping: Any = optimizer
    skipping.grad_scale, skipping.found_inf = None, (~finite).float()
    try:
        optimizer.step()
    finally:
        del skipping.grad_scale, skipping.found_inf


def restore(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the optimizer's state but keep the settings of this run. Raises ValueError if the groups do not match."""
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    if len(settings) != len(state["param_groups"]):
        raise ValueError("the state has other parameter groups")
    # Settings are replaced before the state is loaded, as they decide the device of a parameter's step count.
    groups = [group | own for group, own in zip(state["param_groups"], settings, strict=True)]
    optimizer.load_state_dict(state | {"param_groups": groups})
    for parameter, own_state in optimizer.state.items():
        for key, value in own_state.items():
            # Fused optimizers iterate in memory order, which depends on the memory layout of the weights.
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                own_state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _is_matrix(parameter: Tensor) -> bool:
    """Return whether a parameter is a matrix or a convolution's kernel between more than a few channels."""
    return parameter.ndim >= 2 and min(parameter.shape[:2]) >= 8


class Muon(torch.optim.Optimizer):
    """Muon: momentum that is orthogonalised, so that all directions of a matrix are updated equally.

    Jordan et al. 2024 (kellerjordan.github.io/posts/muon), scaled after Liu et al. 2025 (arXiv 2502.16982, sec. 2.2) so
    that learning rate and weight decay of AdamW apply. A convolution's kernel counts as a matrix of its outputs by
    everything it sums over. ``rest`` is updated by AdamW.

    Args:
        matrices: Weights with at least two dimensions.
        rest: All other weights.
        lr: Learning rate of both.
        weight_decay: Decoupled weight decay.
        betas: AdamW's.
        momentum: Decay of the momentum of the matrices' gradients.
        bf16: Whether bf16 may be used where it is faster (see ``orthogonalise``).
        stacked: Whether matrices of the same shape are updated together. None means on CUDA only, where a step
            otherwise is thousands of small kernels; on one CPU thread stacking is a fifth slower.
    """

    def __init__(
        self,
        matrices: Sequence[Tensor],
        rest: Sequence[Tensor],
        lr: float,
        weight_decay: float,
        betas: tuple[float, float],
        momentum: float = 0.95,
        bf16: bool = False,
        stacked: bool | None = None,
    ) -> None:
        groups: list[dict[str, Any]] = [{"params": list(matrices), "muon": True, "scale": 1.0}]
        if rest:
            groups.append({"params": list(rest), "muon": False, "scale": 1.0})
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "betas": betas, "momentum": momentum})
        self.bf16 = bf16
        self.stacked = matrices[0].device.type == "cuda" if stacked is None else stacked

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient, unless ``step_if`` prevents it."""
        loss = closure() if closure is not None else None
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not group["muon"]:
                self._adamw_step(parameters, group, found_inf)
            elif self.stacked or found_inf is not None:
                for same_shape in _by_shape(parameters):
                    self._stacked_step(same_shape, group, found_inf)
            else:
                for p in parameters:
                    self._orthogonal_step(p, group)
        return loss

    def _momentum(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        momentum: Tensor = state["momentum"]
        return momentum

    def _orthogonal_step(self, p: Tensor, group: dict[str, Any]) -> None:
        assert p.grad is not None
        momentum = self._momentum(p).lerp_(p.grad, 1 - group["momentum"])
        ahead = p.grad.lerp(momentum, group["momentum"]).flatten(1)  # Nesterov momentum
        update = orthogonalise(ahead, self.bf16) * _scale(ahead)
        p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update.view_as(p), alpha=group["lr"])

    def _stacked_step(self, parameters: list[Tensor], group: dict[str, Any], found_inf: Tensor | None) -> None:
        """Update parameters of one shape and layout at once."""
        momenta = [self._momentum(p) for p in parameters]
        gradient = torch.stack([_matrix(p.grad, p) for p in parameters if p.grad is not None])  # (N, rows, columns)
        before = torch.stack([_matrix(momentum, p) for momentum, p in zip(momenta, parameters, strict=True)])
        after = before.lerp(gradient, 1 - group["momentum"])
        ahead = gradient.lerp_(after, group["momentum"])
        update = orthogonalise(ahead, self.bf16).mul_(_scale(ahead))
        decay: float | Tensor = 1 - group["lr"] * group["weight_decay"]
        if found_inf is not None:
            finite = found_inf == 0
            after, update = torch.where(finite, after, before), torch.where(finite, update, 0.0)
            decay = torch.where(finite, decay, 1.0)
        torch._foreach_copy_(momenta, [_unmatrix(m, p) for m, p in zip(after.unbind(), parameters, strict=True)])
        torch._foreach_mul_(parameters, decay)
        torch._foreach_sub_(
            parameters, [_unmatrix(u, p) for u, p in zip(update.unbind(), parameters, strict=True)], alpha=group["lr"]
        )

    def _adamw_step(self, parameters: list[Tensor], group: dict[str, Any], found_inf: Tensor | None) -> None:
        for p in parameters:
            state = self.state[p]
            if not state:
                state |= {"mean": torch.zeros_like(p), "square": torch.zeros_like(p), "step": torch.zeros(())}
            # States of CUDA runs of version 0.1 have it on the CPU.
            state["step"] = state["step"].to(p.device, torch.float32)
        means, squares, steps = ([self.state[p][key] for p in parameters] for key in ("mean", "square", "step"))
        first, second = group["betas"]
        adamw(
            parameters,
            [p.grad for p in parameters if p.grad is not None],
            means,
            squares,
            [],
            steps,
            fused=True,
            found_inf=found_inf,
            amsgrad=False,
            beta1=first,
            beta2=second,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )


def _scale(matrix: Tensor) -> float:
    """Return the factor that gives an orthogonal (..., rows, columns) update an RMS of 0.2, as AdamW usually has."""
    return 0.2 * math.sqrt(max(matrix.shape[-2:]))


def _by_shape(parameters: list[Tensor]) -> list[list[Tensor]]:
    """Group parameters by shape and memory layout."""
    groups: dict[Any, list[Tensor]] = {}
    for p in parameters:
        groups.setdefault((p.shape, _is_channels_last(p)), []).append(p)
    return list(groups.values())


def _is_channels_last(p: Tensor) -> bool:
    return p.ndim == 4 and not p.is_contiguous() and p.is_contiguous(memory_format=torch.channels_last)


def _matrix(value: Tensor, p: Tensor) -> Tensor:
    """View ``value``, in the memory layout of ``p``, as (outputs, everything summed over) without a copy.

    The order of columns is that in memory, which makes no difference to orthogonalisation.
    """
    return (value.permute(0, 2, 3, 1) if _is_channels_last(p) else value).flatten(1)


def _unmatrix(matrix: Tensor, p: Tensor) -> Tensor:
    """Invert ``_matrix``."""
    if not _is_channels_last(p):
        return matrix.view_as(p)
    outputs, inputs, height, width = p.shape
    return matrix.view(outputs, height, width, inputs).permute(0, 3, 1, 2)


def orthogonalise(matrix: Tensor, bf16: bool = False) -> Tensor:
    """Replace the singular values of a matrix by values near one (0.7 to 1.2), with five Newton-Schulz iterations.

    Jordan et al. 2024. Small matrices, and all if ``bf16`` is false, are iterated on the smaller Gram matrix in
    float32. Large ones, and all on CUDA, are iterated in bf16 as published, with an error of 1 to 3 %. The choice
    depends on shape, device type and ``bf16`` only.

    Args:
        matrix: (..., rows, columns) float32, one matrix or a stack.
        bf16: Whether bf16 may be used where it is faster.

    Returns:
        The same shape, float32.
    """
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    large = x.device.type == "cuda" or x.shape[-2] >= _LARGE_ROWS
    x = _iterate(x.bfloat16()).to(x.dtype) if bf16 and large else _gram_iterate(x)
    return x.mT if tall else x


def _iterate(x: Tensor) -> Tensor:
    """Iterate x ← a·x + (b·A + c·A²)·x with A = x·xᵀ, as published."""
    a, b, c = _NEWTON_SCHULZ
    add = torch.addmm if x.ndim == 2 else torch.baddbmm
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = add(x, add(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _gram_iterate(x: Tensor) -> Tensor:
    """Do the same on the Gram matrix, which is smaller than x.

    x ← (a + b·A + c·A²)·x only multiplies from the left, so the factors are accumulated and applied once. Rounding
    errors grow with each factor, so this needs float32.
    """
    a, b, c = _NEWTON_SCHULZ
    add = torch.addmm if x.ndim == 2 else torch.baddbmm
    gram = x @ x.mT
    factors: Tensor | None = None
    for step in range(_ITERATIONS):
        factor = add(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        factors = factor if factors is None else factor @ factors
        if step + 1 < _ITERATIONS:
            gram = factor @ (gram @ factor)
    assert factors is not None
    return factors @ x
