"""Where a run goes on after an interruption: two rotating states, each whole or not there at all."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from audiosr_cli.audio.atomic import atomic_path
from audiosr_cli.errors import OutputError, TrainingError

_NAMES = ("state-0.pt", "state-1.pt")


def exists(folder: Path) -> bool:
    """Whether ``folder`` holds a run."""
    return any((folder / name).exists() for name in _NAMES)


def save(folder: Path, state: dict[str, Any], turn: int) -> None:
    """Write ``state`` atomically over the older of the two. Raises TrainingError where that fails."""
    try:
        with atomic_path(folder / _NAMES[turn % 2]) as part:
            torch.save(state, part)
    except (OSError, RuntimeError, OutputError) as error:  # torch tells of a full disk by a RuntimeError
        reason = f"{error}".splitlines()[0]
        raise TrainingError(f"{folder}: the state cannot be written (is the disk full?): {reason}") from error


def load(folder: Path) -> tuple[dict[str, Any], int]:
    """The newest state that can be read, and the turn that the next one has; tensors on the CPU.

    Raises TrainingError where none can be read.
    """
    found, broken = [], []
    for turn, name in enumerate(_NAMES):
        if not (folder / name).exists():
            continue
        try:
            state = torch.load(folder / name, map_location="cpu", weights_only=True)
            found.append((state["step"], turn, state))
        except (RuntimeError, KeyError, EOFError, OSError, TypeError, UnpicklingError) as error:
            broken.append(f"{folder / name}: {error}".splitlines()[0])
    if not found:
        raise TrainingError(f"no state can be read: {'; '.join(broken) or folder}; train to a new --out")
    _, turn, state = max(found, key=lambda item: item[:2])
    return state, turn + 1
