"""Which device computes, and in which numbers."""

from __future__ import annotations

from typing import Literal

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
