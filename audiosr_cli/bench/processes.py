"""What a process takes: seconds, CPU seconds and peak memory of a command, of it alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiosr_cli.errors import BenchError

_WAITER = str(Path(__file__).with_name("waiter.py"))
_KILLED = 128 + 9


@dataclass(frozen=True)
class Spent:
    """What a process took from its start to its end; CPU seconds are of all its threads."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    output: str

    @property
    def peak_mb(self) -> float:
        """Peak resident memory."""
        return self.peak_bytes / 1e6


def spend(command: Sequence[str]) -> Spent:
    """Run ``command`` and measure it. Raises BenchError with the last thing it said where it fails."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as told:
        try:
            process = subprocess.Popen(
                [sys.executable, _WAITER, str(writing), *command],
                pass_fds=[writing],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        finally:
            os.close(writing)
        with process:
            try:
                output, errors = process.communicate()
            finally:
                process.terminate()  # nothing happens where it has ended
        if process.returncode:
            raise BenchError(_reason(process.returncode, errors))
        return Spent(**json.loads(told.read()), output=output)


def _reason(code: int, said: str) -> str:
    """Why a command failed, in a line."""
    if code == _KILLED:
        return "was killed, as a rule for its memory"
    lines = said.strip().splitlines()
    return lines[-1].removeprefix("audiosr: ") if lines else f"ended with {code}"


def audiosr(*arguments: str) -> list[str]:
    """The command ``audiosr`` with ``arguments``, of this Python."""
    return [sys.executable, "-m", "audiosr_cli", *arguments]


def work(**job: Any) -> tuple[dict[str, Any], Spent]:
    """What the worker says of a ``job`` that it did in a process of its own, and what that took."""
    spent = spend([sys.executable, "-m", "audiosr_cli.bench.worker", json.dumps(job)])
    found: dict[str, Any] = json.loads(spent.output.splitlines()[-1])
    return found, spent
