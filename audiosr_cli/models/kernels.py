"""Loops over feature maps for the CPU, compiled by numba: the implementation of `fused` if numba is installed.

torch runs a norm, an addition and an activation as three memory-bound passes forward and more backward, and its group
norm is slow in bfloat16. Here there are two passes forward (sums; apply) and two backward, with sums in float32. Maps
are features-last. numba has no bfloat16: such numbers are passed as the uint16 with their bits, which are the upper
half of a float32.

Rows are short (24 features, say), so loops over single rows would not fill vectors. All loops run over *tiles* of
several adjacent rows, with scales and shifts repeated to match. Branches are written as factors (1 or the slope): LLVM
does not vectorise the same choice written with if, and takes four times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

# Numbers in a tile, about: 4 KB per float32 array, so that a handful of them fits into the L1 cache.
_TILE = 1024
# Without nnan and ninf: NaN and infinity must propagate, as the training loop checks for them.
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "fastmath": {"contract", "nsz", "reassoc"},
    "error_model": "numpy",
}


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function``, which takes seconds, and cache it on disk if a folder can be written to."""
    try:
        compiled: Callable[..., Any] = njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # there is no writable folder
        compiled = njit(**_OPTIONS)(function)
    return compiled


@intrinsic
def _float_of(typingctx, bits):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Reinterpret 32 bits as a float32."""

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ARG001
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), code


@intrinsic
def _bits_of(typingctx, number):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Reinterpret a float32 as 32 bits."""

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ARG001
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), code


def _load(value):  # type: ignore[no-untyped-def]
    """Return a number of a map as float32."""
    raise NotImplementedError


@overload(_load)
def _load_typed(value):  # type: ignore[no-untyped-def]
    if value == types.uint16:
        return lambda value: _float_of(np.uint32(value) << np.uint32(16))
    return lambda value: value


def _store(row, k, number):  # type: ignore[no-untyped-def]
    """Write a float32 into a map, rounded to nearest, ties to even."""
    raise NotImplementedError


@overload(_store)
def _store_typed(row, k, number):  # type: ignore[no-untyped-def]  # noqa: ARG001
    if row.dtype == types.uint16:

        def rounded(row, k, number):  # type: ignore[no-untyped-def]
            bits = _bits_of(np.float32(number))
            row[k] = np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))

        return rounded

    def plain(row, k, number):  # type: ignore[no-untyped-def]
        row[k] = number

    return plain


@_compiled
def _tile_length(features, length):  # type: ignore[no-untyped-def]
    """Return the length of a tile: rows of ``features`` numbers, about _TILE in all, at most ``length``."""
    return min(max(_TILE // features, 1) * features, length)


@_compiled
def _tiled(values, tile):  # type: ignore[no-untyped-def]
    """Repeat ``values`` (features,) to the length of a tile: (tile,)."""
    features = len(values)
    out = np.empty(tile, np.float32)
    for k in range(tile):
        out[k] = values[k % features]
    return out


@_compiled
def _by_feature(sums, features):  # type: ignore[no-untyped-def]
    """Add up a tile by feature: (tile,) → (features,) float64."""
    out = np.zeros(features, np.float64)
    for k in range(len(sums)):
        out[k % features] += sums[k]
    return out


@_compiled
def norm_act_forward(x, residual, has_residual, weight, bias, groups, eps, inner, outer, y, mean, rstd, begin, end):  # type: ignore[no-untyped-def]
    """Compute ``y = act(norm(act(x)) + residual)`` for the items ``begin`` to ``end - 1``.

    ``x``, ``residual`` and ``y`` are (B, N · features), the features of a position adjacent; ``inner`` and ``outer``
    are the slopes of the two leaky ReLUs below zero. Also writes ``mean`` and ``rstd`` (B, groups) of the groups.
    """
    length, features = x.shape[1], len(weight)
    tile, size = _tile_length(features, length), features // groups
    scale, shift = np.empty(features, np.float32), np.empty(features, np.float32)
    for item in range(begin, end):
        sums, squares = np.zeros(tile, np.float32), np.zeros(tile, np.float32)
        for start in range(0, length, tile):
            row = x[item, start : start + tile]
            for k in range(len(row)):
                value = _load(row[k])
                side = np.float32(1) if value > 0 else inner
                signal = value * side
                sums[k] += signal
                squares[k] += signal * signal
        total, power = _by_feature(sums, features), _by_feature(squares, features)
        count = length // features * size
        for group in range(groups):
            first = group * size
            center = total[first : first + size].sum() / count
            variance = max(power[first : first + size].sum() / count - center * center, 0.0)
            mean[item, group], rstd[item, group] = center, 1 / np.sqrt(variance + eps)
            for k in range(first, first + size):
                scale[k] = weight[k] * rstd[item, group]
                shift[k] = bias[k] - weight[k] * rstd[item, group] * mean[item, group]
        scales, shifts = _tiled(scale, tile), _tiled(shift, tile)
        for start in range(0, length, tile):
            row, out = x[item, start : start + tile], y[item, start : start + tile]
            if has_residual:
                other = residual[item, start : start + tile]
                for k in range(len(row)):
                    value = _load(row[k])
                    side = np.float32(1) if value > 0 else inner
                    normal = value * side * scales[k] + shifts[k] + _load(other[k])
                    slope = np.float32(1) if normal > 0 else outer
                    _store(out, k, normal * slope)
            else:
                for k in range(len(row)):
                    value = _load(row[k])
                    side = np.float32(1) if value > 0 else inner
                    normal = value * side * scales[k] + shifts[k]
                    slope = np.float32(1) if normal > 0 else outer
                    _store(out, k, normal * slope)


@_compiled
def norm_act_backward(  # type: ignore[no-untyped-def]
    dy, x, y, has_residual, weight, groups, inner, outer, mean, rstd, dx, dresidual, dweight, dbias, dinner, begin, end
):
    """Compute the gradients of ``norm_act_forward`` for the items ``begin`` to ``end - 1``.

    ``dweight`` and ``dbias`` (B, features) and ``dinner`` (B,) are those of each item. The side of the outer activation
    is the sign of ``y``.
    """
    length, features = x.shape[1], len(weight)
    tile, size = _tile_length(features, length), features // groups
    a, b, c = np.empty(features, np.float32), np.empty(features, np.float32), np.empty(features, np.float32)
    for item in range(begin, end):
        sums, products = np.zeros(tile, np.float32), np.zeros(tile, np.float32)
        for start in range(0, length, tile):
            grad, row, out = (
                dy[item, start : start + tile],
                x[item, start : start + tile],
                y[item, start : start + tile],
            )
            for k in range(len(row)):
                g, value = _load(grad[k]), _load(row[k])
                g *= np.float32(1) if _load(out[k]) > 0 else outer
                value *= np.float32(1) if value > 0 else inner
                sums[k] += g
                products[k] += g * value
        total, product = _by_feature(sums, features), _by_feature(products, features)
        count = length // features * size
        for group in range(groups):
            center, r = mean[item, group], rstd[item, group]
            along, across = 0.0, 0.0
            for k in range(group * size, (group + 1) * size):
                normal = (product[k] - center * total[k]) * r
                dweight[item, k], dbias[item, k] = normal, total[k]
                along += weight[k] * total[k] / count
                across += weight[k] * normal / count
            # dx = rstd · (weight · g - along - normalised x · across), by powers of what is at hand
            for k in range(group * size, (group + 1) * size):
                a[k], b[k], c[k] = weight[k] * r, -r * r * across, r * (r * across * center - along)
        at, bt, ct = _tiled(a, tile), _tiled(b, tile), _tiled(c, tile)
        slopes = np.zeros(tile, np.float32)
        for start in range(0, length, tile):
            grad, row, out = (
                dy[item, start : start + tile],
                x[item, start : start + tile],
                y[item, start : start + tile],
            )
            into = dx[item, start : start + tile]
            if has_residual:
                beside = dresidual[item, start : start + tile]
                for k in range(len(row)):
                    g, value = _load(grad[k]), _load(row[k])
                    g *= np.float32(1) if _load(out[k]) > 0 else outer
                    _store(beside, k, g)
                    side = np.float32(1) if value > 0 else inner
                    change = at[k] * g + bt[k] * (value * side) + ct[k]
                    slopes[k] += change * min(value, np.float32(0))
                    _store(into, k, change * side)
            else:
                for k in range(len(row)):
                    g, value = _load(grad[k]), _load(row[k])
                    g *= np.float32(1) if _load(out[k]) > 0 else outer
                    side = np.float32(1) if value > 0 else inner
                    change = at[k] * g + bt[k] * (value * side) + ct[k]
                    slopes[k] += change * min(value, np.float32(0))
                    _store(into, k, change * side)
        dinner[item] = slopes.sum()


@_compiled
def _valid(offset, first, last, rows):  # type: ignore[no-untyped-def]
    """Return the range of the rows ``first`` to ``last - 1`` whose neighbour at ``offset`` exists."""
    return max(first, -offset), min(last, rows - offset)


@_compiled
def depthwise_forward(x, taps, bias, dilation, y, begin, end):  # type: ignore[no-untyped-def]
    """Compute ``y[l] = bias + Σ_k taps[k] · x[l + (k - K // 2) · dilation]`` for the items ``begin`` to ``end - 1``.

    ``x`` and ``y`` (B, L · features), with zeros outside of ``x``; ``taps`` (K, features) float32.
    """
    features, kernel = len(bias), len(taps)
    rows = x.shape[1] // features
    tile = _tile_length(features, x.shape[1])
    step = tile // features
    tiled = np.empty((kernel, tile), np.float32)
    for tap in range(kernel):
        tiled[tap] = _tiled(taps[tap], tile)
    start_values = _tiled(bias, tile)
    sums = np.empty(tile, np.float32)
    for item in range(begin, end):
        for first in range(0, rows, step):
            last = min(first + step, rows)
            sums[:] = start_values
            for tap in range(kernel):
                offset = (tap - kernel // 2) * dilation
                low, high = _valid(offset, first, last, rows)
                if low < high:
                    source = x[item, (low + offset) * features : (high + offset) * features]
                    weight = tiled[tap, (low - first) * features : (high - first) * features]
                    total = sums[(low - first) * features : (high - first) * features]
                    for k in range(len(source)):
                        total[k] += weight[k] * _load(source[k])
            out = y[item, first * features : last * features]
            for k in range(len(out)):
                _store(out, k, sums[k])


@_compiled
def depthwise_backward(dy, x, taps, dilation, dx, dtaps, dbias, begin, end):  # type: ignore[no-untyped-def]
    """Compute the gradients of ``depthwise_forward``; ``dtaps`` (B, K, features), ``dbias`` (B, features)."""
    features, kernel = taps.shape[1], len(taps)
    rows = x.shape[1] // features
    tile = _tile_length(features, x.shape[1])
    step = tile // features
    tiled = np.empty((kernel, tile), np.float32)
    for tap in range(kernel):
        tiled[tap] = _tiled(taps[tap], tile)
    sums = np.empty(tile, np.float32)
    for item in range(begin, end):
        products, biases = np.zeros((kernel, tile), np.float32), np.zeros(tile, np.float32)
        for first in range(0, rows, step):
            last = min(first + step, rows)
            sums[:] = 0
            own = dy[item, first * features : last * features]
            for k in range(len(own)):
                biases[k] += _load(own[k])
            for tap in range(kernel):
                offset = (tap - kernel // 2) * dilation
                low, high = _valid(-offset, first, last, rows)
                if low < high:
                    source = dy[item, (low - offset) * features : (high - offset) * features]
                    weight = tiled[tap, (low - first) * features : (high - first) * features]
                    total = sums[(low - first) * features : (high - first) * features]
                    for k in range(len(source)):
                        total[k] += weight[k] * _load(source[k])
                low, high = _valid(offset, first, last, rows)
                if low < high:
                    grad = dy[item, low * features : high * features]
                    neighbour = x[item, (low + offset) * features : (high + offset) * features]
                    product = products[tap, (low - first) * features : (high - first) * features]
                    for k in range(len(grad)):
                        product[k] += _load(grad[k]) * _load(neighbour[k])
            into = dx[item, first * features : last * features]
            for k in range(len(into)):
                _store(into, k, sums[k])
        for tap in range(kernel):
            dtaps[item, tap] = _by_feature(products[tap], features)
        dbias[item] = _by_feature(biases, features)
