"""Checks that the config dataclasses run on their values."""

from __future__ import annotations

from typing import Any

from audiosr_cli.errors import UsageError


def within(config: Any, low: float, high: float, *names: str) -> None:
    """Raise UsageError unless each named field is in [low, high]."""
    for name in names:
        value = getattr(config, name)
        if not low <= value <= high:
            limits = f"at least {low:g}" if high == float("inf") else f"between {low:g} and {high:g}"
            raise UsageError(f"{name} = {value}: must be {limits}")


def positive(config: Any, *names: str) -> None:
    """Raise UsageError unless each named field is above 0."""
    for name in names:
        if not 0 < getattr(config, name) < float("inf"):
            raise UsageError(f"{name} = {getattr(config, name)}: must be above 0")


def ascending(config: Any, *names: str) -> None:
    """Raise UsageError unless each named pair is finite and in order."""
    for name in names:
        low, high = getattr(config, name)
        if not -float("inf") < low <= high < float("inf"):
            raise UsageError(f"{name} = {[low, high]}: must be finite, the lower value first")
