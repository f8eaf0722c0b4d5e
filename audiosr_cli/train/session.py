"""One process of a run: its progress, its deadline, and the export of current weights."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiosr_cli.checkpoints import parts
from audiosr_cli.checkpoints.store import serialise
from audiosr_cli.errors import OutputError
from audiosr_cli.models import Model

if TYPE_CHECKING:
    from audiosr_cli.train.loop import Trainer

# Time reserved for the shutdown of CUDA and threads: seconds at least, and as a share of the time until the deadline.
_EXIT_S, _EXIT_SHARE = 3.0, 0.01
# Factor on measured durations: the last validation may take longer than earlier ones.
_SAFETY = 1.2
# A measured duration decays by this factor at every measurement, as the first step takes much longer than the others.
_DURATION_DECAY = 0.7
# Share of the time until the deadline that is assumed for an operation not measured yet.
_UNKNOWN_SHARE = 0.15
# Time for one trial of a batch size: seconds at most, and as a share of the time left. About six sizes are tried.
_MAX_TRIAL_S, _TRIAL_SHARE = 4.0, 0.008
# Operations that remain when training ends.
_LAST_OPERATIONS = {"step": 1, "validate": 1, "export": 1, "save": 2}


@dataclass
class RunProgress:
    """The progress of a run; all of it is saved and restored.

    Attributes:
        step: Steps trained.
        minutes: Wall time of all processes so far, in minutes.
        audio_s: Seconds of audio trained on.
        best: Best score so far.
        stale_validations: Validations since the best score, or since the learning rate was halved.
        halvings: How often the learning rate was halved.
        validated_step: Step of the last validation, -1 before the first one.
        validated_minutes: ``minutes`` at the end of the last validation.
        next_slot: Which of the two state files is written next.
    """

    step: int = 0
    minutes: float = 0.0
    audio_s: float = 0.0
    best: float = float("-inf")
    stale_validations: int = 0
    halvings: int = 0
    validated_step: int = -1
    validated_minutes: float = 0.0
    next_slot: int = 0


def process_age() -> float:
    """Return the seconds since this process started; its CPU time if the system does not tell."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return time.process_time()
    return age if ticks and age >= 0 else time.process_time()


class Deadline:
    """The time at which everything must be finished, including the last validation and the last files.

    Args:
        seconds: Seconds from the start of the process.
    """

    def __init__(self, seconds: float) -> None:
        self._end, self._total = time.monotonic() - process_age() + seconds, seconds
        self._exit_s = max(_EXIT_S, _EXIT_SHARE * seconds)
        self.durations: dict[str, float] = {}

    def left(self) -> float:
        """Return the seconds until the deadline."""
        return self._end - time.monotonic()

    def training_left(self) -> float:
        """Return the seconds in which new steps can start, 0 or more."""
        last = sum(count * self.durations.get(name, 0.0) for name, count in _LAST_OPERATIONS.items())
        return max(0.0, self.left() - _SAFETY * last - self._exit_s)

    def has_time_for(self, name: str) -> bool:
        """Return whether one more operation ``name`` would finish in time; one not measured yet may take long."""
        return self.left() > _SAFETY * self.durations.get(name, _UNKNOWN_SHARE * self._total) + self._exit_s

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Measure the duration of an operation: step, validate, export or save."""
        start = time.monotonic()
        yield
        self.durations[name] = max(time.monotonic() - start, _DURATION_DECAY * self.durations.get(name, 0.0))


@dataclass
class Exporter:
    """Writes the current weights into ``folder`` every ``every_s`` seconds, in files of at most ``part_bytes``."""

    folder: Path
    every_s: float = 60.0
    part_bytes: int = 15 << 20
    _due: float = field(default=0.0, init=False)

    def due(self) -> bool:
        """Return whether the next export is due."""
        return time.monotonic() >= self._due

    def write(self, models: Sequence[Model], note: dict[str, Any], step: int) -> list[Path]:
        """Write ``models`` in float16, replacing earlier exports. Raises OutputError."""
        self._due = time.monotonic() + self.every_s
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be created: {error.strerror}") from error
        files = []
        for model in models:
            path = self.folder / f"{model.spec.name}.safetensors"
            files += parts.write(path, serialise(model, note), self.part_bytes, step)
        return files


@dataclass
class Session:
    """The deadline and the exporter of this process; both are optional."""

    deadline: Deadline | None = None
    exporter: Exporter | None = None

    def budget(self, minutes: float, otherwise: float) -> float:
        """Return the run's budget in minutes after ``minutes`` of training; ``otherwise`` without a deadline."""
        return minutes + self.deadline.training_left() / 60 if self.deadline else otherwise

    def is_over(self) -> bool:
        """Return whether no further step may start."""
        return self.deadline is not None and not self.deadline.training_left()

    def trial_s(self) -> float:
        """Return the seconds for the trial of one batch size; none starts after ten times that."""
        left = max(self.deadline.left(), 0.0) if self.deadline else float("inf")
        return min(_MAX_TRIAL_S, _TRIAL_SHARE * left)

    def must_measure(self) -> bool:
        """Return whether there is a deadline and the duration of a validation is not known yet."""
        return self.deadline is not None and "validate" not in self.deadline.durations

    def has_time_for(self, name: str) -> bool:
        """Return whether one more operation ``name`` would finish before the deadline."""
        return self.deadline is None or self.deadline.has_time_for(name)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Measure the duration of an operation, if there is a deadline."""
        if self.deadline is None:
            yield
            return
        with self.deadline.timed(name):
            yield


def snapshot(trainer: Trainer) -> None:
    """Export the current weights (their average, if there is one); a failure is a warning."""
    exporter, progress = trainer.session.exporter, trainer.progress
    if exporter is None or not trainer.ranks.is_leader:
        return
    trainer.deployed.load_state_dict(trainer.average or trainer.model.state_dict())
    models = [trainer.deployed, *([trainer.joint_model] if trainer.joint_model else [])]
    scored = trainer.scored if progress.validated_step == progress.step else {}
    try:
        with trainer.session.timed("export"):
            exporter.write(models, trainer.note | trainer.position() | scored, progress.step)
    except OutputError as error:
        trainer.log.warn(progress.step, str(error))
