"""``audiosr upsample --kind``: mixed batches, events, the manifest and wrong values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
from config_places import Places
from conftest import noise, tone
from kinds import bundle_kinds
from running import inside

from audiosr_cli.audio.metadata.provenance import provenance_of

RATE = 8000


@pytest.fixture
def folder(small_weights: Path, tmp_path: Path) -> Path:
    """Two tones (music) and two noises (effects)."""
    bundle_kinds(small_weights)
    (tmp_path / "in").mkdir()
    for name, signal in (("a", tone(RATE, 500, RATE)), ("b", noise(RATE)), ("c", tone(RATE, 700, RATE, 2))):
        soundfile.write(tmp_path / "in" / f"{name}.wav", signal.T, RATE)
    soundfile.write(tmp_path / "in" / "d.wav", noise(RATE).T, RATE)
    return tmp_path


def models(path: Path) -> list[str]:
    return [used.split()[0] for used in provenance_of(path)["models"]]


def test_a_mixed_batch_reports_the_kind_of_each_recording(folder: Path) -> None:
    done = inside("upsample", "in", "-o", "out", "--cutoff", "3600", "--json", "--manifest", "m.jsonl", cwd=folder)
    rows = [row for row in map(json.loads, done.stdout.splitlines()) if row["event"] == "done"]
    assert [row["kind"] for row in rows] == ["music", "effects", "music", "effects"]
    assert all(row["kind_confidence"] > 0.9 for row in rows)
    names = [models(folder / "out" / f"{name}_48000.wav")[0] for name in "abcd"]
    assert names == ["spectral_bwe_music", "spectral_bwe"] * 2
    entries = [json.loads(line) for line in (folder / "m.jsonl").read_text().splitlines()]
    assert [entry["kind"] for entry in entries if entry["status"] == "done"] == [row["kind"] for row in rows]
    assert set(entries[-1]["models"]) == {"audio_classifier", "spectral_bwe", "spectral_bwe_music"}
    again = inside(
        "upsample", "in", "-o", "out", "--cutoff", "3600", "--json", "--manifest", "m.jsonl", "--resume", cwd=folder
    )
    assert [json.loads(line)["event"] for line in again.stdout.splitlines()] == ["skipped"] * 4


def test_messages_name_what_is_treated_as_music(folder: Path) -> None:
    stderr = inside("upsample", "in", "-o", "out", "--cutoff", "3600", cwd=folder).stderr.decode()
    assert stderr.count("treated as music (confidence 1.00; see --kind)") == 2
    assert "in/a.wav: treated as music" in stderr


def test_a_given_kind_is_for_all_recordings_and_nothing_is_detected(folder: Path) -> None:
    done = inside("upsample", "in", "-o", "out", "--cutoff", "3600", "--json", "--kind", "music", cwd=folder)
    rows = [row for row in map(json.loads, done.stdout.splitlines()) if row["event"] == "done"]
    assert [(row["kind"], row["kind_confidence"]) for row in rows] == [(None, None)] * 4
    assert {models(path)[0] for path in (folder / "out").iterdir()} == {"spectral_bwe_music"}


def test_a_dry_run_looks_at_no_samples(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiosr_cli.streaming.kind_pipeline.detect_kind", None)
    done = inside("upsample", "in", "-o", "out", "--dry-run", "--json", cwd=folder)
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["planned"] * 4
    assert not (folder / "out").exists()


def test_wrong_values_are_usage_errors(folder: Path) -> None:
    wrong = inside("upsample", "in", "--kind", "song", cwd=folder)
    assert wrong.returncode == 2
    both = inside("upsample", "in", "--kind", "music", "--model", "audio_unet", cwd=folder)
    assert (both.returncode, b"both choose a model" in both.stderr) == (2, True)


def test_a_kind_may_come_from_a_file(folder: Path, places: Places) -> None:
    places.write("[upsample]\nkind = 'music'")
    target = folder / "o.wav"
    assert inside("upsample", folder / "in" / "b.wav", "-o", target, "--cutoff", "3600").returncode == 0
    assert models(target) == ["spectral_bwe_music"]
