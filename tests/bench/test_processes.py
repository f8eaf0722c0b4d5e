"""processes.py and waiter.py: what a process took, of it alone."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import until

from audiosr_cli.bench.processes import audiosr, spend
from audiosr_cli.errors import BenchError

PYTHON_MB = 60  # of a bare interpreter, at most


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_peak_is_the_process_own() -> None:
    """Neither torch, which this process has loaded, nor what an earlier child took counts."""
    assert spend(python("x = bytearray(300_000_000)")).peak_mb > 300
    assert spend(python("pass")).peak_mb < PYTHON_MB


def test_waiting_is_wall_time_and_work_is_cpu_time() -> None:
    """Lower bounds only, which hold on a busy machine, too: one thread takes no more CPU time than wall time."""
    asleep = spend(python("import time; time.sleep(0.3)"))
    assert asleep.wall_s - asleep.cpu_s >= 0.29
    busy = spend(python("import time\nwhile time.process_time() < 0.3: pass"))
    assert busy.cpu_s >= 0.29


def test_output_is_kept() -> None:
    assert spend(python("print('one'); print('two')")).output == "one\ntwo\n"


def test_failures_are_told() -> None:
    with pytest.raises(BenchError, match=r"^too bad$"):
        spend(python("import sys; sys.exit('something\\ntoo bad')"))
    with pytest.raises(BenchError, match="ended with 7"):
        spend(python("raise SystemExit(7)"))
    with pytest.raises(BenchError, match="killed"):
        spend(python("import os; os.kill(os.getpid(), 9)"))


def test_what_the_command_says_is_told_without_its_name() -> None:
    with pytest.raises(BenchError, match=r"^--rate 1: must be between 1000 and 768000 Hz$"):
        spend(audiosr("upsample", "--rate", "1", "--model", "none", __file__))


def test_an_interrupted_measurement_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child holds a lock for as long as it lives."""
    lock = (tmp_path / "lock").open("w")

    def interrupted(process: subprocess.Popen[str]) -> None:
        until((tmp_path / "begun").exists)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    code = f"""
import fcntl, pathlib, time
lock = open({str(tmp_path / "lock")!r}, "w")
fcntl.flock(lock, fcntl.LOCK_EX)
pathlib.Path({str(tmp_path / "begun")!r}).touch()
time.sleep(600)"""
    with pytest.raises(KeyboardInterrupt):
        spend(python(code))
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the waiter has waited for its child, and spend() for the waiter
    lock.close()
