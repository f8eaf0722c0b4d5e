"""bench/memory.py: peaks against lengths, and lengths that are not tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiosr_cli.bench import memory
from audiosr_cli.bench.candidates import BenchSettings, find_candidates


def test_memory_is_extrapolated_from_the_last_two_points() -> None:
    assert memory.extrapolate([(1.0, 300.0)], 10.0) == 300.0
    assert memory.extrapolate([(0.5, 7.0), (1.0, 300.0), (10.0, 390.0)], 60.0) == 890.0


def test_lengths_beyond_the_available_memory_are_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = BenchSettings(tmp_path, device="cpu")
    rows = list(memory.measure(find_candidates([], ["soxr"]), [20.0, 1.0], settings))  # floats at 8 and 48 kHz
    assert [row.audio_s for row in rows] == [1.0, 20.0]
    assert all(row.peak_rss_mb is not None and 50 < row.peak_rss_mb < 2000 for row in rows)
    monkeypatch.setattr(memory, "available_mb", lambda: 10.0)
    first, second, third = memory.measure(find_candidates([], ["soxr"]), [1.0, 2.0, 3.0], settings)
    assert first.peak_rss_mb is not None
    assert second.peak_rss_mb is third.peak_rss_mb is None
    assert second.reason == third.reason == "would need about 0 GB"


def test_after_a_failure_longer_recordings_are_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "audiosr", lambda *_: ["/bin/sh", "-c", "echo no >&2; exit 1"])
    rows = list(memory.measure(find_candidates(["upsample"], []), [1.0, 2.0], BenchSettings(tmp_path)))
    assert [(row.peak_rss_mb, row.reason) for row in rows] == [(None, "no"), (None, "no")]


def test_available_memory_is_known() -> None:
    assert 10 < memory.available_mb() < 1e9
