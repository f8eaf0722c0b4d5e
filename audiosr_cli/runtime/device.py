"""Chooses the device, the precision and the number of threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch

from audiosr_cli.errors import UsageError
from audiosr_cli.runtime.device_names import check_device_name, device_type

Precision = Literal["auto", "float32", "bf16"]

# Each thread holds the feature maps of a window, so more threads need more memory.
_MAX_THREADS = 4


def pick_device(name: str) -> str:
    """Choose the device.

    Args:
        name: "cpu"; "cuda", or "cuda:1" for the second GPU; or "auto": CUDA if there is a CUDA device, else the CPU.

    Returns:
        "cpu", "cuda" or "cuda:N".

    Raises:
        UsageError: If the name is unknown, or the device does not exist.
    """
    check_device_name(name)
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise UsageError(f"--device {name}: no CUDA device is available; use --device cpu or auto")
    _, _, number = name.partition(":")
    if number and int(number) >= (count := torch.cuda.device_count()):
        raise UsageError(f"--device {name}: no such device; the last one is cuda:{count - 1}")
    return "cuda" if name == "auto" else name


def computes_bf16(device: str) -> bool:
    """Return whether ``device`` computes in bfloat16 natively; CPUs that emulate it are ten times slower."""
    if device_type(device) == "cuda":
        with torch.cuda.device(device) if ":" in device else nullcontext():
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Below these instruction sets, to which a variable can limit it, oneDNN emulates bfloat16, or refuses it (LSTM).
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    if limit and not any(name in limit for name in ("BF16", "FP16", "AMX", "AVX10", "DEFAULT", "ALL")):
        return False
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
        device: Nothing changes unless it is a CUDA device.
        exact: Whether products are exact float32 rather than TF32.
    """
    if device_type(device) != "cuda":
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
