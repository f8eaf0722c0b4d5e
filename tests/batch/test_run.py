"""batch/run.py: outcomes, existing outputs, events and dry runs."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
from conftest import noise
from counted import auto

from audiosr_cli.batch import run
from audiosr_cli.batch.inputs import Item, collect
from audiosr_cli.batch.naming import Naming
from audiosr_cli.errors import OutputError
from audiosr_cli.pipelines import SeparateOptions, UpsampleOptions
from audiosr_cli.streaming.auto import AutoPipeline
from audiosr_cli.streaming.options import Options
from audiosr_cli.streaming.pipeline import Pipeline

TWO = "{stem}_{speaker}.{ext}"


def test_one_bad_file_does_not_stop_the_others(small_weights: Path, recordings: Path, tmp_path: Path) -> None:
    (recordings / "a.wav").write_bytes(b"broken")
    items = collect([str(recordings)])
    outcomes = list(run.run(items, SeparateOptions(2).pipeline(), run.OutputPlan(Naming(str(tmp_path / "out"), TWO))))
    assert [outcome.error is None for outcome in outcomes] == [False, True, True]
    assert (tmp_path / "out" / "sub" / "a_speaker2.wav").is_file()


def test_errors_of_outcomes_have_no_traceback(tmp_path: Path) -> None:
    plan = run.OutputPlan(Naming(str(tmp_path), TWO))
    outcome = run.process_item(Item(str(tmp_path / "missing.wav")), UpsampleOptions(model="none").pipeline(), plan)
    assert outcome.error is not None
    assert outcome.error.__traceback__ is outcome.error.__cause__ is outcome.error.__context__ is None


def test_existing_outputs_fail_are_skipped_or_replaced(small_weights: Path, recordings: Path, tmp_path: Path) -> None:
    item, pipeline = Item(str(recordings / "a.wav")), SeparateOptions(2).pipeline()
    naming = Naming(str(tmp_path), TWO)

    def process(existing: run.Existing) -> run.Outcome:
        return next(iter(run.run([item], pipeline, run.OutputPlan(naming, existing))))

    assert process("fail").report is not None
    assert isinstance(process("fail").error, OutputError)
    assert process("skip") == run.Outcome(item)
    (tmp_path / "a_speaker1.wav").write_bytes(b"old")
    assert process("overwrite").report is not None
    assert (tmp_path / "a_speaker1.wav").stat().st_size > 3
    (tmp_path / "a_speaker1.wav").unlink()
    assert process("skip").report is not None  # one is missing: both are written again


def test_an_output_created_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    """Another run writes the output after its existence was checked."""
    soundfile.write(tmp_path / "a.wav", noise(1000).T, 8000)
    target, pipeline = tmp_path / "out" / "a.wav", UpsampleOptions(16000, "none").pipeline()

    def meddle(event: run.RecordingStarted | run.RecordingProgress) -> None:
        target.write_bytes(b"of another program")

    def process(plan: run.OutputPlan) -> run.Outcome:
        target.unlink(missing_ok=True)
        return run.process_item(Item(str(tmp_path / "a.wav")), pipeline, plan, meddle)

    plan = run.OutputPlan(Naming(str(tmp_path / "out"), "{stem}.{ext}"))
    assert "was created while processing" in str(process(plan).error)
    assert [path.read_bytes() for path in (tmp_path / "out").iterdir()] == [b"of another program"]
    for allowed in (replace(plan, existing="overwrite"), replace(plan, own_outputs=frozenset({str(target)}))):
        assert process(allowed).report is not None
        assert soundfile.info(target).frames == 2000


@pytest.mark.parametrize("step", ["file_bandwidth", "forecast"])
def test_lack_of_memory_is_an_outcome(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA out of memory")

    soundfile.write(tmp_path / "a.wav", noise(1000).T, 8000)
    monkeypatch.setattr(Pipeline, "uses_cutoff", True)
    monkeypatch.setattr(Pipeline, step, fail)
    plan = run.OutputPlan(Naming(str(tmp_path / "out"), "{stem}.{ext}"), forecasts=True)
    outcome = run.process_item(Item(str(tmp_path / "a.wav")), UpsampleOptions(16000, "none").pipeline(), plan)
    assert str(outcome.error).startswith(f"{tmp_path}/a.wav: not enough memory")


@pytest.mark.parametrize(
    ("options", "container", "message"),
    [
        ({"channels": 3}, "wav", "--channels 3"),
        ({}, "opus", "opus supports sample rates of"),
        ({}, "mp3", "mp3 is limited to 2 channels"),
    ],
)
def test_dry_run_finds_what_the_header_shows(
    options: dict[str, Any], container: str, message: str, tmp_path: Path
) -> None:
    channels = 6 if container == "mp3" else 1
    soundfile.write(tmp_path / "a.wav", noise(1000, channels).T, 8000)
    pipeline = UpsampleOptions(44100, "none").pipeline(Options(**options))
    item, plan = Item(str(tmp_path / "a.wav")), run.OutputPlan(Naming(str(tmp_path / "out"), "{stem}.{ext}", container))
    error = str(run.dry_run(item, pipeline, plan)[0].error)
    assert message in error
    assert message.startswith("--channels") or error.startswith(f"{tmp_path}/a.wav: ")
    assert error == str(run.process_item(item, pipeline, plan).error)


def test_dry_run_refuses_to_downsample_with_a_model(small_weights: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(1000).T, 48000)
    plan = run.OutputPlan(Naming(str(tmp_path / "out"), "{stem}.{ext}"))
    outcome, _ = run.dry_run(Item(str(tmp_path / "a.wav")), UpsampleOptions(16000).pipeline(), plan)
    assert "to downsample use --model none" in str(outcome.error)


def test_outputs_never_replace_another_input(
    small_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x.wav", "x_speaker1.wav"):
        soundfile.write(name, noise(1000).T, 8000)
    before = Path("x_speaker1.wav").read_bytes()
    items = collect(["x.wav", "x_speaker1.wav"])
    first, second = run.run(
        items, SeparateOptions(2).pipeline(), run.OutputPlan(Naming(None, TWO), "overwrite").protecting(items)
    )
    assert "is an input of this call" in str(first.error)
    assert second.error is None
    assert Path("x_speaker1.wav").read_bytes() == before


def test_outputs_never_replace_their_input(small_weights: Path, recordings: Path) -> None:
    source = recordings / "a.wav"
    before = source.read_bytes()
    naming = Naming(str(recordings), "{stem}.{ext}")
    item = Item(str(source))
    outcome = run.process_item(
        item, UpsampleOptions().pipeline(), run.OutputPlan(naming, "overwrite").protecting([item])
    )
    assert "is an input of this call" in str(outcome.error)
    assert source.read_bytes() == before


@pytest.mark.parametrize("keep_time", [False, True])
def test_outputs_get_the_time_of_their_recording_on_request(tmp_path: Path, keep_time: bool) -> None:
    source = tmp_path / "a.wav"
    soundfile.write(source, noise(1000).T, 8000)
    os.utime(source, ns=(1_000_000_001, 2_000_000_003))
    plan = run.OutputPlan(Naming(str(tmp_path / "out"), "{stem}.{ext}"), fingerprints=True, keep_time=keep_time)
    outcome = run.process_item(Item(str(source)), UpsampleOptions(16000, "none").pipeline(), plan)
    time = (tmp_path / "out" / "a.wav").stat().st_mtime_ns
    assert (time == 2_000_000_003) == keep_time
    assert [output.mtime_ns for output in outcome.output_fingerprints] == [time]


def test_standard_input_has_no_time_to_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", noise(1000).T, 8000)
    plan = run.OutputPlan(Naming(str(tmp_path / "out.wav"), "{stem}.{ext}"), keep_time=True)
    with open(tmp_path / "a.wav", "rb") as stream:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(stream))
        outcome = run.process_item(Item("-"), UpsampleOptions(16000, "none").pipeline(), plan)
    assert outcome.report is not None
    assert "standard input: has no modification time to keep" in outcome.report.notes


def by_sources(*speakers: int) -> AutoPipeline:
    """A pipeline that finds so many speakers in one recording after the other."""
    pipelines = [auto(n) for n in speakers]
    selected = iter(pipelines)

    class Next(AutoPipeline):
        def select(self, reader: Any, progress: Any = None) -> Pipeline:
            return next(selected).select(reader, progress)

    return Next((), None, pipelines[0].options, by_count=pipelines[0].by_count, counter=pipelines[0].counter)


def test_recordings_of_a_batch_have_as_many_outputs_as_speakers(recordings: Path, tmp_path: Path) -> None:
    items = collect([str(recordings)])
    started: list[run.RecordingStarted] = []
    plan = run.OutputPlan(Naming(str(tmp_path / "out"), TWO))
    outcomes = list(run.run(items, by_sources(1, 3, 2), plan, lambda event: keep_started(event, started)))
    assert [outcome.report and outcome.report.speakers for outcome in outcomes] == [1, 3, 2]
    assert [len(event.targets) for event in started] == [1, 3, 2]
    assert len(list((tmp_path / "out").rglob("*.wav"))) == 6


def keep_started(event: object, started: list[run.RecordingStarted]) -> None:
    if isinstance(event, run.RecordingStarted):
        started.append(event)


def test_one_voice_gets_the_file_that_is_named_and_several_are_numbered(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(800).T, 8000)
    item = Item(str(tmp_path / "a.wav"))
    for speakers, names in ((1, ["x.wav"]), (2, ["x_speaker1.wav", "x_speaker2.wav"])):
        outcome = run.process_item(item, auto(speakers), run.OutputPlan(Naming(str(tmp_path / "x.wav"), TWO)))
        assert outcome.report is not None
        assert [Path(name).name for name in outcome.report.outputs] == names


def test_existing_outputs_count_if_the_recording_has_so_many_speakers(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(800).T, 8000)
    item, naming = Item(str(tmp_path / "a.wav")), Naming(str(tmp_path), TWO)
    (tmp_path / "a_speaker3.wav").touch()
    assert run.process_item(item, auto(2), run.OutputPlan(naming)).status == "done"
    assert run.process_item(item, auto(2), run.OutputPlan(naming, "skip")).status == "skipped"
    (tmp_path / "a_speaker1.wav").unlink()
    assert run.process_item(item, auto(1), run.OutputPlan(naming)).status == "done"
    assert run.process_item(item, auto(2), run.OutputPlan(naming, "overwrite")).status == "done"


def test_speakers_are_not_counted_where_no_output_may_be_written(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(800).T, 8000)
    item, naming = Item(str(tmp_path / "a.wav")), Naming(str(tmp_path), TWO)
    for i in (1, 2, 3):
        (tmp_path / f"a_speaker{i}.wav").touch()
    pipeline = replace(auto(), counter=None)  # counting would fail
    outcome = run.process_item(item, pipeline, run.OutputPlan(naming))
    assert "a_speaker1.wav: already exists" in str(outcome.error)
    assert run.process_item(item, pipeline, run.OutputPlan(naming, "skip")).status == "skipped"


def test_a_dry_run_lists_all_outputs_that_are_possible(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(800).T, 8000)
    item, pipeline = Item(str(tmp_path / "a.wav")), replace(auto(), counter=None)
    outcome, targets = run.dry_run(item, pipeline, run.OutputPlan(Naming(str(tmp_path / "x.wav"), TWO)))
    assert outcome.error is None
    assert [Path(target).name for target in targets] == ["x.wav", *(f"x_speaker{i}.wav" for i in (1, 2, 3))]
    (tmp_path / "x_speaker3.wav").touch()  # in the way of three speakers only
    outcome, targets = run.dry_run(item, pipeline, run.OutputPlan(Naming(str(tmp_path / "x.wav"), TWO)))
    assert [Path(target).name for target in targets] == ["x.wav", "x_speaker1.wav", "x_speaker2.wav"]
