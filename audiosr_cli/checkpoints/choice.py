"""Which bundled model fits: by speakers and quality, by cutoff, or by what is recorded; does not import torch."""

from __future__ import annotations

from typing import Any

from audiosr_cli.checkpoints import catalogue
from audiosr_cli.contract import Kind, ModelSpec
from audiosr_cli.errors import UsageError


def has_separator(speakers: int) -> bool:
    """Check whether a bundled model separates so many speakers."""
    return any(catalogue.speakers_of(spec) == speakers for spec in _specs("separate").values())


def find_separator(speakers: int, fast: bool = False, lowest_rate: bool = False) -> str:
    """Name the bundled model for so many speakers.

    Args:
        speakers: Their number; 1 stands for speech and the rest.
        fast: Whether to prefer the fast one, if there is one.
        lowest_rate: Whether to pick that with the lowest sample rate.

    Returns:
        The name; that of the first one by default.

    Raises:
        UsageError: If there is none.
    """
    specs = _specs("separate")
    matching = [name for name, spec in specs.items() if catalogue.speakers_of(spec) == speakers]
    if not matching:
        available = ", ".join(map(str, sorted({catalogue.speakers_of(spec) for spec in specs.values()})))
        what = "speech from noise" if speakers == 1 else f"{speakers} speakers"
        raise UsageError(
            f"--speakers {speakers}: no bundled model separates {what} (available: {available}); "
            "use --model with your own"
        )
    if lowest_rate:
        return min(matching, key=lambda name: specs[name]["in_rate"])
    quick = [name for name in matching if catalogue.entries()[name].get("quality") == "fast"]
    return quick[0] if fast and quick else matching[0]


def find_restorer(separator: ModelSpec) -> str:
    """Name the bundled restorer for the tracks of a separator, or "none"; it shares the mixture among several."""
    specs = _specs("separate-sr") if separator.sources > 1 else {}
    cutoff_hz = separator.out_rate / 2
    return next((name for name, spec in specs.items() if continues(spec["cutoff_hz"], cutoff_hz)), "none")


def continues(lowest_hz: float, cutoff_hz: float) -> bool:
    """Check that a band from ``lowest_hz`` on begins where a track resampled to end at ``cutoff_hz`` fades out."""
    return 0.8 * cutoff_hz <= lowest_hz <= cutoff_hz


def find_upsampler(kind: Kind) -> str:
    """Name the bundled upsampler for a kind of recordings: the first one that is for it, else the default one."""
    fitting = (name for name in catalogue.names("upsample") if kind in catalogue.entries()[name].get("kinds", ()))
    return next(fitting, catalogue.default_model("upsample"))


def _specs(task: str) -> dict[str, dict[str, Any]]:
    """Return the specs of the bundled models for a task by name, the default's first."""
    entries = catalogue.entries()
    return {
        name: catalogue.metadata(catalogue.folder() / entries[name]["file"])["spec"] for name in catalogue.names(task)
    }
