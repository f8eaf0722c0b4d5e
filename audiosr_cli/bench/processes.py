"""Measure a process of its own: wall time, CPU time and peak memory."""

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
class ProcessUsage:
    """What a process used from start to exit.

    Attributes:
        wall_s: Wall time.
        cpu_s: CPU time of all its threads.
        peak_bytes: Peak resident memory.
        output: Its standard output.
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int
    output: str

    @property
    def peak_mb(self) -> float:
        """Return the peak resident memory in MB."""
        return self.peak_bytes / 1e6


def measure_process(command: Sequence[str]) -> ProcessUsage:
    """Run ``command`` and measure it. Raises BenchError with its last message if it fails."""
    read_end, write_end = os.pipe()
    with os.fdopen(read_end) as usage:
        try:
            process = subprocess.Popen(
                [sys.executable, _WAITER, str(write_end), *command],
                pass_fds=[write_end],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        finally:
            os.close(write_end)
        with process:
            try:
                output, errors = process.communicate()
            finally:
                process.terminate()  # does nothing if it has exited
        if process.returncode:
            raise BenchError(_reason(process.returncode, errors))
        return ProcessUsage(**json.loads(usage.read()), output=output)


def _reason(code: int, errors: str) -> str:
    """Say in one line why a command failed."""
    if code == _KILLED:
        return "was killed, probably for lack of memory"
    lines = [line for line in errors.strip().splitlines() if not line.startswith("hint: ")]
    return lines[-1].removeprefix("audiosr: ") if lines else f"exited with code {code}"


def audiosr(*arguments: str) -> list[str]:
    """Return the command ``audiosr`` with ``arguments``, for this Python."""
    return [sys.executable, "-m", "audiosr_cli", *arguments]


def run_worker(**job: Any) -> tuple[dict[str, Any], ProcessUsage]:
    """Do a ``job`` of ``worker`` in a process of its own; return its answer, and what the process used."""
    usage = measure_process([sys.executable, "-m", "audiosr_cli.bench.worker", json.dumps(job)])
    answer: dict[str, Any] = json.loads(usage.output.splitlines()[-1])
    return answer, usage
