"""Worker processes: same outputs as one process; killed workers are in faults/test_batches.py."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import soundfile
from conftest import HANG_S, noise

from audiosr_cli.batch import processes, run
from audiosr_cli.batch.inputs import Item
from audiosr_cli.batch.naming import Naming
from audiosr_cli.errors import ModelError
from audiosr_cli.files import atomic
from audiosr_cli.pipelines import PipelineConfig, UpsampleOptions
from audiosr_cli.streaming.options import Options
from audiosr_cli.streaming.pipeline import Pipeline


@dataclass(frozen=True)
class Scarce:
    """A command whose first worker has too little memory; the others wait until it is gone."""

    command: ClassVar[str] = "scarce"
    taken: Path

    def pipeline(self, options: Options | None = None) -> Pipeline:
        try:
            self.taken.symlink_to(str(os.getpid()))
        except FileExistsError:
            first, deadline = int(os.fspath(self.taken.readlink())), time.monotonic() + HANG_S
            with suppress(ProcessLookupError):
                while time.monotonic() < deadline:
                    os.kill(first, 0)
                    time.sleep(0.02)
            return UpsampleOptions(16000, "none").pipeline(options)
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")


def test_workers_without_memory_are_left_out_and_others_report_outcomes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    items = [Item(str(tmp_path / f"{i}.wav")) for i in range(4)]
    for item in items[1:]:
        soundfile.write(item.source, noise(800).T, 8000)
    config = PipelineConfig(Scarce(tmp_path / "taken"), Options())
    plan = run.OutputPlan(Naming(str(tmp_path / "out"), "{stem}.{ext}"), fingerprints=True)
    events: list[run.Event] = []
    outcomes = list(processes.run(items, config, plan, 3, events.append))
    assert {outcome.item: outcome.status for outcome in outcomes} == dict(
        zip(items, ["failed", "done", "done", "done"], strict=True)
    )
    assert {event.item for event in events if isinstance(event, run.RecordingStarted)} == set(items[1:])
    assert all(
        outcome.input_fingerprint and len(outcome.output_fingerprints) == 1 for outcome in outcomes if outcome.report
    )
    notices = [event.message for event in events if isinstance(event, run.BatchNotice)]
    assert notices == ["a worker exited with code 1 before its models were loaded; continuing with --jobs 2"]
    assert capfd.readouterr().err == ""


def test_temporary_files_of_killed_workers_are_removed(tmp_path: Path) -> None:
    """Even of a worker that ignores SIGTERM."""

    class Stubborn:
        def __init__(self) -> None:
            code = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(); time.sleep(60)"
            self.popen = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
            self.popen.stdout.readline()
            self.terminate, self.kill = self.popen.terminate, self.popen.kill

        def join(self, patience: float | None = None) -> None:
            with suppress(subprocess.TimeoutExpired):
                self.popen.wait(0.1 if patience else None)

        def is_alive(self) -> bool:
            return self.popen.poll() is None

    process = Stubborn()
    (tmp_path / f".audiosr-{process.popen.pid}-{atomic._host()}0.part").touch()
    processes._stop([processes._Process(process=process, pipe=None, folders={tmp_path})])
    process.popen.stdout.close()
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_loaded_stops_the_batch(tmp_path: Path) -> None:
    config = PipelineConfig(UpsampleOptions(model="no"), Options())
    plan = run.OutputPlan(Naming(str(tmp_path), "{stem}.{ext}"))
    with pytest.raises(ModelError, match="no model 'no'"):
        list(processes.run([Item("a.wav"), Item("b.wav")], config, plan, 2, lambda _: None))
