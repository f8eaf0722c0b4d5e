"""Chooses the device, the precision and the number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from audiosr_cli.errors import UsageError

Precision = Literal["auto", "float32", "bf16"]

# Each thread holds the feature maps of a window, so more threads need more memory.
_MAX_THREADS = 4


def pick_device(name: str) -> str:
    """Choose the device.

    Args:
        name: "cpu", "cuda", or "auto": CUDA if there is a CUDA device, else the CPU.

    Returns:
        "cpu" or "cuda".

    Raises:
        UsageError: If the name is unknown, or "cuda" is not available.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"unknown device {name!r}; must be auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no CUDA device is available; use --device cpu or auto")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def computes_bf16(device: str) -> bool:
    """Return whether ``device`` computes in bfloat16 natively; CPUs that emulate it are ten times slower."""
    if device != "cpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    features = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def pick_bf16(precision: Precision, device: str) -> bool:
    """Return whether networks run in bfloat16: as ``precision`` says; with "auto" if ``device`` has it natively."""
    return computes_bf16(device) if precision == "auto" else precision == "bf16"


def pick_threads() -> int:
    """Return how many windows to compute in parallel: torch's number of threads, but at most 4."""
    return min(torch.get_num_threads(), _MAX_THREADS)


@contextmanager
def float32_products(device: str, exact: bool) -> Iterator[None]:
    """Set whether CUDA may round the factors of float32 products to TF32's 10 bits of mantissa.

    By default torch does so in convolutions only. If networks run in bfloat16 anyway (7 bits), their remaining float32
    products may use TF32, too; a user who asks for float32 gets float32.

    Args:
        device: Nothing changes unless it is "cuda".
        exact: Whether products are exact float32 rather than TF32.
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
