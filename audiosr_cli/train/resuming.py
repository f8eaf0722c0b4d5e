"""The settings of a run, and what a resume changes about them."""

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

# Plain values by their names in the config, such as "[loop] learning_rate".
Settings = dict[str, Any]

# Settings that do not count as changes; most resumes change the budget.
_IGNORED = {"minutes", "steps", "valid_every_min", "save_every_min", "compile"}
# Fields of a task that are not settings; a state with another [model] is not resumed at all.
_FIXED = {"spec", "metric"}
# Entries of states written before version 0.2, and their names now.
_FORMER_NAMES = {
    "heard_s": "audio_s",
    "stale": "stale_validations",
    "turn": "next_slot",
    "opponent": "discriminators",
    "partner": "joint_model",
    "aids": "auxiliary",
}


def training_settings(config: RunConfig, recordings: Recordings, processes: int) -> Settings:
    """Collect everything besides the model that shapes the weights.

    Args:
        config: The run's configuration.
        recordings: The corpora of the run; the settings describe their content, as folders may move.
        processes: Number of processes that train together, each with its own batches.

    Returns:
        Values that JSON and ``torch.load(weights_only=True)`` can read.
    """
    loop = {key: value for key, value in asdict(config.loop).items() if key not in _IGNORED}
    task = {key: value for key, value in asdict(config.task).items() if key not in _FIXED}  # type: ignore[call-overload]
    settings = dict(_flatten("loop", loop)) | dict(_flatten("task", task)) | dict(_flatten("data", asdict(config.data)))
    corpora = {"training": recordings.train, "validation": recordings.valid, "noise": recordings.noise}
    settings |= {f"{name} recordings": _content(corpus) for name, corpus in corpora.items()}
    values: Settings = json.loads(json.dumps(settings | {"number of processes": processes}))
    return values


def current_names(state: dict[str, Any]) -> dict[str, Any]:
    """Rename the entries of a state that an earlier version of this program wrote."""
    renamed = {_FORMER_NAMES.get(key, key): value for key, value in state.items()}
    discriminators = renamed.get("discriminators")
    if discriminators and "critics" in discriminators:
        renamed["discriminators"] = {
            "discriminators": discriminators["critics"],
            "optimizer": discriminators["optimizer"],
        }
    return renamed


def changed_settings(before: Settings, now: Settings) -> str:
    """Describe every setting that differs.

    A setting that is only on one side is ignored: it belongs to another version of this program.

    Args:
        before: The settings of the saved state.
        now: Those of this call.

    Returns:
        One line that names each difference with both values; empty if there is none.
    """
    changes = [
        f"{name} = {_format(now[name])} (before: {_format(before[name])})"
        for name in now
        if name in before and before[name] != now[name]
    ]
    if not changes:
        return ""
    return f"settings have changed since this run was saved; it continues with the new ones: {', '.join(changes)}"


def _flatten(section: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the values of nested tables by their TOML names, as in "[task.mixing] spread_db"."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(f"{section}.{key}", value)
        else:
            yield f"[{section}] {key}", value


def _content(corpus: Corpus | None) -> str:
    """Describe recordings by count, total duration, and a checksum of their lengths and bandwidths."""
    if corpus is None:
        return "none"
    entries = sorted(zip(corpus.lengths.tolist(), corpus.bandwidth.round().tolist(), strict=True))
    checksum = hashlib.blake2b(repr(entries).encode(), digest_size=4).hexdigest()
    return f"{len(entries)} of {corpus.seconds / 3600:.3f} h, checksum {checksum}"


def _format(value: Any) -> str:
    """Format a value as in TOML; text as it is."""
    return value if isinstance(value, str) else json.dumps(value)
