"""What a run tells: to its caller, to metrics.jsonl, and to TensorBoard if asked."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from audiosr_cli.errors import TrainingError
from audiosr_cli.files.atomic import atomic_path

Report = Callable[[dict[str, Any]], None]

_EVERY = 50  # steps between two lines of metrics.jsonl


class Log:
    """Rows of one run; each has an ``event``: data, skipped, damaged, grown, train, valid, warning or step.

    No file gets steps, nor what is said of the data. Only the leading rank's rows go anywhere.
    """

    def __init__(self, report: Report, leads: bool = True) -> None:
        self.report, self.leads = report, leads
        self._file: Path | None = None
        self._board: Any = None
        self._sums: dict[str, float] = {}
        self._steps = 0
        self._pace: tuple[float, float] | None = None  # when, and hours heard by then

    def open(self, out: Path, step: int, tensorboard: bool) -> None:
        """Keep rows under ``out`` from here on; those of steps after ``step``, which will come again, are dropped.

        Raises TrainingError where TensorBoard is not installed.
        """
        if not self.leads:
            return
        self._file = out / "metrics.jsonl"
        if self._file.exists():
            lines = self._file.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _is_row(line) and json.loads(line)["step"] <= step]
            with atomic_path(self._file) as part:
                part.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise TrainingError("--tensorboard: wants pip install 'audiosr-cli[tensorboard]'") from error
            self._board = SummaryWriter(out / "tensorboard", purge_step=step + 1)

    def write(self, row: dict[str, Any]) -> None:
        """One row, everywhere."""
        if not self.leads:
            return
        self.report(row)
        if self._file is not None and row["event"] in ("train", "valid", "warning"):
            with self._file.open("a", encoding="utf-8") as log:
                log.write(json.dumps(row) + "\n")
        if self._board is not None:
            for key, value in row.items():
                if isinstance(value, float) and key != "minutes":
                    self._board.add_scalar(f"{row['event']}/{key}", value, row["step"])
            self._board.flush()

    def step(self, position: dict[str, Any], terms: dict[str, float], share_done: float) -> None:
        """After each step; every 50 of them the means of the loss's terms become a row."""
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps += 1
        if self.leads:
            self.report({"event": "step", **position, "loss": sum(terms.values()), "share_done": share_done})
        if position["step"] % _EVERY:
            return
        means = {name: round(value / self._steps, 4) for name, value in self._sums.items()}
        row = {"event": "train", **position, **means, "loss": round(sum(means.values()), 4)}
        now, heard = time.monotonic(), position["hours_heard"]
        if self._pace is not None:
            row["hours_per_minute"] = round((heard - self._pace[1]) / (now - self._pace[0]) * 60, 4)
        self._pace, self._sums, self._steps = (now, heard), {}, 0
        self.write(row)


def _is_row(line: str) -> bool:
    """Whether a line is whole: a kill may have cut the last one."""
    try:
        return "step" in json.loads(line)
    except ValueError:
        return False
