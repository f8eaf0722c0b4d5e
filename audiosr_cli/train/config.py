"""A training run as TOML: what model, on which recordings, by which task, for how long."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from audiosr_cli.errors import TrainingError, UsageError
from audiosr_cli.models import ARCHITECTURES, Config, make_config
from audiosr_cli.train.loop import LoopConfig
from audiosr_cli.train.tasks import TASKS, Task

_SECTIONS = ("model", "data", "task", "loop", "card")
_GIVEN = ("spec", "figure")  # what no file sets


@dataclass(frozen=True)
class DataConfig:
    """Folders below the data folder.

    ``shares`` weighs the folders of ``train`` against each other. ``table`` is a CSV below the data folder:
    see ``data.read_table``; ``min_bandwidth_hz`` leaves out files that it says end lower.
    """

    train: tuple[str, ...]
    valid: tuple[str, ...]
    noise: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    table: str = ""
    min_bandwidth_hz: float = 0.0


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


def _hint(key: str, known: Iterable[str]) -> str:
    close = get_close_matches(key, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def _fill(kind: type[Any], section: str, values: dict[str, Any], **given: Any) -> Any:
    """An instance of the dataclass ``kind`` from a TOML table, sub-tables for its dataclass fields.

    Raises UsageError on unknown keys, with a suggestion, and on values of another type.
    """
    hints = get_type_hints(kind)
    known = {item.name for item in fields(kind)} - set(_GIVEN)
    made = {}
    for key, value in values.items():
        if key not in known:
            raise UsageError(f"[{section}] has no key {key!r}{_hint(key, known)}")
        hint = hints[key]
        if is_dataclass(hint) and isinstance(value, dict):
            made[key] = _fill(hint, f"{section}.{key}", value)  # type: ignore[arg-type]
        else:
            made[key] = _value(f"[{section}] {key}", value, hint)
    missing = [item.name for item in fields(kind) if item.name not in made | given and _required(item)]
    if missing:
        raise UsageError(f"[{section}] wants {missing[0]!r}")
    return kind(**given, **made)


def _required(item: Any) -> bool:
    return item.default is item.default_factory  # both are MISSING


def _value(name: str, value: Any, hint: Any) -> Any:
    """``value`` as ``hint`` wants it, a list as a tuple. Raises UsageError."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple and isinstance(value, list):
        if Ellipsis not in inner and len(value) != len(inner):
            raise UsageError(f"{name} = {value}: {len(inner)} values are wanted")
        return tuple(_value(name, part, inner[0]) for part in value)
    if origin is not None and origin is not tuple:  # Literal
        if value not in inner:
            raise UsageError(f"{name} = {value!r}; known: {', '.join(map(str, inner))}")
        return value
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
    wanted = (int, float) if hint is float else hint
    if origin is tuple or not isinstance(value, wanted) or (isinstance(value, bool) and hint is not bool):
        raise UsageError(f"{name} = {value!r}: {names.get(hint, 'a list')} is wanted")
    return float(value) if hint is float else value


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
        _fill(Card, "card", tables.get("card", {})),
    )
