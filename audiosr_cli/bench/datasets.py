"""Folders of references: their layout, and the scores of a candidate on one; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from audiosr_cli.errors import UsageError

QualityTask = Literal["separate", "upsample"]


@dataclass(frozen=True)
class Quality:
    """Scores of a candidate on a folder.

    Attributes:
        model: Label of the candidate or baseline.
        condition: Number of speakers, or the sample rates that were restored.
        files: Number of recordings.
        cpu_per_s: CPU seconds per second of audio, start-up included; None if nothing was run.
        figures: Mean of every metric; for the lag, the value furthest from 0.
    """

    model: str
    condition: str
    files: int
    cpu_per_s: float | None
    figures: Mapping[str, float] = field(default_factory=dict)


def task_of(folder: Path) -> QualityTask:
    """Detect which of the two layouts ``folder`` has. Raises UsageError if it has neither."""
    if not folder.is_dir():
        raise UsageError(f"--quality {folder}: no such folder")
    if (folder / "mix").is_dir() and (folder / "s1").is_dir():
        return "separate"
    if any(folder.glob("*.wav")):
        return "upsample"
    raise UsageError(f"--quality {folder}: expected mix/*.wav with s1/*.wav, s2/*.wav, or full-band references *.wav")
