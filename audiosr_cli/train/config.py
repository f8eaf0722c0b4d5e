"""A training run as TOML: what model, on which recordings, by which task, for how long."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audiosr_cli.config import fill, hint
from audiosr_cli.errors import ModelError, TrainingError, UsageError
from audiosr_cli.models import Config, architectures, make_config
from audiosr_cli.train.checks import within
from audiosr_cli.train.loop_config import LoopConfig
from audiosr_cli.train.tasks import TASKS, Task

_SECTIONS = ("model", "data", "task", "loop", "card")


@dataclass(frozen=True)
class DataConfig:
    """Folders below the data folder.

    ``shares`` weighs the folders of ``train`` against each other, ``balance`` the speakers within each by their
    length (0: all alike, 1: every second of audio alike). ``rir`` holds impulse responses of rooms. ``valid_noise`` is
    for scores only. ``table`` is a CSV below the data folder: see ``data.read_table``; ``min_bandwidth_hz`` leaves out
    files of ``train`` that it says end lower, ``min_seconds`` those that are shorter.
    """

    train: tuple[str, ...]
    valid: tuple[str, ...]
    noise: tuple[str, ...] = ()
    rir: tuple[str, ...] = ()
    valid_noise: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    balance: float = 0.0
    table: str = ""
    min_bandwidth_hz: float = 0.0
    min_seconds: float = 0.0

    def __post_init__(self) -> None:
        within(self, 0, 1, "balance")
        within(self, 0, float("inf"), "min_bandwidth_hz", "min_seconds")


@dataclass(frozen=True)
class Card:
    """What nobody but the trainer knows of the data: goes into the weights' file."""

    data: str = ""
    licence: str = ""
    description: str = ""


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
    task: Task
    loop: LoopConfig
    card: Card = field(default_factory=Card)


def read_config(path: Path) -> RunConfig:
    """Parse a run's TOML. Raises UsageError on what is unknown in it, TrainingError where the file cannot be read."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"{path}: cannot be read as TOML: {error}") from error
    try:
        return _run(tables)
    except (ModelError, UsageError) as error:
        raise UsageError(f"{path}: {error}") from error


def _run(tables: dict[str, Any]) -> RunConfig:
    if unknown := sorted(set(tables) - set(_SECTIONS)):
        raise UsageError(f"unknown section [{unknown[0]}]{hint(unknown[0], _SECTIONS)}")
    if missing := [name for name in ("model", "data", "task") if name not in tables]:
        raise UsageError(f"section [{missing[0]}] is missing")
    shape, task = (dict(_table(tables, name)) for name in ("model", "task"))
    architecture, name = shape.pop("architecture", None), task.pop("name", None)
    if architecture not in architectures():
        raise UsageError(f"[model] architecture = {architecture!r}; known: {', '.join(architectures())}")
    if name not in TASKS:
        raise UsageError(f"[task] name = {name!r}; known: {', '.join(sorted(TASKS))}")
    changed = shape.pop("training", {})
    if not isinstance(changed, dict):
        raise UsageError(f"[model] training = {changed!r}: a table is wanted")
    config, training = make_config(architecture, shape), make_config(architecture, shape | changed)
    if name not in (training.spec.task, architecture):
        raise UsageError(f"[task] name = {name!r}: {architecture} is a model for {training.spec.task!r}")
    if training.spec.channels != 1:
        raise UsageError(f"[model] channels = {training.spec.channels}: training is for one channel, as recordings are")
    return RunConfig(
        architecture,
        config,
        training,
        fill(DataConfig, "data", tables["data"]),
        fill(TASKS[name], "task", task, {"spec": training.spec, "figure": TASKS[name].figure}),
        fill(LoopConfig, "loop", tables.get("loop", {})),
        fill(Card, "card", tables.get("card", {})),
    )


def _table(tables: dict[str, Any], name: str) -> dict[str, Any]:
    table = tables[name]
    if not isinstance(table, dict):
        raise UsageError(f"[{name}]: a table is wanted, not {table!r}")
    return table
