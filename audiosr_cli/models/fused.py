"""Fused operations that take several passes over memory in torch: norm + residual + activation, depthwise convolution.

On the CPU they are compiled loops if numba is installed (see `kernels`). Otherwise they are the equivalent torch
operations, against which the loops are tested. Figures: docs/experiments/training-speed.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Types that the loops handle.
_DTYPES = (torch.float32, torch.bfloat16)
# bfloat16 numbers in a vector of 256 bits.
_VECTOR = 16
_importing = Lock()


def norm_act(
    x: Tensor,
    norm: nn.GroupNorm,
    residual: Tensor | None = None,
    inner: Tensor | None = None,
    outer: float = 1.0,
) -> Tensor:
    """Compute ``leaky_relu(norm(prelu(x)) + residual)`` of a features-last map.

    Group norm (Wu & He 2018) over all positions and the features of a group; with one group it is the global layer
    norm of Conv-TasNet (Luo & Mesgarani 2019, eq. 8).

    Args:
        x: The map, (B, ..., C), float32 or bfloat16.
        norm: Gains, biases, number of groups and epsilon.
        residual: Added to the output of the norm, of the shape of ``x``.
        inner: Slope (1,) of the PReLU before the norm; None for no PReLU.
        outer: Slope of the leaky ReLU at the end, above 0; 1 for none.

    Returns:
        A map of the shape and type of ``x``.
    """
    if _loops(x) is None:
        return _plain_norm_act(x, norm, residual, inner, outer)
    x = x.contiguous()
    residual = None if residual is None else residual.to(x.dtype).contiguous()
    return _NormAct.apply(x, norm.weight, norm.bias, residual, inner, norm.num_groups, norm.eps, outer)


def depthwise(x: Tensor, conv: nn.Conv1d) -> Tensor:
    """Convolve each feature of a features-last map by itself, with zeros outside of the map.

    Args:
        x: The map, (B, L, C), float32 or bfloat16.
        conv: A depthwise convolution with a bias and an odd kernel, whose padding keeps the length.

    Returns:
        A map of the shape and type of ``x``.
    """
    if _loops(x) is None:
        return conv(x.transpose(1, 2)).transpose(1, 2)
    return _Depthwise.apply(x.contiguous(), conv.weight, conv.bias, int(conv.dilation[0]))


def kernels() -> ModuleType | None:
    """Return the compiled loops; None if numba is not installed or cannot be loaded."""
    with _importing:  # numba must not be imported by two threads at once
        return _kernels()


@cache
def _kernels() -> ModuleType | None:
    try:
        from audiosr_cli.models import kernels as loops
    except (ImportError, OSError, MemoryError, AttributeError):  # all but the first occur when memory is short
        return None
    return loops


def _loops(x: Tensor) -> ModuleType | None:
    """Return the loops for ``x``, or None if torch's operations are to be used.

    Training always uses the loops. In inference numba takes 0.4 s to load, which does not pay for short recordings,
    and the output would depend on whether it is installed. So inference uses them only with ``AUDIOSR_NUMBA=1``, and
    only in bfloat16, where they save a fifth at most. With ``AUDIOSR_NUMBA=0`` they are never used.
    """
    if x.device.type != "cpu" or x.dtype not in _DTYPES or torch.compiler.is_compiling():
        return None
    setting = os.environ.get("AUDIOSR_NUMBA", "")
    if setting == "0" or not (torch.is_grad_enabled() or (setting == "1" and x.dtype == torch.bfloat16)):
        return None
    return kernels()


def _plain_norm_act(
    x: Tensor, norm: nn.GroupNorm, residual: Tensor | None, inner: Tensor | None, outer: float
) -> Tensor:
    """Compute ``norm_act`` by torch, which rounds in another order.

    On CPUs the norm is in float32 if the features do not fill vectors of bfloat16: torch is four times slower then.
    """
    h = x if inner is None else F.prelu(x, inner.to(x.dtype))
    kind = torch.float32 if x.device.type == "cpu" and x.shape[-1] % _VECTOR else x.dtype
    h = F.group_norm(h.to(kind).movedim(-1, 1), norm.num_groups, norm.weight, norm.bias, norm.eps)
    h = h.movedim(1, -1).to(x.dtype)
    h = h if residual is None else residual + h
    return h if outer == 1 else F.leaky_relu(h, outer)


def _rows(x: Tensor) -> np.ndarray[Any, Any]:
    """Return a view of a contiguous map (B, ...) as (B, N), of bfloat16 as the uint16 with its bits."""
    flat = x.detach().reshape(len(x), -1)
    return flat.view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else flat.numpy()


def _vector(x: Tensor) -> np.ndarray[Any, Any]:
    """Return parameters as a contiguous float32 array."""
    return x.detach().float().contiguous().numpy()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "fused")


def _each(items: int, compute: Callable[[int, int], None]) -> None:
    """Compute all items, in as many threads as torch's operators use here."""
    threads = min(torch.get_num_threads(), items)
    if threads < 2:
        compute(0, items)
        return
    bounds = [round(i * items / threads) for i in range(threads + 1)]
    for future in [_pool(threads).submit(compute, *part) for part in pairwise(bounds)]:
        future.result()


class _NormAct(torch.autograd.Function):
    """`norm_act` by the loops, with its gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        residual: Tensor | None,
        inner: Tensor | None,
        groups: int,
        eps: float,
        outer: float,
    ) -> Tensor:
        """Compute the map; see `norm_act`."""
        y, slope = torch.empty_like(x), np.float32(1 if inner is None else float(inner))
        mean, rstd = (np.empty((len(x), groups), np.float32) for _ in range(2))
        rows, other, out = _rows(x), _rows(x if residual is None else residual), _rows(y)
        gains, biases = _vector(weight), _vector(bias)
        compute = _function("norm_act_forward")
        _each(
            len(x),
            lambda begin, end: compute(
                rows, other, residual is not None, gains, biases, groups, eps, slope, np.float32(outer),
                out, mean, rstd, begin, end,
            ),
        )  # fmt: skip
        ctx.save_for_backward(x, y if outer != 1 else x, weight)
        ctx.statistics, ctx.slopes = (mean, rstd), (slope, np.float32(outer))
        ctx.groups, ctx.has_residual, ctx.inner = groups, residual is not None, inner
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the map, the parameters, the residual and the inner slope."""
        x, y, weight = ctx.saved_tensors
        (mean, rstd), (inner, outer) = ctx.statistics, ctx.slopes
        dx, dresidual = torch.empty_like(x), torch.empty_like(x) if ctx.has_residual else None
        dweight, dbias = (np.empty((len(x), len(weight)), np.float32) for _ in range(2))
        dinner = np.empty(len(x), np.float32)
        grad, rows, out, gains = _rows(dy.to(x.dtype).contiguous()), _rows(x), _rows(y), _vector(weight)
        into = _rows(dx)
        beside = into if dresidual is None else _rows(dresidual)
        compute = _function("norm_act_backward")
        _each(
            len(x),
            lambda begin, end: compute(
                grad, rows, out, ctx.has_residual, gains, ctx.groups, inner, outer, mean, rstd,
                into, beside, dweight, dbias, dinner, begin, end,
            ),
        )  # fmt: skip
        slope = None if ctx.inner is None else torch.from_numpy(dinner).sum().expand_as(ctx.inner)
        return dx, *(torch.from_numpy(part).sum(0) for part in (dweight, dbias)), dresidual, slope, None, None, None


class _Depthwise(torch.autograd.Function):
    """`depthwise` by the loops, with its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
        """Compute the map; see `depthwise`."""
        y = torch.empty_like(x)
        rows, taps, biases, out = _rows(x), _vector(weight[:, 0].T), _vector(bias), _rows(y)
        compute = _function("depthwise_forward")
        _each(len(x), lambda begin, end: compute(rows, taps, biases, dilation, out, begin, end))
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the map, the kernel and the bias."""
        x, weight = ctx.saved_tensors
        dx = torch.empty_like(x)
        grad, rows, taps, into = _rows(dy.to(x.dtype).contiguous()), _rows(x), _vector(weight[:, 0].T), _rows(dx)
        dtaps, dbias = np.empty((len(x), *taps.shape), np.float32), np.empty((len(x), len(weight)), np.float32)
        compute = _function("depthwise_backward")
        _each(len(x), lambda begin, end: compute(grad, rows, taps, ctx.dilation, into, dtaps, dbias, begin, end))
        return dx, torch.from_numpy(dtaps).sum(0).T.unsqueeze(1), torch.from_numpy(dbias).sum(0), None


def _function(name: str) -> Callable[..., None]:
    """Return the compiled loop ``name``."""
    function: Callable[..., None] = getattr(kernels(), name)
    return function
