"""batch.py: which files, which names, and everything found before work starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
from conftest import noise

from audiosr_cli import api, batch
from audiosr_cli.errors import InputError, OutputError, UsageError

TWO = "{stem}_{speaker}.{ext}"
NAMES = ("speaker1", "speaker2", "residual")


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for name in ("a.wav", "b.flac", "sub/a.wav"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, noise(1000).T, 8000)
    (folder / "notes.txt").write_text("no audio")
    return folder


def test_folders_are_walked_and_keep_their_tree(recordings: Path) -> None:
    items = batch.collect([str(recordings)])
    naming = batch.Naming("out", TWO)
    assert [str(naming.targets(item, NAMES[:2], 8000)[1]) for item in items] == [
        "out/a_speaker2.wav",
        "out/b_speaker2.wav",
        "out/sub/a_speaker2.wav",
    ]
    with pytest.raises(InputError, match="no audio files"):
        (recordings / "empty").mkdir()
        batch.collect([str(recordings / "empty")])


def test_names(tmp_path: Path) -> None:
    item = batch.Item("in/talk.mp3")
    assert batch.Naming(None, "{stem}_{rate}.{ext}").targets(item, NAMES[:1], 48000) == [Path("talk_48000.wav")]
    assert batch.Naming(None, TWO, "flac").targets(item, NAMES[:2], 8000)[0] == Path("talk_speaker1.flac")
    assert batch.Naming("x/new.flac", TWO).targets(item, NAMES[:1], 8000) == [Path("x/new.flac")]
    assert batch.Naming("x/new.flac", TWO).targets(item, NAMES[:2], 8000)[1] == Path("x/new_speaker2.flac")
    assert batch.Naming("-", TWO).targets(item, NAMES[:1], 8000) == ["-"]
    assert batch.Naming("out.d", TWO).to_file is False
    (tmp_path / "folder.wav").mkdir()
    assert batch.Naming(str(tmp_path / "folder.wav"), TWO).to_file is False


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{stem.__class__}", "unknown field"),
        ("{home}", "unknown field"),
        ("../{stem}.wav", "stay inside"),
        ("/tmp/{stem}.wav", "stay inside"),
        ("{stem", "expected"),
        ("{stem:q}", "format code"),
    ],
)
def test_templates_that_are_refused(template: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        batch.Naming(None, template)


@pytest.mark.parametrize(
    ("output", "inputs", "template", "sources", "said"),
    [
        ("-", ["a.wav"], TWO, 2, "takes one output"),
        ("-", ["a.wav", "b.wav"], TWO, 1, "takes one output"),
        ("x.wav", ["a.wav", "b.wav"], TWO, 1, "one file for 2 inputs"),
        (None, ["a.wav"], "{stem}.wav", 2, "need the field {speaker}"),
        (None, ["1/a.wav", "2/a.wav"], TWO, 2, "would both become a_speaker1.wav"),
    ],
)
def test_found_before_work(output: str | None, inputs: list[str], template: str, sources: int, said: str) -> None:
    naming = batch.Naming(output, template)
    with pytest.raises(UsageError, match=said):
        batch.check([batch.Item(name) for name in inputs], naming, NAMES[:sources])


def test_output_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="not a folder"):
        batch.check([batch.Item("a.wav")], batch.Naming(str(tmp_path / "file"), TWO), NAMES[:2])


def test_one_bad_file_does_not_stop_the_others(small_weights: Path, recordings: Path, tmp_path: Path) -> None:
    (recordings / "a.wav").write_bytes(b"broken")
    items = batch.collect([str(recordings)])
    outcomes = list(batch.run(items, api.separation(2), batch.Naming(str(tmp_path / "out"), TWO)))
    assert [outcome.error is None for outcome in outcomes] == [False, True, True]
    assert (tmp_path / "out" / "sub" / "a_speaker2.wav").is_file()


def test_existing_outputs(small_weights: Path, recordings: Path, tmp_path: Path) -> None:
    item, pipeline = batch.Item(str(recordings / "a.wav")), api.separation(2)
    naming = batch.Naming(str(tmp_path), TWO)

    def run(existing: batch.Existing) -> batch.Outcome:
        return next(iter(batch.run([item], pipeline, naming, existing)))

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
    items = batch.collect(["x.wav", "x_speaker1.wav"])
    first, second = batch.run(items, api.separation(2), batch.Naming(None, TWO), "overwrite")
    assert "is an input of this call" in str(first.error)
    assert second.error is None
    assert Path("x_speaker1.wav").read_bytes() == before


def test_names_never_lie_about_their_content() -> None:
    assert batch.Naming(None, "{stem}.flac").chosen_container == "flac"
    with pytest.raises(UsageError, match="name says wav"):
        batch.Naming("a.wav", TWO, "flac")
    batch.check([batch.Item("a.wav")], batch.Naming(None, "{stem}_{speaker:>10}.{ext}"), NAMES[:2])


def test_never_onto_the_input(small_weights: Path, recordings: Path) -> None:
    source = recordings / "a.wav"
    before = source.read_bytes()
    naming = batch.Naming(str(recordings), "{stem}.{ext}")
    outcome = next(iter(batch.run([batch.Item(str(source))], api.upsampling(), naming, "overwrite")))
    assert "is an input of this call" in str(outcome.error)
    assert source.read_bytes() == before
