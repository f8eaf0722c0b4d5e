"""Manifests and fingerprints: when a recording is complete; whole runs are in faults/test_batches.py."""

from __future__ import annotations

import json
import os
import resource
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import soundfile
from conftest import noise
from counted import auto

from audiosr_cli.batch import run
from audiosr_cli.batch.inputs import Item
from audiosr_cli.batch.manifest import Manifest, outputs_of, settings_of
from audiosr_cli.batch.naming import Naming
from audiosr_cli.errors import OutputError
from audiosr_cli.files.fingerprint import fingerprint
from audiosr_cli.pipelines import PipelineConfig, SeparateOptions, UpsampleOptions
from audiosr_cli.streaming.options import Options
from audiosr_cli.streaming.recording import Report
from audiosr_cli.streaming.stretches import Stretch


def test_only_unchanged_recordings_are_complete(tmp_path: Path) -> None:
    item = Item(str(tmp_path / "a.wav"))
    soundfile.write(item.source, noise(800).T, 8000)
    config = PipelineConfig(UpsampleOptions(16000, "none"), Options())
    plan, pipeline = run.OutputPlan(Naming(str(tmp_path / "out"), "{stem}.{ext}"), fingerprints=True), config.build()
    settings = settings_of(config, plan)

    def is_complete(settings: dict[str, Any], plan: run.OutputPlan = plan) -> bool:
        with closing(Manifest(tmp_path / "m", settings)) as manifest:
            return manifest.is_complete(item, plan, pipeline)

    assert not is_complete(settings)
    with closing(Manifest(tmp_path / "m", settings)) as manifest:
        for outcome in run.run([item], pipeline, plan):
            manifest.write_outcome(outcome, pipeline)
    assert is_complete(settings)
    assert not is_complete(settings | {"rate": 8000})
    assert not is_complete(settings, run.OutputPlan(Naming(str(tmp_path / "other"), "{stem}.{ext}")))
    with closing(Manifest(tmp_path / "m", settings)) as manifest:
        assert manifest.own_outputs == {str(tmp_path / "out" / "a.wav")}
    with pytest.raises(OutputError, match="the manifest cannot be opened"):
        Manifest(tmp_path, settings)


@pytest.mark.parametrize("speakers", [1, 3])
def test_recordings_of_any_number_of_speakers_are_complete(speakers: int, tmp_path: Path) -> None:
    item, pipeline = Item(str(tmp_path / "a.wav")), auto(speakers)
    soundfile.write(item.source, noise(800).T, 8000)
    plan = run.OutputPlan(Naming(str(tmp_path), "{stem}_{speaker}.{ext}"), fingerprints=True)
    config = PipelineConfig(SeparateOptions("auto"), Options())
    settings = settings_of(config, plan)
    with closing(Manifest(tmp_path / "m", settings)) as manifest:
        manifest.write_outcome(run.process_item(item, pipeline, plan), pipeline)
    row = json.loads((tmp_path / "m").read_text())
    assert (row["speakers"], row["speakers_confidence"], row["settings"]["speakers"]) == (speakers, 0.9, "auto")
    with closing(Manifest(tmp_path / "m", settings)) as manifest:
        assert manifest.is_complete(item, plan, pipeline)
        assert not manifest.is_complete(item, plan, pipeline.by_count[1])
    with closing(Manifest(tmp_path / "m", settings | {"speakers": speakers})) as manifest:
        assert not manifest.is_complete(item, plan, pipeline)


def test_outputs_and_their_commands_are_listed(tmp_path: Path) -> None:
    done = {"status": "done", "input": "/a", "outputs": [{"path": "/x"}], "settings": {"command": "separate"}}
    started = {"status": "started", "input": "/a", "outputs": [{"path": "/x"}, {"path": "/y"}]}
    rows = [done, started, {"other": 1}, done | {"outputs": [{"path": "/z"}], "settings": []}]
    (tmp_path / "log").write_text("\n".join(json.dumps(row) for row in rows) + "\n{")
    assert outputs_of(tmp_path / "log") == {"/x": "separate", "/y": "", "/z": ""}
    assert outputs_of(tmp_path / "missing") == outputs_of(tmp_path) == {}


def test_files_that_are_not_manifests_are_not_changed(tmp_path: Path) -> None:
    for name, content in (("a.wav", b"RIFF"), ("text", b"{}\n"), ("deep", b"[" * 100_000), ("entry", b"")):
        (tmp_path / name).write_bytes(content)
    for name in ("a.wav", "text", "deep"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(OutputError, match="exists and is not a manifest"):
            Manifest(tmp_path / name, {})
        assert (tmp_path / name).read_bytes() == before
    known = (tmp_path / "entry").stat()
    with pytest.raises(OutputError, match="is an input of this call"):
        Manifest(tmp_path / "entry", {}, {(known.st_dev, known.st_ino)})


def test_a_line_written_in_part_is_an_error(tmp_path: Path) -> None:
    with closing(Manifest(tmp_path / "m", {})) as manifest:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))  # stands for a disk that fills up
        try:
            with pytest.raises(OutputError, match="was written in part only"):
                manifest.write_started(run.RecordingStarted(Item("a.wav"), ["b.wav"], None, 8000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_fingerprints_detect_changed_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    original = fingerprint(path)
    assert original.matches()
    os.utime(path, (1, 1))
    assert original.probably_matches()
    path.write_bytes(b"two")
    os.utime(path, ns=(original.mtime_ns, original.mtime_ns))
    assert (original.matches(), original.probably_matches()) == (False, True)  # that is what "probably" means
    path.unlink()
    assert (original.matches(), original.probably_matches()) == (False, False)


@pytest.mark.parametrize("count", [0, 2])
def test_stretches_are_listed_where_there_are_several(count: int, tmp_path: Path) -> None:
    stretches = [Stretch(0.0, 2.0, 24000.0), Stretch(2.0, 5.0, 4000.0)][:count]
    report = Report("a.wav", [], rate_in=8000, rate_out=8000, stretches=stretches)
    pipeline = UpsampleOptions(16000, "none").pipeline()
    with closing(Manifest(tmp_path / "m", {})) as manifest:
        manifest.write_outcome(run.Outcome(Item("a.wav"), report), pipeline)
    row = json.loads((tmp_path / "m").read_text())
    assert (
        row.get("stretches", [])
        == [
            {"start_s": 0.0, "end_s": 2.0, "cutoff_hz": 24000.0, "channel": None},
            {"start_s": 2.0, "end_s": 5.0, "cutoff_hz": 4000.0, "channel": None},
        ][:count]
    )
