"""cli/run_batch.py and cli/progress.py: messages, events, manifests, dry runs and shards."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
from conftest import noise
from counted import auto
from typer.testing import CliRunner, Result

from audiosr_cli.audio.metadata.read import provenance_of
from audiosr_cli.batch.inputs import Item
from audiosr_cli.batch.run import CountingProgress, Outcome, RecordingStarted
from audiosr_cli.cli import console, progress
from audiosr_cli.cli.commands import guarded
from audiosr_cli.cli.main import app
from audiosr_cli.cli.summary import Summary
from audiosr_cli.errors import AudioSRError, OutputError, UsageError
from audiosr_cli.files.fingerprint import sha256
from audiosr_cli.pipelines import PipelineConfig


def audiosr(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["upsample", "--rate", "16000", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write three recordings and a broken one into ``in`` in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for name in "abc":
        soundfile.write(tmp_path / "in" / f"{name}.wav", noise(8000).T, 8000)
    (tmp_path / "in" / "bad.wav").write_bytes(b"RIFF")
    return tmp_path


def test_events_of_a_batch_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_EVENT_INTERVAL_S", 0.0)
    soundfile.write(folder / "in" / "c.wav", noise(0).T, 8000)
    done = audiosr("in", "-o", "out", "--model", "none", "--json", "--overwrite")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    events = [(row["event"], row["input"]) for row in rows]
    assert done.exit_code == 3
    assert events == [
        *[(event, "in/a.wav") for event in ("start", "progress", "done")],
        *[(event, "in/b.wav") for event in ("start", "progress", "done")],
        ("failed", "in/bad.wav"),
        *[(event, "in/c.wav") for event in ("start", "warning", "done")],
    ]
    assert (rows[1]["seconds"], rows[1]["fraction"]) == (1.0, 1.0)
    assert rows[2]["status"] == "done"
    skipped = audiosr("in/a.wav", "-o", "out", "--model", "none", "--json", "--skip")
    assert json.loads(skipped.stdout)["event"] == "skipped"


def test_progress_is_a_table_lines_events_or_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_EVENT_INTERVAL_S", 0.0)
    monkeypatch.setattr(progress, "_LINE_INTERVAL_S", 0.0)
    arguments = ("in", "-o", "out", "--model", "none", "--overwrite")
    plain = audiosr(*arguments, "--progress", "plain")
    assert "0 of 4 finished; in/a.wav: 1 s" in plain.stderr
    assert "done" in plain.stderr.splitlines()[-5]  # the table's head
    assert "failed: in/bad.wav: " in plain.stderr.splitlines()[-1]
    events = audiosr(*arguments, "--progress", "json")
    assert '{"event": "progress", "input": "in/a.wav", "seconds": 1.0, "fraction": 1.0}' in events.stderr.splitlines()
    assert events.stdout == plain.stdout
    none = audiosr(*arguments, "--progress", "none")
    assert [line[:20] for line in none.stderr.splitlines()] == ["audiosr: in/bad.wav:", "audiosr: 1 of 4 recor"[:20]]
    assert audiosr("in", "-o", "out", "--model", "none", "--json", "--progress", "none").stdout.count("progress") == 0


def test_a_summary_keeps_the_first_failures() -> None:
    summary = Summary()
    for error in (OutputError("no room"), *(UsageError(f"{i}") for i in range(50))):
        summary.on_outcome(Outcome(Item("a.wav"), error=error))
    assert (summary.count["failed"], summary.failures) == (51, ["no room", *map(str, range(19))])
    assert summary.exit_code == 1
    summary.on_outcome(Outcome(Item("a.wav")))
    assert summary.exit_code == 3


class Full(io.StringIO):
    """A standard output whose disk is full."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_errors_of_standard_output_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("odd")

    with pytest.raises(AudioSRError, match=r"^odd$"):
        guarded(fail)()
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(AudioSRError, match=r"^standard output: No space left on device$"):
        guarded(console.print_output)(text="a")


def test_bars_are_drawn_only_inside_their_context() -> None:
    bars = progress.ProgressBars(2)
    assert not bars._bar.live.is_started
    with bars:
        assert bars._bar.live.is_started
    assert not bars._bar.live.is_started


@pytest.mark.parametrize(("more", "events"), [((), 1), (("--progress", "none"), 0)], ids=str)
def test_counting_is_an_event_before_the_start(
    more: tuple[str, ...], events: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_EVENT_INTERVAL_S", 0.0)
    monkeypatch.setattr(PipelineConfig, "build", lambda _: auto(2))
    done = CliRunner().invoke(app, ["separate", "in/a.wav", "--speakers", "auto", "-o", "out", "--json", *more])
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    counting = [row for row in rows if row["event"] == "counting"]
    assert [(row["input"], row["seconds"], row["fraction"]) for row in counting] == [("in/a.wav", 0.0, 0.0)] * events
    assert rows[len(counting)]["event"] == "start"


def test_lines_and_bars_show_the_counting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "_LINE_INTERVAL_S", 0.0)
    item = Item("in/[a].wav")
    on_event = progress.dispatch_to([progress.ProgressLines(3), bars := progress.ProgressBars(1)])
    on_event(CountingProgress(item, 0.0, 60.0))
    on_event(CountingProgress(item, 20.0, 60.0))
    assert capsys.readouterr().err.splitlines()[-1] == ("audiosr: 0 of 3 finished; in/[a].wav: counting speakers, 20 s")
    (task,) = bars._bar.tasks
    assert (task.description, task.completed, task.total) == (r"\[a].wav: counting speakers", 20, 60)
    on_event(RecordingStarted(item, ["a"], 800, 8000))
    (task,) = bars._bar.tasks
    assert (task.description, task.total) == (r"\[a].wav", 800)
    on_event(CountingProgress(Item("b.wav"), 0.0, None))
    for source in ("in/[a].wav", "b.wav"):
        bars.on_outcome(Outcome(Item(source)))
    assert not bars._bar.tasks


def test_standard_output_takes_no_uncertain_number_of_outputs(folder: Path) -> None:
    done = CliRunner().invoke(app, ["separate", "in/a.wav", "--speakers", "auto", "-o", "-"])
    assert isinstance(done.exception, UsageError)
    assert "--speakers auto may find several speakers; give -o a folder" in str(done.exception)


def test_dry_run_writes_nothing_and_finds_failures(folder: Path) -> None:
    planned = audiosr("in", "-o", "out", "--model", "none", "--dry-run")
    assert planned.stdout.splitlines() == [f"in/{name}.wav → out/{name}_16000.wav" for name in "abc"]
    assert planned.exit_code == 3
    assert "bad.wav" in planned.stderr
    assert not (folder / "out").exists()
    (folder / "out").mkdir()
    (folder / "out" / "b_16000.wav").touch()
    assert "out/b_16000.wav: already exists" in audiosr("in", "-o", "out", "--model", "none", "--dry-run").stderr
    rows = audiosr("in", "-o", "out", "--model", "none", "--dry-run", "--skip", "--json").stdout.splitlines()
    assert [json.loads(row)["event"] for row in rows] == ["planned", "skipped", "failed", "planned"]
    twice = audiosr("in", "in/a.wav", "-o", "out", "--model", "none", "--dry-run")
    assert isinstance(twice.exception, UsageError)


def test_what_folders_contain_besides_is_said_once(folder: Path) -> None:
    for name in ("in/._a.wav", "in/notes.txt", "more/b.txt", "more/x.wav"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((folder / "in" / "a.wav").read_bytes())
    arguments = ("in", "more", "-o", "out", "--model", "none")
    for more in ((), ("--dry-run",), ("--jobs", "2")):
        assert audiosr(*arguments, "--overwrite", *more).stderr.count("left out of 2 folders: 1 hidden, 2 .txt\n") == 1
    assert "left out of in: 1 hidden, 1 .txt\n" in audiosr("in", "-o", "out2", "--model", "none").stderr
    assert "left out" not in audiosr(*arguments, "--overwrite", "-q").stderr
    done = audiosr(*arguments, "--overwrite", "--json")
    assert "left out" not in done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row for row in rows if row["event"] == "left_out"] == [
        {"event": "left_out", "input": "in", "counts": {"hidden": 1, ".txt": 1}},
        {"event": "left_out", "input": "more", "counts": {".txt": 1}},
    ]


@pytest.mark.parametrize("more", [(), ("-q",), ("--dry-run",)])
def test_print0_ends_names_with_a_nul_byte(more: tuple[str, ...], folder: Path) -> None:
    name = "two\nlines.wav"
    (folder / "in" / "a.wav").rename(folder / name)
    done = audiosr(name, "in/b.wav", "-o", "out", "--model", "none", "--print0", *more)
    assert done.stdout == "out/two\nlines_16000.wav\0out/b_16000.wav\0"
    assert (folder / "out" / "two\nlines_16000.wav").exists() == ("--dry-run" not in more)


def test_recordings_that_differ_in_their_suffixes_get_their_outputs_in_every_shard(folder: Path) -> None:
    (folder / "in" / "bad.wav").unlink()
    for name in ("a.flac", "c.aiff"):
        soundfile.write(folder / "in" / name, noise(800).T, 8000)
    names = [f"out/{name}_16000.wav" for name in ("a_flac", "a_wav", "b", "c_aiff", "c_wav")]
    arguments = ("in", "-o", "out", "--model", "none")
    assert audiosr(*arguments).stdout.splitlines() == names
    shards = [audiosr(*arguments, "--overwrite", "--shard", f"{i}/2", "--jobs", "2").stdout for i in (1, 2)]
    assert sorted("".join(shards).splitlines()) == names
    alone = audiosr("in/a.wav", "-o", "out", "--model", "none")
    assert alone.stdout == "out/a_16000.wav\n"


def test_a_recording_at_the_target_rate_is_a_success(folder: Path, small_weights: Path) -> None:
    """Now and in every later round."""
    soundfile.write(folder / "in" / "bad.wav", noise(800).T, 16000)
    arguments = ("in", "-o", "out", "--manifest", "run.jsonl", "--resume")
    done = audiosr(*arguments)
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, 4)
    assert "in/bad.wav: content ends at 8.0 kHz; nothing to restore" in done.stderr
    assert (soundfile.read("out/bad_16000.wav")[0] == soundfile.read("in/bad.wav")[0]).all()
    again = audiosr(*arguments)
    assert (again.exit_code, again.stdout) == (0, "")


def test_shards_cover_all_inputs(folder: Path) -> None:
    shares = [audiosr("in", "-o", "out", "--model", "none", "--shard", f"{i}/3").stdout.splitlines() for i in (1, 2, 3)]
    assert shares == [["out/a_16000.wav", "out/c_16000.wav"], ["out/b_16000.wav"], []]


def test_a_manifest_records_inputs_outputs_and_settings(folder: Path, small_weights: Path) -> None:
    audiosr("in", "-o", "out", "--manifest", "run.jsonl", "--cutoff", 3000)
    rows: list[dict[str, Any]] = [json.loads(line) for line in Path("run.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["started", "done", "started", "done", "failed", "started", "done"]
    row = rows[1]
    assert (row["input"], row["sha256"]) == (f"{folder}/in/a.wav", sha256(Path("in/a.wav")))
    (output,) = row["outputs"]
    assert (output["path"], output["sha256"]) == (f"{folder}/out/a_16000.wav", sha256(Path("out/a_16000.wav")))
    assert list(row["models"].values()) == [sha256(small_weights / "spectral_bwe.safetensors")]
    assert (row["settings"]["cutoff_hz"], row["settings"]["clip"], row["seconds"]) == (3000, "warn", 1.0)
    assert "header ends" in rows[4]["error"]


def test_threads_and_batch_do_not_invalidate_a_manifest(folder: Path) -> None:
    arguments = ("in", "-o", "out", "--model", "none", "--manifest", "run.jsonl", "--resume")
    assert len(audiosr(*arguments).stdout.splitlines()) == 3
    assert audiosr(*arguments, "--threads", "7", "--batch", "2").stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in", "--resume"], "--manifest FILE"),
        (["in/a.wav", "--print0", "--json"], "--print0 and --json both write to standard output"),
        (["in/a.wav", "--print0", "-o", "-"], "--print0 and -o - both write to standard output"),
        (["in", "a\0b"], "inputs: contains a NUL byte"),
        (["in", "-o", "a\0b"], "output: contains a NUL byte"),
        (["in", "--manifest", "a\0b"], "manifest: contains a NUL byte"),
        (["in", "--shard", "3/2"], "expected i/N"),
        (["-", "in", "--jobs", "2"], "leave --jobs out"),
        (["/dev/fd/63", "in", "--jobs", "2"], "cannot be combined with /dev/fd/63"),
        ([], "no inputs"),
        (["in", "--skip", "--fail"], "exclude each other"),
    ],
)
def test_contradictory_calls_are_refused(arguments: list[str], message: str, folder: Path) -> None:
    done = audiosr(*arguments, "--model", "none")
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)


def test_provenance_and_modification_times_are_options(folder: Path) -> None:
    arguments = ("in/a.wav", "--model", "none", "--overwrite", "-o", "a.wav")
    os.utime("in/a.wav", (1, 2))
    assert audiosr(*arguments).exit_code == 0
    assert (provenance_of("a.wav") or {})["command"] == "upsample"
    assert Path("a.wav").stat().st_mtime > 2
    assert audiosr(*arguments, "--no-provenance", "--keep-time").exit_code == 0
    assert provenance_of("a.wav") is None
    assert Path("a.wav").stat().st_mtime == 2
