"""bench/processes.py and waiter.py: what a process used."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import until

from audiosr_cli.bench.processes import audiosr, measure_process
from audiosr_cli.errors import BenchError

PYTHON_MB = 60  # of a bare interpreter, at most


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_peak_memory_is_of_the_process_alone() -> None:
    """It counts neither torch, which this process has loaded, nor earlier children."""
    assert measure_process(python("x = bytearray(300_000_000)")).peak_mb > 300
    assert measure_process(python("pass")).peak_mb < PYTHON_MB


def test_waiting_is_wall_time_and_computing_is_cpu_time() -> None:
    """Lower bounds only, which hold on a busy machine, too: one thread takes no more CPU time than wall time."""
    asleep = measure_process(python("import time; time.sleep(0.3)"))
    assert asleep.wall_s - asleep.cpu_s >= 0.29
    busy = measure_process(python("import time\nwhile time.process_time() < 0.3: pass"))
    assert busy.cpu_s >= 0.29


def test_output_is_returned() -> None:
    assert measure_process(python("print('one'); print('two')")).output == "one\ntwo\n"


def test_failures_give_the_reason() -> None:
    with pytest.raises(BenchError, match=r"^too bad$"):
        measure_process(python("import sys; sys.exit('something\\ntoo bad')"))
    with pytest.raises(BenchError, match="exited with code 7"):
        measure_process(python("raise SystemExit(7)"))
    with pytest.raises(BenchError, match="killed"):
        measure_process(python("import os; os.kill(os.getpid(), 9)"))


def test_errors_of_the_command_are_quoted_without_its_name() -> None:
    with pytest.raises(BenchError, match=r"^--rate 1: must be between 1000 and 768000 Hz$"):
        measure_process(audiosr("upsample", "--rate", "1", "--model", "none", __file__))


def test_an_interrupted_measurement_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child holds a lock for as long as it lives."""
    lock = (tmp_path / "lock").open("w")

    def interrupted(process: subprocess.Popen[str]) -> None:
        until((tmp_path / "started").exists)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    code = f"""
import fcntl, pathlib, time
lock = open({str(tmp_path / "lock")!r}, "w")
fcntl.flock(lock, fcntl.LOCK_EX)
pathlib.Path({str(tmp_path / "started")!r}).touch()
time.sleep(600)"""
    with pytest.raises(KeyboardInterrupt):
        measure_process(python(code))
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the waiter waited for its child, and we for the waiter
    lock.close()
