"""Weights in 8 bits: int8 with one scale for each output channel, and float32 again when a checkpoint is loaded.

Symmetric, per channel, rounded to nearest (Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient
inference", sec. 3.1). It makes files smaller; models still compute in float32 or bfloat16.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Smaller tensors (norms, biases, short filters) stay float16: they are a few percent of a file.
_MIN_ELEMENTS = 4096
_STEPS = 127
_SCALE = ".scale"  # suffix of the name of a tensor of scales


def quantized(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Quantize large weight tensors to int8.

    Args:
        weights: Tensors by name, on the CPU.

    Returns:
        The same names. A floating-point tensor of two or more dimensions and at least 4096 elements is int8 and has a
        tensor ``NAME.scale`` (float32, one value for each index of its first dimension) beside it; other
        floating-point tensors are float16.
    """
    stored = {}
    for key, value in weights.items():
        if not value.is_floating_point():
            stored[key] = value
        elif value.ndim < 2 or value.numel() < _MIN_ELEMENTS:
            stored[key] = value.half()
        else:
            scale = (value.float().flatten(1).abs().amax(1) / _STEPS).clamp_min(torch.finfo(torch.float32).tiny)
            stored[key] = (value.float() / _along(scale, value)).round().to(torch.int8)
            stored[key + _SCALE] = scale
    return stored


def dequantized(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint in float32, whatever they were stored as."""
    scales = {key for key in stored if key.endswith(_SCALE) and stored.get(key.removesuffix(_SCALE)) is not None}
    scales = {key for key in scales if stored[key.removesuffix(_SCALE)].dtype == torch.int8}
    weights = {}
    for key, value in stored.items():
        if key not in scales:
            scale = stored.get(key + _SCALE) if value.dtype == torch.int8 else None
            weights[key] = value.float() if scale is None else value.float() * _along(scale, value)
    return weights


def _along(scale: Tensor, value: Tensor) -> Tensor:
    """Reshape ``scale`` (N,) to multiply ``value`` (N, ...)."""
    return scale.reshape(-1, *[1] * (value.ndim - 1))
