"""train/session.py: deadlines that hold, weights that are written meanwhile, memory that runs out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from corpora import RUN, Rows, interrupt_at, run

from audiosr_cli.checkpoints import catalogue, store
from audiosr_cli.errors import TrainingError, UsageError
from audiosr_cli.train import checkpoint, session
from audiosr_cli.train.loop import Trainer
from audiosr_cli.train.run import TrainCall
from audiosr_cli.train.session import Deadline, Session
from audiosr_cli.train.stepping import MetricsReadback
from audiosr_cli.train.tasks import Separation

FOREVER = RUN.replace("minutes = 0.05", "minutes = 1000.0\nema = 0.9").replace("valid_every_min = 0.02", "")


class Clock:
    """A clock that is advanced by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr(session, "process_age", lambda: 5.0)

    def slow(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, seconds: float) -> None:
        """Have a method take so long."""
        real = getattr(owner, name)

        def taking(*arguments: Any, **more: Any) -> Any:
            self.now += seconds
            return real(*arguments, **more)

        monkeypatch.setattr(owner, name, taking)


def test_process_age_counts_from_the_start_of_the_process() -> None:
    code = (
        "import time; time.sleep(0.3); from audiosr_cli.train.session import process_age; "
        "first = process_age(); time.sleep(0.2); print(first, process_age() - first)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, later = map(float, done.stdout.split())
    assert first >= 0.29  # the clock of /proc ticks every 10 ms
    assert later >= 0.19


def test_a_deadline_reserves_time_for_the_last_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    deadline = Deadline(65.0)
    assert deadline.left() == 60.0
    before = deadline.training_left()
    with deadline.timed("validate"):
        clock.now += 10
    assert deadline.training_left() == pytest.approx(before - 10 - 1.2 * 10)
    assert deadline.has_time_for("validate")
    clock.now += 37
    assert not deadline.has_time_for("validate")
    assert deadline.training_left() == 0


@pytest.mark.parametrize("resumed", [False, True])
def test_everything_is_done_before_the_deadline(resumed: bool, speakers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if resumed:
        run(speakers, FOREVER.replace("minutes = 1000.0", "steps = 1"))
    clock = Clock(monkeypatch)
    clock.slow(monkeypatch, Trainer, "validate", 20.0)
    clock.slow(monkeypatch, Trainer, "save", 3.0)
    clock.slow(monkeypatch, Trainer, "train_step", 2.0)
    _, rows = run(speakers, FOREVER, until=105.0, export=speakers / "to", export_every=10.0, resume=resumed)
    assert 180 < clock.now <= 200  # from 100 on, and 5 of 105 seconds were over then
    metrics = [row for row in rows if row["event"] == "valid"]
    assert metrics[-1]["step"] == checkpoint.load(speakers / "out")[0]["step"] > 10


def test_the_rate_falls_towards_the_deadline(speakers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    clock.slow(monkeypatch, Trainer, "train_step", 2.0)
    seen = []
    real = Trainer.learning_rate
    monkeypatch.setattr(Trainer, "learning_rate", lambda self: seen.append(real(self)) or seen[-1])
    run(speakers, FOREVER, until=105.0)
    assert max(seen) == pytest.approx(1e-3)
    assert seen[-1] < 1e-4


def test_weights_are_exported_even_with_too_little_time(speakers: Path) -> None:
    run(speakers, FOREVER, until=1e-3, export=speakers / "to", export_every=60.0)
    assert store.load_model(str(speakers / "to" / "tiny.safetensors")).spec.name == "tiny"
    assert checkpoint.load(speakers / "out")[0]["step"] == 0


def test_averaged_weights_are_exported_while_training(speakers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    clock.slow(monkeypatch, Trainer, "train_step", 2.0)
    seen: list[tuple[int, dict[str, torch.Tensor]]] = []
    real = session.Exporter.write

    def noting(self: Any, models: Any, note: Any, step: int) -> Any:
        files = real(self, models, note, step)
        seen.append((step, store.load_model(str(files[0])).state_dict()))
        return files

    monkeypatch.setattr(session.Exporter, "write", noting)
    best, _ = run(speakers, FOREVER, until=105.0, export=speakers / "to", export_every=20.0, part_bytes=4000)
    steps = [step for step, _ in seen]
    assert steps[:3] == [0, 10, 20]
    assert best == speakers / "to" / "tiny.safetensors"
    average = checkpoint.load(speakers / "out")[0]["average"]
    for key, value in store.load_model(str(best)).state_dict().items():
        torch.testing.assert_close(value, average[key].half().float() if value.is_floating_point() else average[key])
    files = list((speakers / "to").iterdir())
    assert len(files) > 1
    assert all(path.stat().st_size <= 4000 and f".{steps[-1]}-" in path.name for path in files)
    note = catalogue.metadata(best)["note"]
    assert note["step"] == steps[-1]
    assert "SI-SDRi (dB)" in note


def test_an_interruption_also_exports(speakers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_at(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(speakers, FOREVER, export=speakers / "to", export_every=1000.0)
    assert catalogue.metadata(speakers / "to" / "tiny.safetensors")["note"]["step"] == 3


def test_an_export_that_fails_is_a_warning(speakers: Path) -> None:
    (speakers / "to").write_text("no folder")
    _, rows = run(
        speakers, FOREVER.replace("minutes = 1000.0", "steps = 2"), export=speakers / "to" / "here", export_every=60.0
    )
    assert any("cannot be created" in row.get("text", "") for row in rows)


def memory_for(most: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps on larger batches run out of memory; the list gets the sizes that were tried."""
    real, sizes = Trainer.train_step, list[int]()

    def limited(self: Trainer, batch: Any) -> dict[str, float]:
        sizes.append(len(batch["input"]))
        if sizes[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return real(self, batch)

    monkeypatch.setattr(Trainer, "train_step", limited)
    return sizes


def test_a_run_survives_that_memory_runs_out(speakers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = memory_for(2, monkeypatch)
    saved: Rows = []
    real = checkpoint.save
    monkeypatch.setattr(
        checkpoint, "save", lambda folder, state, turn: (saved.append(state), real(folder, state, turn))
    )
    _, rows = run(speakers, FOREVER.replace("minutes = 1000.0", "steps = 3"), batch_size=8)
    assert sizes == [8, 4, 2, 2, 2]
    warnings = [row["text"] for row in rows if row["event"] == "warning"]
    assert warnings == [f"not enough memory for a batch of {n}; training continues with {n // 2}" for n in (8, 4)]
    assert [state["step"] for state in saved][:3] == [0, 0, 0]  # after the validation, and twice for want of memory
    assert checkpoint.load(speakers / "out")[0]["step"] == 3


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")], ids=str)
def test_a_batch_too_large_for_the_memory_of_a_cpu_is_halved(
    error: Exception, speakers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sizes = Separation.losses, list[int]()

    def limited(self: Separation, forward: Any, batch: Any) -> Any:
        sizes.append(len(batch["input"]))
        if sizes[-1] > 2:
            raise error
        return real(self, forward, batch)

    monkeypatch.setattr(Separation, "losses", limited)
    _, rows = run(speakers, FOREVER.replace("minutes = 1000.0", "steps = 1"), batch_size=4)
    assert sizes == [4, 4, 2]  # the rehearsal, and two steps
    warnings = [row["text"] for row in rows if row["event"] == "warning"]
    assert warnings == ["not enough memory for a batch of 4; training continues with 2"]


def test_a_run_without_validated_weights_does_not_claim_to_have_some(speakers: Path) -> None:
    with pytest.raises(TrainingError, match="no validated weights yet"):
        run(speakers, FOREVER, until=1e-3)


def test_the_state_is_saved_after_ten_steps_that_are_not_finite(
    speakers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CUDA the metrics of the last step are read after training."""

    def failing(self: MetricsReadback) -> None:
        raise TrainingError("10 in a row")

    real = Trainer._run

    def quiet_until_the_end(self: Trainer, *args: Any) -> None:
        real(self, *args)
        self.progress.step = 77  # further than what was saved on the way
        monkeypatch.setattr(MetricsReadback, "flush", failing)

    monkeypatch.setattr(Trainer, "_run", quiet_until_the_end)
    with pytest.raises(TrainingError, match="in a row"):
        run(speakers, FOREVER.replace("minutes = 1000.0", "steps = 1"))
    assert checkpoint.load(speakers / "out")[0]["step"] == 77


def test_no_memory_for_one_item_is_an_error_with_the_state_saved(
    speakers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_for(0, monkeypatch)
    with pytest.raises(TrainingError, match="not enough memory for a batch of 1; lower"):
        run(speakers, FOREVER)
    assert checkpoint.exists(speakers / "out")


def test_other_errors_of_torch_are_no_want_of_memory(speakers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> None:
        raise RuntimeError("sizes do not match")

    monkeypatch.setattr(Trainer, "train_step", failing)
    with pytest.raises(RuntimeError, match="do not match"):
        run(speakers, FOREVER)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"until": 10.0, "minutes": 1.0}, "use only one of them"),
        ({"export_every": 60.0}, "needs --export with a folder"),
        ({"export_every": 60.0, "export": Path("a.safetensors")}, "needs --export with a folder"),
        ({"until": float("inf")}, "must be a finite number of seconds"),
        ({"export": Path(__file__)}, "is a file"),
        ({"export": Path(__file__), "export_every": 60.0}, "is a file"),
    ],
)
def test_calls_that_contradict_themselves(call: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainCall(**call)


def test_without_a_deadline_the_budget_is_the_configs() -> None:
    assert Session().budget(3.0, 30.0) == 30.0
    assert not Session().is_over()
