"""Which batch size trains on the most hours of audio a minute on this machine."""

from __future__ import annotations

import copy
import json
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from audiosr_cli.errors import TrainingError, UsageError
from audiosr_cli.files.atomic import atomic_path
from audiosr_cli.models import Model
from audiosr_cli.runtime.memory import is_out_of_memory
from audiosr_cli.train.log import Log
from audiosr_cli.train.loop import Trainer
from audiosr_cli.train.loop_config import LoopConfig
from audiosr_cli.train.memory import free_memory, resized
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks import Recordings, Task

_FILE = "batch_size.json"
_LARGEST = 512
_WORTH = 1.05  # a larger batch has to bring so much more; otherwise the smaller one learns more from the same hours
_TRIALS = 10  # for which there is time
_MOST_STEPS = 100  # in one trial

Measure = Callable[[int], float | None]  # batch size → hours of audio a minute, None where it does not work


def best_batch_size(measure: Measure, first: int, largest: int = _LARGEST) -> tuple[int, dict[int, float]]:
    """Search powers of two from ``first`` on upwards; where that brings nothing, downwards.

    Args:
        measure: Returns the hours of audio a minute at a batch size, or None where memory or data do not suffice.
        first: Where to begin; the next lower power of two is taken.
        largest: Where to end.

    Returns:
        The smallest of the sizes that are within 5 % of the best, and what was measured for each size.

    Raises:
        TrainingError: If no size works.

    """
    speeds: dict[int, float] = {}
    start = size = 1 << (max(first, 1).bit_length() - 1)
    while size <= largest and (speed := measure(size)) is not None:
        speeds[size] = speed
        if size > start and speed < _WORTH * speeds[size // 2]:
            break
        size *= 2
    size = start // 2
    if len(speeds) < 2 or speeds[2 * start] < _WORTH * speeds[start]:  # larger ones do not work or bring nothing
        while size >= 1:
            if (speed := measure(size)) is not None:
                speeds[size] = speed
                if 2 * size in speeds and _WORTH * speed < speeds[2 * size]:
                    break
            size //= 2
    if not speeds:
        raise TrainingError("there is not enough memory for a batch of 1: lower [task] crop_s or the model's widths")
    return min(size for size, speed in speeds.items() if _WORTH * speed >= max(speeds.values())), speeds


@dataclass(frozen=True)
class Trials:
    """Real training steps on copies of the networks, ``seconds`` for each batch size; the run itself stays as it is.

    No trial but the first begins later than ten times that.
    """

    model: Model
    deployed: Model
    task: Task
    config: LoopConfig
    recordings: Recordings
    device: torch.device
    seconds: float
    _begin: float = field(default_factory=time.monotonic)
    _done: list[int] = field(default_factory=list)

    def __call__(self, batch_size: int) -> float | None:
        """Return the hours of audio a minute; None where memory, recordings or time do not suffice for such batches."""
        late = bool(self._done) and time.monotonic() > self._begin + _TRIALS * self.seconds
        if late or not self._fits(batch_size):
            return None
        try:
            with tempfile.TemporaryDirectory() as folder:
                speed = self._measure(batch_size, Path(folder))
                self._done.append(batch_size)
                return speed
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        except (TrainingError, UsageError):  # too few speakers for such a batch, say
            pass
        finally:
            free_memory(self.device)
        return None

    def _measure(self, batch_size: int, folder: Path) -> float:
        config = replace(self.config, compile=False)
        task = resized(copy.deepcopy(self.task), batch_size)
        trainer = Trainer(
            copy.deepcopy(self.model),
            copy.deepcopy(self.deployed),
            task,
            config,
            folder,
            Ranks(device=self.device),
            Log(lambda _: None),
            {},
        )
        trainer.model.train()
        times = [time.monotonic()]
        while len(times) < 3 or (times[-1] - times[0] < self.seconds and len(times) < _MOST_STEPS):
            trainer.train_step(trainer.batch(self.recordings))
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            times.append(time.monotonic())
            if len(times) == 2 and times[1] - times[0] > self.seconds:  # so slow that the start does not matter
                return batch_size * task.crop_s / 60 / (times[1] - times[0])
        steps, took = len(times) - 2, times[-1] - times[1]  # without the first one, which prepares kernels
        return batch_size * task.crop_s * steps / 60 / max(took, 1e-9)

    def _fits(self, batch_size: int) -> bool:
        """Whether the CPU's memory takes it: Linux kills a process that fills it, there is no error to catch."""
        if self.device.type != "cpu":
            return True
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10  # bytes; of batches half as large
        return batch_size == 1 or 2 * peak < peak + _available_bytes()


def _available_bytes() -> int:
    """What Linux would still hand out, a lot where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 1 << 40
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable")), 1 << 40)


def remembered(out: Path, machine: str) -> tuple[int, dict[int, float]] | None:
    """Return what an earlier sitting of the run in ``out`` found on this ``machine``, as ``best_batch_size`` does."""
    try:
        known = json.loads((out / _FILE).read_text(encoding="utf-8"))
        speeds = {int(size): float(speed) for size, speed in known["hours_per_minute"].items()}
        return (known["batch_size"], speeds) if known["machine"] == machine and known["batch_size"] in speeds else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def remember(out: Path, machine: str, batch_size: int, speeds: dict[int, float]) -> None:
    """Keep what was measured in ``out``; ``speeds`` are hours of audio a minute by batch size."""
    out.mkdir(parents=True, exist_ok=True)
    known = {"machine": machine, "batch_size": batch_size, "hours_per_minute": speeds}
    with atomic_path(out / _FILE) as part:
        part.write_text(json.dumps(known) + "\n", encoding="utf-8")
