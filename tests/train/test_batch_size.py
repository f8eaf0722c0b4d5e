"""train/batch_size.py: the batch size that hears the most in a minute, whatever memory there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from corpora import RUN, run

from audiosr_cli.errors import TrainingError, UsageError
from audiosr_cli.models import build
from audiosr_cli.train import batch_size, checkpoint
from audiosr_cli.train.batch_size import BatchSizeTrials, best_batch_size, load_batch_size, save_batch_size
from audiosr_cli.train.config import read_config
from audiosr_cli.train.loop import Trainer

STEPS = RUN.replace("minutes = 0.05", "steps = 2")


@pytest.mark.parametrize(
    ("speeds", "first", "best", "tried"),
    [
        ({4: 1.0, 8: 1.5, 16: 2.0, 32: 2.02, 64: 9.0}, 4, 16, [4, 8, 16, 32]),  # 32 brings nothing
        ({4: 1.0, 8: 1.5, 16: 2.0}, 4, 16, [4, 8, 16, 32]),  # 32 does not fit
        ({1: 2.0, 2: 1.9, 4: 1.5, 8: 1.0}, 4, 1, [4, 8, 2, 1]),  # a CPU's cache
        ({1: 0.9, 2: 1.0, 4: 1.0}, 6, 2, [4, 8, 2, 1]),
        ({1: 0.5, 2: 1.0}, 8, 2, [8, 4, 2, 1]),  # even the first does not fit
        ({2: 1.0, 4: 2.0, 8: 2.0}, 4, 4, [4, 8, 2]),
    ],
)
def test_the_fastest_size_wins_and_the_smaller_of_equals(
    speeds: dict[int, float], first: int, best: int, tried: list[int]
) -> None:
    asked = []
    size, measured = best_batch_size(lambda size: asked.append(size) or speeds.get(size), first)
    assert (size, asked) == (best, tried)
    assert measured == {size: speeds[size] for size in asked if size in speeds}


def test_a_limit_ends_the_search() -> None:
    assert best_batch_size(float, 4, largest=16) == (16, {4: 4.0, 8: 8.0, 16: 16.0})


def test_no_size_at_all_is_an_error() -> None:
    with pytest.raises(TrainingError, match="not enough memory for a batch of 1"):
        best_batch_size(lambda _: None, 4)


def speed_of(curve: dict[int, float], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps that take as long as ``curve`` (seconds by batch size) says; sizes that are not in it run out of memory."""
    real, sizes, clock = Trainer.train_step, list[int](), [0.0]
    monkeypatch.setattr(batch_size.time, "monotonic", lambda: clock[0])

    def taking(self: Trainer, batch: Any) -> dict[str, float]:
        sizes.append(len(batch["input"]))
        if sizes[-1] not in curve:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        clock[0] += curve[sizes[-1]]
        return real(self, batch)

    monkeypatch.setattr(Trainer, "train_step", taking)
    return sizes


def test_a_run_measures_and_takes_the_best(speakers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = speed_of({2: 1.0, 4: 1.0, 8: 1.5}, monkeypatch)  # 16 does not fit
    _, rows = run(speakers, STEPS, batch_size=0)
    event = next(row for row in rows if row["event"] == "batch_size")
    assert event["batch_size"] == 8
    assert event["audio_hours_per_minute"] == {
        2: pytest.approx(2 * 0.256 / 60, abs=1e-3),
        4: pytest.approx(4 * 0.256 / 60, abs=1e-3),
        8: pytest.approx(8 * 0.256 / 90, abs=1e-3),
    }
    assert sizes[-3:] == [16, 8, 8]


def test_trials_leave_the_run_as_it_is(speakers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speed_of({2: 1.0}, monkeypatch)
    measured, _ = run(speakers, STEPS, "measured", batch_size=0)
    plain, _ = run(speakers, STEPS, "plain")
    first, second = (checkpoint.load(path.parent)[0]["model"] for path in (measured, plain))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not list(measured.parent.glob("nonfinite*"))


def test_a_second_sitting_remembers_on_the_same_machine(speakers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = speed_of({2: 1.0, 4: 1.0, 8: 4.0}, monkeypatch)
    run(speakers, STEPS, batch_size=0)
    sizes.clear()
    more = STEPS.replace("steps = 2", "steps = 3")
    run(speakers, more, batch_size=0, resume=True)
    assert sizes == [4]
    monkeypatch.setattr("audiosr_cli.train.run._machine", lambda _: "another")
    run(speakers, more.replace("steps = 3", "steps = 4"), batch_size=0, resume=True)
    assert len(sizes) > 4
    sizes.clear()
    run(speakers, more.replace("steps = 3", "steps = 5").replace("0.256", "0.512"), batch_size=0, resume=True)
    assert len(sizes) > 4


def trials(folder: Path, text: str) -> BatchSizeTrials:
    """Trials of the run ``text`` on the CPU, without recordings."""
    (folder / "run.toml").write_text(text)
    config = read_config(folder / "run.toml")
    model = build(config.architecture, config.training_model)
    return BatchSizeTrials(model, model, config.task, config.loop, None, torch.device("cpu"), 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("minutes = 0.05", "steps = 9", True),
        ("batch_size = 2", "batch_size = 8", True),
        ("filters = 8", "filters = 16", False),
        ("valid = false", "", False),  # [model.training]
        ("crop_s = 0.256", "crop_s = 0.512", False),
        ("[task.mixing]", "[task.mixing]\nreverb_prob = 0.5", False),
        ('precision = "fp32"', 'precision = "bf16"', False),
        ("[loop]", '[loop]\noptimizer = "muon"', False),
        ("[loop]", "[loop]\nema = 0.9", False),
    ],
)
def test_a_result_holds_for_what_a_step_depends_on(before: str, after: str, same: bool, tmp_path: Path) -> None:
    first, second = (trials(tmp_path, text).settings() for text in (RUN, RUN.replace(before, after)))
    assert (first == second) == same
    save_batch_size(tmp_path, "here", first, 4, {4: 1.0})
    assert (load_batch_size(tmp_path, "here", second) == (4, {4: 1.0})) == same
    assert load_batch_size(tmp_path, "there", first) is None


@pytest.mark.parametrize("other", ["bf16", "torch"])
def test_a_result_holds_for_the_arithmetic_of_this_machine(
    other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = trials(tmp_path, RUN).settings()
    if other == "bf16":
        native = batch_size.computes_bf16("cpu")
        monkeypatch.setattr(batch_size, "computes_bf16", lambda _: not native)
    else:
        monkeypatch.setattr(torch, "__version__", "1.0")
    assert trials(tmp_path, RUN).settings() != first


def test_a_result_without_settings_is_measured_again(tmp_path: Path) -> None:
    (tmp_path / "batch_size.json").write_text('{"machine": "here", "batch_size": 4, "hours_per_minute": {"4": 1.0}}')
    assert load_batch_size(tmp_path, "here", "") is None


def test_cpu_memory_is_not_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = object.__new__(batch_size.BatchSizeTrials)
    object.__setattr__(measure, "device", torch.device("cpu"))
    monkeypatch.setattr(batch_size, "_available_bytes", lambda: 0)
    assert (measure._fits(1), measure._fits(2)) == (True, False)


def test_one_process_measures(speakers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from audiosr_cli.train.log import Log
    from audiosr_cli.train.ranks import Ranks
    from audiosr_cli.train.run import _find_batch_size
    from audiosr_cli.train.session import Session

    with pytest.raises(UsageError, match="use a number with torchrun"):
        _find_batch_size(None, Session(), speakers, Log(lambda _: None), Ranks(0, 2))  # type: ignore[arg-type]
