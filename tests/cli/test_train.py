"""cli/train.py: what its options become."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from audiosr_cli.cli.main import app
from audiosr_cli.train import run
from audiosr_cli.train.run import TrainCall


@pytest.mark.parametrize(
    ("variable", "arguments", "expected"),
    [
        (None, [], "."),
        ("", [], "."),
        ("recordings", [], "recordings"),
        ("recordings", ["--data", "others"], "others"),
    ],
)
def test_data_is_the_option_or_the_variable_or_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, arguments: list[str], expected: str
) -> None:
    calls: list[TrainCall] = []

    def train(config: Path, out: Path, on_event: object, call: TrainCall) -> Path:
        calls.append(call)
        return out

    monkeypatch.setattr(run, "train", train)
    result = CliRunner(env={"AUDIOSR_DATA": variable}).invoke(app, ["train", "run.toml", *arguments])
    assert result.exit_code == 0, result.output
    assert [call.data for call in calls] == [Path(expected)]
