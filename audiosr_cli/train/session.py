"""One sitting of a run: how far it is, when it has to be over, and where the current weights go meanwhile."""

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

_EXIT_S, _EXIT_SHARE = 3.0, 0.01  # at least, and of all the time: until CUDA and threads are shut down
_SAFETY = 1.2  # the last validation may take longer than those before
_FORGET = 0.7  # of a duration that was once measured: the first step of all takes seconds
_UNKNOWN = 0.15  # of all the time, for what was never measured
_LONGEST_TRIAL_S, _TRIAL_SHARE = 4.0, 0.008  # of what is left, for each of some six batch sizes
_LAST_WORKS = {"step": 1, "validate": 1, "export": 1, "save": 2}  # how often each still comes when time is up


@dataclass
class Progress:
    """How far a run is; everything here survives a resume."""

    step: int = 0
    minutes: float = 0.0
    heard_s: float = 0.0
    best: float = float("-inf")
    stale: int = 0  # validations since the best one, or since the rate was halved
    halvings: int = 0
    validated_step: int = -1
    validated_minutes: float = 0.0
    turn: int = 0  # which of the two states is written next


def process_age() -> float:
    """Return the seconds since this process was started; where the system does not say, the CPU time it has used."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return time.process_time()
    return age if ticks and age >= 0 else time.process_time()


class Deadline:
    """A moment before which everything has to be done, the last validation and the last files included.

    Args:
        seconds: From the start of the process on.

    """

    def __init__(self, seconds: float) -> None:
        self._end, self._total = time.monotonic() - process_age() + seconds, seconds
        self._exit_s = max(_EXIT_S, _EXIT_SHARE * seconds)
        self.durations: dict[str, float] = {}

    def left(self) -> float:
        """Return the seconds until the deadline."""
        return self._end - time.monotonic()

    def training_left(self) -> float:
        """Return the seconds in which steps can still begin, 0 or more."""
        last = sum(count * self.durations.get(name, 0.0) for name, count in _LAST_WORKS.items())
        return max(0.0, self.left() - _SAFETY * last - self._exit_s)

    def has_time_for(self, name: str) -> bool:
        """Whether one more ``name`` would end in time; one that was never measured may take long."""
        return self.left() > _SAFETY * self.durations.get(name, _UNKNOWN * self._total) + self._exit_s

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Measure how long a step, a validation, an export or a save takes."""
        begin = time.monotonic()
        yield
        self.durations[name] = max(time.monotonic() - begin, _FORGET * self.durations.get(name, 0.0))


@dataclass
class Exporter:
    """Writes the current weights into ``folder`` every ``every_s`` seconds, in files of at most ``part_bytes``."""

    folder: Path
    every_s: float = 60.0
    part_bytes: int = 15 << 20
    _due: float = field(default=0.0, init=False)

    def due(self) -> bool:
        """Whether it is time again."""
        return time.monotonic() >= self._due

    def write(self, models: Sequence[Model], note: dict[str, Any], step: int) -> list[Path]:
        """Write ``models`` in float16, replacing what earlier steps left. Raises OutputError."""
        self._due = time.monotonic() + self.every_s
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be made: {error.strerror}") from error
        files = []
        for model in models:
            path = self.folder / f"{model.spec.name}.safetensors"
            files += parts.write(path, serialise(model, note), self.part_bytes, step)
        return files


@dataclass
class Session:
    """What the command line adds to a run in this process; both may be missing."""

    deadline: Deadline | None = None
    exporter: Exporter | None = None

    def budget(self, minutes: float, otherwise: float) -> float:
        """Return the run's whole budget in minutes when ``minutes`` of it are spent; ``otherwise`` without deadline."""
        return minutes + self.deadline.training_left() / 60 if self.deadline else otherwise

    def is_over(self) -> bool:
        """Whether no further step should begin."""
        return self.deadline is not None and not self.deadline.training_left()

    def trial_s(self) -> float:
        """Return how long the trial of one batch size should take, in seconds; no other begins after ten times that."""
        left = max(self.deadline.left(), 0.0) if self.deadline else float("inf")
        return min(_LONGEST_TRIAL_S, _TRIAL_SHARE * left)

    def must_measure(self) -> bool:
        """Whether there is a deadline, and it is unknown how long a validation takes."""
        return self.deadline is not None and "validate" not in self.deadline.durations

    def has_time_for(self, name: str) -> bool:
        """Whether one more ``name`` ends before the deadline."""
        return self.deadline is None or self.deadline.has_time_for(name)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Measure what has to be done again before the deadline."""
        if self.deadline is None:
            yield
            return
        with self.deadline.timed(name):
            yield


def snapshot(trainer: Trainer) -> None:
    """Write the current weights, averaged if they are, to where the session wants them; a failure is a warning."""
    exporter, progress = trainer.session.exporter, trainer.progress
    if exporter is None or not trainer.ranks.leads:
        return
    trainer.deployed.load_state_dict(trainer.average or trainer.model.state_dict())
    models = [trainer.deployed, *([trainer.partner] if trainer.partner else [])]
    scored = trainer.scored if progress.validated_step == progress.step else {}
    try:
        with trainer.session.timed("export"):
            exporter.write(models, trainer.note | trainer.position() | scored, progress.step)
    except OutputError as error:
        trainer.log.write({"event": "warning", "step": progress.step, "text": str(error)})
