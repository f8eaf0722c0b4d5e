"""Find the batch size with the highest training throughput on this machine, in hours of audio per minute."""

from __future__ import annotations

import copy
import hashlib
import json
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from audiosr_cli.errors import TrainingError, UsageError
from audiosr_cli.files.atomic import atomic_path
from audiosr_cli.files.parsing import parse_json
from audiosr_cli.models import Model
from audiosr_cli.runtime.device import computes_bf16
from audiosr_cli.runtime.memory import is_out_of_memory
from audiosr_cli.train.log import Log
from audiosr_cli.train.loop import Trainer
from audiosr_cli.train.loop_config import LoopConfig
from audiosr_cli.train.memory import free_memory, with_batch_size
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks import Recordings, TrainingTask

_FILE = "batch_size.json"
_MAX_BATCH_SIZE = 512
# A larger batch must be faster by this factor; otherwise the smaller one learns more from the same hours of audio.
_MIN_GAIN = 1.05
# No trial starts later than this many times the duration of one.
_MAX_TRIALS = 10
# Steps of one trial, at most.
_MAX_STEPS = 100
# Settings of [loop] that change the time or the memory of a step.
_COSTS = ("optimizer", "precision", "channels_last", "ema")
# Fields of a task that do not: the batch size itself, and the name of a score.
_NO_COSTS = ("batch_size", "metric")

# Batch size → hours of audio per minute, None if it does not work.
Throughput = Callable[[int], float | None]


def best_batch_size(measure: Throughput, first: int, largest: int = _MAX_BATCH_SIZE) -> tuple[int, dict[int, float]]:
    """Search powers of two upwards from ``first``, then downwards if larger ones are not faster.

    Args:
        measure: Returns hours of audio per minute at a batch size, or None if memory or data do not suffice.
        first: Where to start, rounded down to a power of two.
        largest: Largest batch size.

    Returns:
        The smallest size within 5 % of the fastest, and the throughput of each measured size.

    Raises:
        TrainingError: If no size works.
    """
    speeds: dict[int, float] = {}
    start = size = 1 << (max(first, 1).bit_length() - 1)
    while size <= largest and (speed := measure(size)) is not None:
        speeds[size] = speed
        if size > start and speed < _MIN_GAIN * speeds[size // 2]:
            break
        size *= 2
    size = start // 2
    if len(speeds) < 2 or speeds[2 * start] < _MIN_GAIN * speeds[start]:  # larger ones fail or gain nothing
        while size >= 1:
            if (speed := measure(size)) is not None:
                speeds[size] = speed
                if 2 * size in speeds and _MIN_GAIN * speed < speeds[2 * size]:
                    break
            size //= 2
    if not speeds:
        raise TrainingError("not enough memory for a batch of 1: lower [task] crop_s or the model's widths")
    return min(size for size, speed in speeds.items() if _MIN_GAIN * speed >= max(speeds.values())), speeds


@dataclass(frozen=True)
class BatchSizeTrials:
    """Measures throughput with real training steps on copies of the networks; the run itself does not change.

    Attributes:
        seconds: Duration of one trial; only the first trial may start after ten times that.
    """

    model: Model
    deployed: Model
    task: TrainingTask
    config: LoopConfig
    recordings: Recordings
    device: torch.device
    seconds: float
    _start: float = field(default_factory=time.monotonic)
    _done: list[int] = field(default_factory=list)

    def __call__(self, batch_size: int) -> float | None:
        """Return hours of audio per minute; None if memory, recordings or time do not suffice for this batch size."""
        timed_out = bool(self._done) and time.monotonic() > self._start + _MAX_TRIALS * self.seconds
        if timed_out or not self._fits(batch_size):
            return None
        try:
            with tempfile.TemporaryDirectory() as folder:
                speed = self._measure(batch_size, Path(folder))
                self._done.append(batch_size)
                return speed
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        except (TrainingError, UsageError):  # for example too few speakers for this batch size
            pass
        finally:
            free_memory(self.device)
        return None

    def settings(self) -> str:
        """Return a digest of what the best size depends on besides the machine: model, task and arithmetic."""
        model, task = asdict(self.model.config), asdict(self.task)  # type: ignore[call-overload]
        settings = {
            "model": [type(self.model).__name__, model],
            "task": {key: value for key, value in task.items() if key not in _NO_COSTS},
            "loop": {name: getattr(self.config, name) for name in _COSTS},
            "bf16": computes_bf16(self.device.type),
            "torch": torch.__version__,
        }
        return hashlib.blake2b(json.dumps(settings, default=str).encode(), digest_size=8).hexdigest()

    def _measure(self, batch_size: int, folder: Path) -> float:
        config = replace(self.config, compile=False)
        task = with_batch_size(copy.deepcopy(self.task), batch_size)
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
        while len(times) < 3 or (times[-1] - times[0] < self.seconds and len(times) < _MAX_STEPS):
            trainer.train_step(trainer.batch(self.recordings))
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            times.append(time.monotonic())
            if len(times) == 2 and times[1] - times[0] > self.seconds:  # the set-up of the first step does not matter
                return batch_size * task.crop_s / 60 / (times[1] - times[0])
        steps, duration = len(times) - 2, times[-1] - times[1]  # without the first step, which prepares kernels
        return batch_size * task.crop_s * steps / 60 / max(duration, 1e-9)

    def _fits(self, batch_size: int) -> bool:
        """Return whether the batch fits into the CPU's memory; Linux kills a process that fills it."""
        if self.device.type != "cpu":
            return True
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10  # bytes, with batches half as large
        return batch_size == 1 or 2 * peak < peak + _available_bytes()


def _available_bytes() -> int:
    """Return the available memory in bytes, a large number if the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 1 << 40
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable")), 1 << 40)


def load_batch_size(out: Path, machine: str, settings: str) -> tuple[int, dict[int, float]] | None:
    """Return the result of ``best_batch_size`` that ``save_batch_size`` saved in ``out``.

    Args:
        out: Folder of the run.
        machine: Name of this machine.
        settings: What ``BatchSizeTrials.settings`` returns.

    Returns:
        The batch size and the throughputs; None if nothing readable was saved for this machine and these settings.
    """
    try:
        saved = parse_json((out / _FILE).read_text(encoding="utf-8"))
        speeds = {int(size): float(speed) for size, speed in throughput_of(saved).items()}
        valid = (saved["machine"], saved["settings"]) == (machine, settings) and saved["batch_size"] in speeds
        return (saved["batch_size"], speeds) if valid else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def throughput_of(saved: dict[str, Any]) -> dict[str, float]:
    """Return the throughputs in batch_size.json; before version 0.2 the key was ``hours_per_minute``."""
    throughput: dict[str, float] = saved.get("audio_hours_per_minute") or saved["hours_per_minute"]
    return throughput


def save_batch_size(out: Path, machine: str, settings: str, batch_size: int, speeds: dict[int, float]) -> None:
    """Save the result in ``out``; ``speeds`` are hours of audio per minute by batch size."""
    out.mkdir(parents=True, exist_ok=True)
    result = {
        "machine": machine,
        "settings": settings,
        "batch_size": batch_size,
        "audio_hours_per_minute": speeds,
    }
    with atomic_path(out / _FILE) as part:
        part.write_text(json.dumps(result) + "\n", encoding="utf-8")
