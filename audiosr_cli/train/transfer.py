"""Asynchronous copies between host and device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor

# Bytes; a multiple of the size of every element type.
_ALIGNMENT = 16

Context = TypeVar("Context")


def upload(value: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to ``device`` through pinned memory, so that the host does not wait."""
    if device.type != "cuda" or value.device.type != "cpu":
        return value.to(device)
    return value.contiguous().pin_memory().to(device, non_blocking=True)


def upload_all(values: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Copy CPU tensors to ``device``: on CUDA all of them in one copy, for which the host does not wait."""
    if device.type != "cuda":
        return {key: value.to(device) for key, value in values.items()}
    return _unpack(upload(_pack(values), device), values)


def _pack(values: Mapping[str, Tensor]) -> Tensor:
    """Concatenate the bytes of all ``values``, each padded to a multiple of 16: (N,) uint8."""
    parts = []
    for value in values.values():
        raw = value.contiguous().flatten().view(torch.uint8)
        parts += [raw, raw.new_zeros(-len(raw) % _ALIGNMENT)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.uint8)


def _unpack(packed: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return views of ``packed`` (N,) uint8 with the shapes and types of ``like``, in its order."""
    views, start = {}, 0
    for key, value in like.items():
        size = value.numel() * value.element_size()
        views[key] = packed[start : start + size].view(value.dtype).view(value.shape)
        start += size + -size % _ALIGNMENT
    return views


class Readback(Generic[Context]):
    """Values on their way from a device to the host, with a ``context`` that the reader needs.

    Args:
        values: (N,) float32 on any device; the copy is queued after their computation.
        context: Returned unchanged.
    """

    def __init__(self, values: Tensor, context: Context) -> None:
        self.context = context
        on_cuda = values.device.type == "cuda"
        self._host = torch.empty(values.shape, dtype=values.dtype, pin_memory=on_cuda)
        self._host.copy_(values, non_blocking=on_cuda)
        self._arrived = torch.cuda.Event() if on_cuda else None  # type: ignore[no-untyped-call]
        if self._arrived is not None:
            self._arrived.record(torch.cuda.current_stream(values.device))

    def read(self) -> list[float]:
        """Wait for the values and return them."""
        if self._arrived is not None:
            self._arrived.synchronize()
        values: list[float] = self._host.tolist()
        return values
