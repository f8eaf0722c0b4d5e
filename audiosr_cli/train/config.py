"""A training run as TOML: what model, on which recordings, by which task, for how long."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from audiosr_cli.errors import TrainingError, UsageError
from audiosr_cli.models import ARCHITECTURES, Config, make_config
from audiosr_cli.train.loop import LoopConfig
from audiosr_cli.train.tasks import TASKS, TrainingTask

_SECTIONS = ("model", "data", "task", "loop")


@dataclass(frozen=True)
class DataConfig:
    """Folders below the data folder; ``min_bandwidth_hz`` leaves out files that a manifest says end lower."""

    train: tuple[str, ...]
    valid: tuple[str, ...]
    min_bandwidth_hz: float = 0.0


@dataclass(frozen=True)
class RunConfig:
    """Everything a run is made from; ``architecture`` and ``model`` shape the weights.

    ``training_model`` is ``model`` with what [model.training] changes while training: weights of the same
    shapes in a form that learns faster, such as zero padding for a model that streams without.
    """

    architecture: str
    model: Config
    training_model: Config
    data: DataConfig
    task: TrainingTask
    loop: LoopConfig


def _fill(kind: type[Any], section: str, values: dict[str, Any], **given: Any) -> Any:
    """An instance of the dataclass ``kind``; unknown keys are errors with a suggestion."""
    known = {field.name for field in fields(kind)} - set(given) - {"figure"}
    for field in fields(kind):
        if field.type == "float" and not isinstance(values.get(field.name, 0.0), int | float):
            raise UsageError(f"[{section}] {field.name} = {values[field.name]!r}: a number is wanted")
    for key in set(values) - known:
        close = get_close_matches(key, known, 1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"
        raise UsageError(f"[{section}] has no key {key!r}{hint}")
    try:
        return kind(
            **given, **{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        )
    except TypeError as error:
        raise UsageError(f"[{section}]: {error}") from error


def read_config(path: Path) -> RunConfig:
    """Parse a run's TOML. Raises UsageError on unknown keys, TrainingError where the file cannot be read."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"{path}: cannot be read as TOML: {error}") from error
    if unknown := sorted(set(tables) - set(_SECTIONS)):
        raise UsageError(f"{path}: unknown section [{unknown[0]}]; known: {', '.join(_SECTIONS)}")
    if missing := [name for name in ("model", "data", "task") if name not in tables]:
        raise UsageError(f"{path}: section [{missing[0]}] is missing")
    shape, task = dict(tables["model"]), dict(tables["task"])
    architecture, name = shape.pop("architecture", None), task.pop("name", None)
    if architecture not in ARCHITECTURES:
        raise UsageError(f"[model] architecture = {architecture!r}; known: {', '.join(sorted(ARCHITECTURES))}")
    if name not in TASKS:
        raise UsageError(f"[task] name = {name!r}; known: {', '.join(sorted(TASKS))}")
    changed = shape.pop("training", {})
    config, training = make_config(architecture, shape), make_config(architecture, shape | changed)
    return RunConfig(
        architecture,
        config,
        training,
        _fill(DataConfig, "data", tables["data"]),
        _fill(TASKS[name], "task", task, spec=training.spec),
        _fill(LoopConfig, "loop", tables.get("loop", {})),
    )
