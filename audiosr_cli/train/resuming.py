"""What a run is trained with, and what of it a resume changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.tasks import Recordings

if TYPE_CHECKING:
    from audiosr_cli.train.config import RunConfig

Settings = dict[str, Any]  # plain values by what a user calls them, such as "[loop] learning_rate"

# How long a run takes and how often it looks up; another budget is what most resumes are for.
_PACE = {"minutes", "steps", "valid_every_min", "save_every_min", "compile"}
_FIXED = {"spec", "figure"}  # of a task; a state with another [model] is not resumed at all


def training_settings(config: RunConfig, recordings: Recordings, processes: int) -> Settings:
    """Gather everything that shapes the weights besides the model.

    Args:
        config: The run's configuration.
        recordings: The corpora that it names, by whose content data are told apart: folders may move.
        processes: How many processes train together; each has batches of its own.

    Returns:
        Values that JSON and ``torch.load(weights_only=True)`` can read.
    """
    loop = {key: value for key, value in asdict(config.loop).items() if key not in _PACE}
    task = {key: value for key, value in asdict(config.task).items() if key not in _FIXED}  # type: ignore[call-overload]
    settings = dict(_flatten("loop", loop)) | dict(_flatten("task", task)) | dict(_flatten("data", asdict(config.data)))
    corpora = {"training": recordings.train, "validation": recordings.valid, "noise": recordings.noise}
    settings |= {f"{name} recordings": _content(corpus) for name, corpus in corpora.items()}
    plain: Settings = json.loads(json.dumps(settings | {"number of processes": processes}))
    return plain


def changed_settings(before: Settings, now: Settings) -> str:
    """Describe every setting that differs.

    What only one side knows is left out: another version of this program has it, or it had a default before.

    Args:
        before: The settings of the saved state.
        now: Those of this call.

    Returns:
        A line that names each difference with both values; empty if there is none.
    """
    changes = [
        f"{name} = {_shown(now[name])} (before: {_shown(before[name])})"
        for name in now
        if name in before and before[name] != now[name]
    ]
    if not changes:
        return ""
    return f"this run was trained with other settings before; it goes on with the new ones: {', '.join(changes)}"


def _flatten(section: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the values of nested tables by their TOML names, as in "[task.mixing] spread_db"."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(f"{section}.{key}", value)
        else:
            yield f"[{section}] {key}", value


def _content(corpus: Corpus | None) -> str:
    """Describe recordings by their count, length and a checksum of each one's length and bandwidth."""
    if corpus is None:
        return "none"
    each = sorted(zip(corpus.lengths.tolist(), corpus.bandwidth.round().tolist(), strict=True))
    checksum = hashlib.blake2b(repr(each).encode(), digest_size=4).hexdigest()
    return f"{len(each)} of {corpus.seconds / 3600:.3f} h, checksum {checksum}"


def _shown(value: Any) -> str:
    """Write a value as TOML does, a description as it is."""
    return value if isinstance(value, str) else json.dumps(value)
