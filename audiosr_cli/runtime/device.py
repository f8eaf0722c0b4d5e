"""Which device computes, and in which numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from audiosr_cli.errors import UsageError

Precision = Literal["auto", "float32", "bf16"]

_MOST_THREADS = 4  # each holds the feature maps of a window


def pick_device(name: str) -> str:
    """``auto`` is CUDA where there is one. Raises UsageError on ``cuda`` without one, never falls back."""
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"unknown device {name!r}; auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no CUDA device is available here; use --device cpu or auto")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def computes_bf16(device: str) -> bool:
    """Whether bf16 is faster than float32 there: CPUs that only emulate it convolve ten times slower."""
    if device != "cpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def pick_bf16(precision: Precision, device: str) -> bool:
    """Whether networks run in bf16: where it is faster, unless ``precision`` says."""
    return computes_bf16(device) if precision == "auto" else precision == "bf16"


def pick_threads() -> int:
    """How many windows are computed at once: as many as torch would have threads, within bounds for memory."""
    return min(torch.get_num_threads(), _MOST_THREADS)


@contextmanager
def float32_products(device: str, exact: bool) -> Iterator[None]:
    """Have CUDA round the factors of float32 products to TF32's 10 bits unless ``exact``.

    By default torch does so in convolutions. Where networks run in bf16 anyway (7 bits), what is left in float32 may
    as well; where float32 was asked for, it is what a user gets. Nothing changes on other devices.
    """
    if device != "cuda":
        yield
        return
    products: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in products]
    try:
        for backend in products:
            backend.allow_tf32 = not exact
        yield
    finally:
        for backend, allowed in zip(products, before, strict=True):
            backend.allow_tf32 = allowed
