"""bench/memory.py: peaks against lengths, and what is not tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiosr_cli.bench import memory
from audiosr_cli.bench.candidates import Setting, find


def test_foretold_is_a_line_through_the_last_two() -> None:
    assert memory.foretold([(1.0, 300.0)], 10.0) == 300.0
    assert memory.foretold([(0.5, 7.0), (1.0, 300.0), (10.0, 390.0)], 60.0) == 890.0


def test_a_peer_grows_and_is_stopped_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(tmp_path, device="cpu")
    rows = list(memory.measure(find([], ["soxr"]), [20.0, 1.0], setting))  # floats at 8 and 48 kHz
    assert [row.audio_s for row in rows] == [1.0, 20.0]
    assert all(row.peak_rss_mb is not None and 50 < row.peak_rss_mb < 2000 for row in rows)
    monkeypatch.setattr(memory, "free_mb", lambda: 10.0)
    first, second, third = memory.measure(find([], ["soxr"]), [1.0, 2.0, 3.0], setting)
    assert first.peak_rss_mb is not None
    assert second.peak_rss_mb is third.peak_rss_mb is None
    assert second.reason == third.reason == "would take about 0 GB"


def test_after_a_failure_no_longer_recording_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "audiosr", lambda *_: ["/bin/sh", "-c", "echo no >&2; exit 1"])
    rows = list(memory.measure(find(["upsample"], []), [1.0, 2.0], Setting(tmp_path)))
    assert [(row.peak_rss_mb, row.reason) for row in rows] == [(None, "no"), (None, "no")]


def test_free_memory_is_known() -> None:
    assert 10 < memory.free_mb() < 1e9
