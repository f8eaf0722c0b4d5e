"""train/log.py: rows, curves."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from corpora import run

from audiosr_cli.errors import TrainingError
from audiosr_cli.train.log import Log


def test_rows_after_the_resumed_step_are_dropped(tmp_path: Path) -> None:
    rows = [f'{{"event": "train", "step": {step}}}' for step in (50, 100, 150)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*rows, '{"event": "tr']))
    log = Log(lambda row: None)
    log.open(tmp_path, 120, tensorboard=False)
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == rows[:2]


def test_tensorboard_gets_the_curves(tmp_path: Path) -> None:
    reading = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="the extra tensorboard is not installed"
    )
    log = Log(lambda row: None)
    log.open(tmp_path, 0, tensorboard=True)
    for step in range(1, 101):
        log.step({"step": step, "minutes": step / 60, "audio_hours": step / 100, "lr": 1e-3}, {"a": float(step)}, 0.5)
    board = reading.EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(row.step, row.value) for row in board.Scalars("train/a")] == [(50, 25.5), (100, 75.5)]


def test_tensorboard_is_an_extra(speakers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match=r"audiosr-cli\[tensorboard\]"):
        run(speakers, tensorboard=True)
