"""cli/turns.py, and --labels of separate and separate-sr."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import EXAMPLES, noise
from typer.testing import CliRunner, Result

import audiosr_cli
from audiosr_cli.cli import label_options
from audiosr_cli.cli.main import app
from audiosr_cli.conversation.turns import TurnConfig
from audiosr_cli.errors import UsageError

MIX = EXAMPLES / "two_speakers.wav"


def audiosr(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def error_of(result: Result) -> str:
    assert isinstance(result.exception, UsageError), result.output
    return str(result.exception)


def test_labels_lie_beside_the_tracks(place: Path) -> None:
    done = audiosr("separate", MIX, "--quality", "fast", "--labels", "json,rttm", "--json")
    assert names(place) == [
        "two_speakers_speaker1.wav",
        "two_speakers_speaker2.wav",
        "two_speakers_turns.json",
        "two_speakers_turns.rttm",
    ]
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["labels"] == ["two_speakers_turns.rttm", "two_speakers_turns.json"]
    written = json.loads(Path("two_speakers_turns.json").read_text())
    assert written["turns"] == row["turns"] != []
    assert written["duration_s"] == pytest.approx(80371 / 16000)
    assert {turn["speaker"] for turn in row["turns"]} == {"speaker1", "speaker2"}


def test_turns_writes_labels_only_and_the_same_ones(place: Path) -> None:
    audiosr("separate", MIX, "--quality", "fast", "--labels", "rttm", "-o", "tracks")
    done = audiosr("turns", MIX, "--quality", "fast")
    assert done.stdout == "two_speakers_turns.rttm\n"
    assert "speaker1 1 turn, 5 s" in done.stderr
    assert names(place) == ["tracks", "two_speakers_turns.rttm"]
    labels = Path("two_speakers_turns.rttm").read_text()
    assert labels == Path("tracks/two_speakers_turns.rttm").read_text()
    assert audiosr("turns", MIX, "--quality", "fast", "-o", "-").stdout == labels


def test_python_returns_the_same_turns(place: Path) -> None:
    audiosr("turns", MIX, "--quality", "fast", "--labels", "json")
    written = json.loads(Path("two_speakers_turns.json").read_text())["turns"]
    result = audiosr_cli.separate(MIX, quality="fast")
    assert [audiosr_cli.Turn(**turn) for turn in written] == list(result.turns)


def test_existing_labels_are_outputs_like_others(place: Path) -> None:
    Path("two_speakers_turns.rttm").write_text("mine")
    assert audiosr("turns", MIX).exit_code == 1
    assert audiosr("turns", MIX, "--skip").exit_code == 0
    assert Path("two_speakers_turns.rttm").read_text() == "mine"
    planned = audiosr("turns", MIX, "--dry-run", "--overwrite", "--labels", "srt,vtt", "--template", "{stem}.{ext}")
    assert [line.split()[-1] for line in planned.stdout.splitlines()] == ["two_speakers.srt", "two_speakers.vtt"]


def test_counted_speakers_have_labels_too(place: Path) -> None:
    planned = audiosr("turns", MIX, "--speakers", "auto", "--dry-run")
    assert "two_speakers_turns.rttm" in planned.stdout.split()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["turns", MIX, "--labels", "elan"], "--labels elan: unknown format; known: rttm"),
        (["turns", MIX, "--labels", "rttm,json", "-o", "-"], "-o - takes one output"),
        (["turns", MIX, "--format", "flac"], "--format flac: turns writes no audio; leave --format out"),
        (["turns", MIX, "-o", "talk.rttm"], "-o talk.rttm: is the name of a label file; give a folder"),
        (["separate", MIX, "--min-turn", "1"], "--min-turn and --min-pause have no effect without turns; give"),
        (["separate", MIX, "--labels", "rttm", "-o", "-"], "-o - takes one output, but this call writes 3"),
    ],
)
def test_impossible_calls_write_nothing(place: Path, arguments: list[object], message: str) -> None:
    assert error_of(audiosr(*arguments)).startswith(message)
    assert names(place) == []


def test_minimum_lengths_reach_the_labels(place: Path) -> None:
    audiosr("turns", MIX, "--quality", "fast", "--labels", "json", "--min-turn", "6")
    assert json.loads(Path("two_speakers_turns.json").read_text())["turns"] == []


def test_a_manifest_resumes_labels(place: Path) -> None:
    arguments = ("turns", MIX, "--quality", "fast", "--manifest", "log.jsonl", "--resume")
    audiosr(*arguments)
    first = Path("two_speakers_turns.rttm").stat().st_ino
    assert audiosr(*arguments).exit_code == 0
    assert Path("two_speakers_turns.rttm").stat().st_ino == first
    Path("two_speakers_turns.rttm").unlink()
    assert audiosr(*arguments).exit_code == 0
    assert Path("two_speakers_turns.rttm").exists()


def test_a_gate_mutes_tracks_outside_their_turns(place: Path) -> None:
    rate, mix = 16000, soundfile.read(MIX, dtype="float32")[0]
    quiet = np.zeros(2 * rate, np.float32)
    soundfile.write("talk.wav", np.concatenate([mix, quiet + 1e-4 * noise(len(quiet))[0]]), rate, "FLOAT")
    audiosr("separate", "talk.wav", "--quality", "fast", "-o", "open", "--residual")
    done = audiosr("separate", "talk.wav", "--quality", "fast", "-o", "gated", "--residual", "--gate", "--json")
    row = json.loads(done.stdout.splitlines()[-1])
    for i, name in enumerate(("speaker1", "speaker2", "residual")):
        before, after = (soundfile.read(f"{place}/talk_{name}.wav")[0] for place in ("open", "gated"))
        turns = [turn for turn in row["turns"] if turn["speaker"] == name]
        inside, outside = slice(rate, 2 * rate), slice(-rate, None)
        np.testing.assert_array_equal(after[inside], before[inside])
        lowered = 0.01 if turns else 1
        np.testing.assert_allclose(after[outside], lowered * before[outside], atol=1e-9)
        assert row["levels_db"][i] == pytest.approx(10 * np.log10(np.mean(np.square(after))), abs=0.01)
    result = audiosr_cli.separate("talk.wav", quality="fast", gate=True)
    np.testing.assert_allclose(result.audio[0, 0], soundfile.read("gated/talk_speaker1.wav")[0], atol=1e-7)


def test_the_command_has_the_defaults_of_python() -> None:
    config = label_options.TurnOptions().combined().config
    assert config == label_options.LabelOptions(labels="rttm").combined().config == TurnConfig()  # type: ignore[union-attr]
