"""batch.py: what becomes of many recordings."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
from conftest import noise

from audiosr_cli import api, batch
from audiosr_cli.errors import OutputError
from audiosr_cli.inputs import Item, collect
from audiosr_cli.naming import Naming

TWO = "{stem}_{speaker}.{ext}"


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for name in ("a.wav", "b.flac", "sub/a.wav"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, noise(1000).T, 8000)
    (folder / "notes.txt").write_text("no audio")
    return folder


def test_one_bad_file_does_not_stop_the_others(small_weights: Path, recordings: Path, tmp_path: Path) -> None:
    (recordings / "a.wav").write_bytes(b"broken")
    items = collect([str(recordings)])
    outcomes = list(batch.run(items, api.separation(2), batch.Plan(Naming(str(tmp_path / "out"), TWO))))
    assert [outcome.error is None for outcome in outcomes] == [False, True, True]
    assert (tmp_path / "out" / "sub" / "a_speaker2.wav").is_file()


def test_errors_hold_on_to_nothing(tmp_path: Path) -> None:
    plan = batch.Plan(Naming(str(tmp_path), TWO))
    outcome = batch.work(Item(str(tmp_path / "missing.wav")), api.upsampling(model="none"), plan)
    assert outcome.error is not None
    assert outcome.error.__traceback__ is outcome.error.__cause__ is outcome.error.__context__ is None


def test_existing_outputs(small_weights: Path, recordings: Path, tmp_path: Path) -> None:
    item, pipeline = Item(str(recordings / "a.wav")), api.separation(2)
    naming = Naming(str(tmp_path), TWO)

    def run(existing: batch.Existing) -> batch.Outcome:
        return next(iter(batch.run([item], pipeline, batch.Plan(naming, existing))))

    assert run("fail").report is not None
    assert isinstance(run("fail").error, OutputError)
    assert run("skip") == batch.Outcome(item)
    (tmp_path / "a_speaker1.wav").write_bytes(b"old")
    assert run("overwrite").report is not None
    assert (tmp_path / "a_speaker1.wav").stat().st_size > 3
    (tmp_path / "a_speaker1.wav").unlink()
    assert run("skip").report is not None  # one is missing: both are made anew


def test_never_onto_the_next_input(small_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x.wav", "x_speaker1.wav"):
        soundfile.write(name, noise(1000).T, 8000)
    before = Path("x_speaker1.wav").read_bytes()
    items = collect(["x.wav", "x_speaker1.wav"])
    first, second = batch.run(items, api.separation(2), batch.Plan(Naming(None, TWO), "overwrite"))
    assert "is an input of this call" in str(first.error)
    assert second.error is None
    assert Path("x_speaker1.wav").read_bytes() == before


def test_never_onto_the_input(small_weights: Path, recordings: Path) -> None:
    source = recordings / "a.wav"
    before = source.read_bytes()
    naming = Naming(str(recordings), "{stem}.{ext}")
    outcome = next(iter(batch.run([Item(str(source))], api.upsampling(), batch.Plan(naming, "overwrite"))))
    assert "is an input of this call" in str(outcome.error)
    assert source.read_bytes() == before
