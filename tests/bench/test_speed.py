"""bench/speed.py: per-second figures, medians, roofline, and real processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
from conftest import noise

from audiosr_cli.bench import speed
from audiosr_cli.bench.candidates import BenchSettings, Failure, find_candidates
from audiosr_cli.bench.processes import ProcessUsage
from audiosr_cli.bench.speed import Speed, median_of
from audiosr_cli.errors import BenchError, InputError


def took(wall: float, peak: float = 100.0, channels: int = 1) -> Speed:
    return Speed("a", 10.0, channels, wall, 2 * wall, peak, 1.5, 0.8, 4.0)


def test_speed_is_per_second_of_audio() -> None:
    assert (took(2.0).real_time_factor, took(2.0).cpu_per_s) == (0.2, 0.4)


def test_roofline_is_the_time_of_the_flops() -> None:
    """4 GFLOP a second of audio at 40 GFLOP/s are 0.1 s, for each channel."""
    assert took(2.0).times_roofline(40.0) == pytest.approx(2.0)
    assert took(2.0, channels=2).times_roofline(40.0) == pytest.approx(1.0)
    assert Speed("a", 1.0, 1, 1.0, 1.0, 1.0, 1.0, 1.0).times_roofline(40.0) is None


def test_runs_are_summarised_by_medians_and_the_highest_peak() -> None:
    assert median_of([took(2.0, 100), took(9.0, 300), took(3.0, 200)]) == took(3.0, 300)


def test_candidates_are_interleaved_and_failures_reported_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    jobs = []

    def work(**job: object) -> tuple[dict[str, object], ProcessUsage]:
        jobs.append((job["action"], job["name"]))
        if job["name"] == "dprnn":
            raise BenchError("no")
        return {"gflop_per_s": 1.0, "wall_s": 1.0, "cpu_s": 1.0, "torch_s": 1.0, "bf16": False}, ProcessUsage(
            3.0, 2.0, 1_000_000, ""
        )

    monkeypatch.setattr(speed, "run_worker", work)
    rows = list(speed.measure(find_candidates(["audio_unet"], ["dprnn", "soxr"]), BenchSettings(tmp_path), 2))
    failed = Failure("DPRNN, our code (random weights)", "no")
    assert [row.model for row in rows] == ["audio_unet", failed.model, "soxr", "audio_unet", "soxr"]
    assert rows[1] == failed
    assert isinstance(rows[0], Speed)
    assert (rows[0].startup_s, rows[0].peak_rss_mb, rows[0].gflop_per_s) == (2.0, 1.0, 1.0)
    assert jobs.count(("count", "soxr")) == 1


@pytest.mark.slow  # test_bench_cli.py measures a command for real, too
def test_a_command_and_a_peer_are_measured(tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    soundfile.write(path, noise(16000, 2).T, 8000)
    rows = list(
        speed.measure(find_candidates(["upsample"], ["soxr"]), BenchSettings(tmp_path, str(path), device="cpu"), 1)
    )
    assert [row.model for row in rows] == ["audiosr upsample", "soxr"]
    for row in rows:
        assert isinstance(row, Speed)
        assert (row.audio_s, row.channels) == (2.0, 2)
        assert min(row.startup_s, row.torch_s, row.wall_s, row.cpu_s) > 0
        assert row.peak_rss_mb > 50


def test_an_unreadable_recording_is_found_before_any_run(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no audio")
    with pytest.raises(InputError):
        next(speed.measure(find_candidates(["upsample"], []), BenchSettings(tmp_path, str(tmp_path / "a.wav")), 1))
