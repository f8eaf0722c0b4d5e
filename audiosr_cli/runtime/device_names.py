"""Names of devices; does not import torch."""

from __future__ import annotations

import re

from audiosr_cli.errors import UsageError

_NAME = re.compile(r"auto|cpu|cuda(:(0|[1-9]\d{0,3}))?")


def check_device_name(name: str) -> str:
    """Return ``name`` if it can be that of a device: auto, cpu, cuda, or cuda:N for the N-th GPU, counted from 0.

    Raises:
        UsageError: If it is none of these.
    """
    if name == "mps":
        raise UsageError("--device mps: not supported yet; use --device cpu")
    if _NAME.fullmatch(name) is None:
        raise UsageError(f"unknown device {name!r}; must be auto, cpu, cuda or cuda:N")
    return name


def device_type(name: str) -> str:
    """Return the kind of the device called ``name``: "cuda" for "cuda:1"."""
    return name.partition(":")[0]
