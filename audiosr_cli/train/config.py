"""Read the TOML config of a training run: model, data, task, loop and model card."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audiosr_cli.config import fill, hint
from audiosr_cli.errors import ModelError, TrainingError, UsageError
from audiosr_cli.files.parsing import parse_toml
from audiosr_cli.models import Config, architectures, make_config
from audiosr_cli.train.checks import within
from audiosr_cli.train.coded import CodedCopies
from audiosr_cli.train.loop_config import LoopConfig
from audiosr_cli.train.tasks import TASKS, TrainingTask

_SECTIONS = ("model", "data", "task", "loop", "card")
# Training tasks whose models are for a task of another name.
_MODEL_TASKS = {"speech-and-rest": "separate"}


@dataclass(frozen=True)
class DataConfig:
    """The recordings of a run. All folders are relative to ``--data``.

    Attributes:
        train: Folders of training recordings.
        valid: Folders of validation recordings.
        noise: Folders of noise for training.
        rir: Folders of measured room impulse responses.
        valid_noise: Folders of noise for validation scores.
        shares: Probability of each folder of ``train``, up to a factor. Without it all speakers are equally likely.
        balance: Within a folder, a speaker with n seconds is drawn in proportion to n ** balance: 0 makes all speakers
            equally likely, 1 all seconds of audio.
        full_band_share: Of the draws from each folder, the share of its full-band speakers, most of whose audio
            has a bandwidth of at least 95 % of half the model's rate; 0 does not tell them apart.
        table: A CSV with the speaker and bandwidth of recordings.
        min_bandwidth_hz: Training recordings with a lower bandwidth in ``table`` are left out, in Hz.
        min_seconds: Shorter training recordings are left out.
        coded: Copies that went through lossy codecs; inputs of upsamplers with ``[task] coded_prob``.
    """

    train: tuple[str, ...]
    valid: tuple[str, ...]
    noise: tuple[str, ...] = ()
    rir: tuple[str, ...] = ()
    valid_noise: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    balance: float = 0.0
    full_band_share: float = 0.0
    table: str = ""
    min_bandwidth_hz: float = 0.0
    min_seconds: float = 0.0
    coded: CodedCopies = field(default_factory=CodedCopies)

    def __post_init__(self) -> None:
        within(self, 0, 1, "balance", "full_band_share")
        within(self, 0, float("inf"), "min_bandwidth_hz", "min_seconds")


@dataclass(frozen=True)
class Card:
    """Text for the model card, stored with the weights.

    Attributes:
        data: The training data.
        licence: Licences of weights and data.
        description: What the model is for.
    """

    data: str = ""
    licence: str = ""
    description: str = ""


@dataclass(frozen=True)
class RunConfig:
    """A checked config.

    Attributes:
        architecture: Name of the model's architecture.
        model: Config of the model that users run.
        training_model: ``model`` with the changes of [model.training], whose weights have the same shapes: for example
            zero padding during training for a model that streams without.
        data: The recordings.
        task: What the model is trained for.
        loop: Budget, optimizer and schedule.
        card: Text for the model card.
    """

    architecture: str
    model: Config
    training_model: Config
    data: DataConfig
    task: TrainingTask
    loop: LoopConfig
    card: Card = field(default_factory=Card)


def read_config(path: Path) -> RunConfig:
    """Read and check a config.

    Raises:
        UsageError: If a key is unknown or a value is impossible.
        TrainingError: If the file cannot be read.
    """
    try:
        tables = parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
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
        raise UsageError(f"[model] training = {changed!r}: must be a table")
    config, training = make_config(architecture, shape), make_config(architecture, shape | changed)
    if _MODEL_TASKS.get(name, name) not in (training.spec.task, architecture):
        raise UsageError(f"[task] name = {name!r}: {architecture} is a model for the task {training.spec.task!r}")
    if training.spec.channels != 1:
        raise UsageError(
            f"[model] channels = {training.spec.channels}: must be 1; training mixes recordings down to one channel"
        )
    return RunConfig(
        architecture,
        config,
        training,
        fill(DataConfig, "data", tables["data"]),
        fill(TASKS[name], "task", task, {"spec": training.spec, "metric": TASKS[name].metric}),
        fill(LoopConfig, "loop", tables.get("loop", {})),
        fill(Card, "card", tables.get("card", {})),
    )


def _table(tables: dict[str, Any], name: str) -> dict[str, Any]:
    table = tables[name]
    if not isinstance(table, dict):
        raise UsageError(f"[{name}] = {table!r}: must be a table")
    return table
