"""Folders of references: which of two layouts they have, and what is told of a subject on one; torch is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from audiosr_cli.errors import UsageError

Task = Literal["separate", "upsample"]


@dataclass(frozen=True)
class Quality:
    """Figures of a subject, means over ``files``; ``lag`` is the one furthest from 0.

    ``cpu_per_s`` are CPU seconds per second of audio with the start of the process; None for what ran nothing.
    """

    model: str
    condition: str
    files: int
    cpu_per_s: float | None
    figures: Mapping[str, float] = field(default_factory=dict)


def task_of(folder: Path) -> Task:
    """Which of the two layouts ``folder`` has. Raises UsageError where it has none."""
    if not folder.is_dir():
        raise UsageError(f"--quality {folder}: no such folder")
    if (folder / "mix").is_dir() and (folder / "s1").is_dir():
        return "separate"
    if any(folder.glob("*.wav")):
        return "upsample"
    raise UsageError(
        f"--quality {folder}: holds neither mix/*.wav with s1/*.wav, s2/*.wav nor full-band references *.wav"
    )
