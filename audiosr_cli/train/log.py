"""The log of a run: events for its caller, rows of metrics.jsonl, and TensorBoard if requested."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from audiosr_cli.errors import TrainingError
from audiosr_cli.files.atomic import atomic_path
from audiosr_cli.files.parsing import parse_json

# Receives every event of a run as a dict with the key "event".
EventCallback = Callable[[dict[str, Any]], None]

# Steps between two "train" rows of metrics.jsonl.
_STEPS_PER_ROW = 50


class Log:
    """The events of one run: data, skipped, damaged, grown, batch_size, train, valid, warning or step.

    metrics.jsonl has those of type train, valid and warning.

    Args:
        on_event: Receives every event.
        is_leader: Whether this is the leading process; events of others are dropped.
    """

    def __init__(self, on_event: EventCallback, is_leader: bool = True) -> None:
        self.on_event, self.is_leader = on_event, is_leader
        self._file: Path | None = None
        self._board: Any = None
        self._sums: dict[str, float] = {}
        self._steps = 0
        self._last_row: tuple[float, float] | None = None  # time in seconds, and hours of audio by then

    def open(self, out: Path, step: int, tensorboard: bool) -> None:
        """Write rows under ``out`` from now on, after dropping those of steps after ``step``, which will be repeated.

        Raises:
            TrainingError: If TensorBoard is requested but not installed.
        """
        if not self.is_leader:
            return
        self._file = out / "metrics.jsonl"
        if self._file.exists():
            lines = self._file.read_text(encoding="utf-8").splitlines()
            valid = [line for line in lines if _is_row(line) and parse_json(line)["step"] <= step]
            with atomic_path(self._file) as part:
                part.write_text("".join(line + "\n" for line in valid), encoding="utf-8")
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise TrainingError(
                    "--tensorboard: TensorBoard is not installed; run pip install 'audiosr-cli[tensorboard]'"
                ) from error
            self._board = SummaryWriter(out / "tensorboard", purge_step=step + 1)

    def write(self, row: dict[str, Any]) -> None:
        """Write one event to all destinations."""
        if not self.is_leader:
            return
        self.on_event(row)
        if self._file is not None and row["event"] in ("train", "valid", "warning"):
            with self._file.open("a", encoding="utf-8") as log:
                log.write(json.dumps(row) + "\n")
        if self._board is not None:
            for key, value in row.items():
                if isinstance(value, float) and key != "minutes":
                    self._board.add_scalar(f"{row['event']}/{key}", value, row["step"])
            self._board.flush()

    def warn(self, step: int, text: str) -> None:
        """Write a warning."""
        self.write({"event": "warning", "step": step, "text": text})

    def step(self, position: dict[str, Any], terms: dict[str, float], share_done: float) -> None:
        """Log a step; every 50 steps, write the mean losses as a row.

        Args:
            position: What ``Trainer.position`` returns, and the learning rate.
            terms: Weighted losses by name.
            share_done: Share of the budget that is spent.
        """
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps += 1
        if self.is_leader:
            self.on_event({"event": "step", **position, "loss": sum(terms.values()), "share_done": share_done})
        if position["step"] % _STEPS_PER_ROW:
            return
        means = {name: round(value / self._steps, 4) for name, value in self._sums.items()}
        row = {"event": "train", **position, **means, "loss": round(sum(means.values()), 4)}
        now, hours = time.monotonic(), position["audio_hours"]
        if self._last_row is not None:
            then, hours_then = self._last_row
            row["audio_hours_per_minute"] = round((hours - hours_then) / (now - then) * 60, 4)
        self._last_row, self._sums, self._steps = (now, hours), {}, 0
        self.write(row)


def _is_row(line: str) -> bool:
    """Return whether a line is complete; a kill may have cut the last one."""
    try:
        return "step" in parse_json(line)
    except ValueError:
        return False
