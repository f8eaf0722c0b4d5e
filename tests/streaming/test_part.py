"""Options.start_s and end_s: a part of a recording is processed as a recording of its own."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import noise, tone

from audiosr_cli.api.processing import separate, separate_sr, upsample
from audiosr_cli.errors import InputError, UsageError
from audiosr_cli.pipelines import SeparateOptions, UpsampleOptions
from audiosr_cli.streaming.options import Options

pytestmark = [pytest.mark.filterwarnings("ignore::audiosr_cli.AudioSRWarning"), pytest.mark.usefixtures("untrained")]

RATE = 11025
START_S, END_S = 0.23456, 0.5
FIRST, LAST = 2586, 5512  # of 2586.02 and 5512.5, halves to even


@pytest.fixture
def wave() -> np.ndarray:
    """A recording whose cutoff differs from that of its part."""
    return np.concatenate([noise(FIRST, 2), tone(4_000, 400, RATE, 2), noise(1_000, 2)], axis=1)


@pytest.mark.parametrize("function", [separate, upsample, separate_sr])
def test_a_part_gives_what_a_recording_of_the_part_gives(function: Any, wave: np.ndarray) -> None:
    part = function(wave, RATE, start_s=START_S, end_s=END_S)
    alone = function(wave[:, FIRST:LAST], RATE)
    assert np.array_equal(part.audio, alone.audio)
    assert part.report.cutoff_hz == alone.report.cutoff_hz
    assert part.report.frames_in == LAST - FIRST


def test_files_give_what_arrays_give(wave: np.ndarray, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", wave.T, RATE, "FLOAT")
    options = Options(start_s=START_S, end_s=END_S)
    pipeline = UpsampleOptions(44100, "spectral_bwe").pipeline(options)
    report = pipeline.write(tmp_path / "a.wav", [tmp_path / "b.wav"])
    expected = upsample(wave, RATE, rate=44100, start_s=START_S, end_s=END_S, precision="float32")
    written, rate = soundfile.read(tmp_path / "b.wav", dtype="float32")
    assert (rate, report.cutoff_hz) == (44100, expected.report.cutoff_hz)
    assert np.array_equal(written.T, expected.audio)


def test_a_pipe_gives_what_a_file_gives_and_is_not_read_behind_the_end(wave: np.ndarray, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", wave.T, RATE, "FLOAT")
    content = (tmp_path / "a.wav").read_bytes()
    os.mkfifo(tmp_path / "pipe.wav")
    enough = 100 + 8 * LAST + (1 << 20)

    def feed() -> None:
        with open(tmp_path / "pipe.wav", "wb", buffering=0) as pipe:
            pipe.write((content + bytes(enough))[:enough])
            done.wait()  # a recording that goes on

    done = threading.Event()
    thread = threading.Thread(target=feed)
    thread.start()
    try:
        pipeline = SeparateOptions(2).pipeline(Options(start_s=START_S, end_s=END_S))
        pipeline.write(tmp_path / "pipe.wav", [tmp_path / "p1.wav", tmp_path / "p2.wav"])
    finally:
        done.set()
        thread.join()
    pipeline.write(tmp_path / "a.wav", [tmp_path / "f1.wav", tmp_path / "f2.wav"])
    for i in (1, 2):
        assert (tmp_path / f"p{i}.wav").read_bytes()[-8000:] == (tmp_path / f"f{i}.wav").read_bytes()[-8000:]
        assert soundfile.info(tmp_path / f"p{i}.wav").frames == LAST - FIRST


def test_a_start_behind_the_end_leaves_no_output(wave: np.ndarray, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", wave.T, RATE)
    pipeline = UpsampleOptions(44100, "none").pipeline(Options(start_s=60.0))
    with pytest.raises(InputError, match=r"a\.wav: --start 60 s is not before its end; it is 0\.688 s long"):
        pipeline.write(tmp_path / "a.wav", [tmp_path / "b.wav"])
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["a.wav"]


def test_an_end_behind_the_end_is_a_note(wave: np.ndarray) -> None:
    report = upsample(wave, RATE, model="none", start_s=0.2, end_s=60.0).report
    assert "the array: ends at 0.688 s, before --end 60 s" in report.notes
    assert report.frames_in == wave.shape[1] - RATE // 5
    exact = upsample(wave, RATE, model="none", end_s=wave.shape[1] / RATE).report
    assert not [note for note in exact.notes if "--end" in note]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ({"start_s": 2.0, "end_s": 1.0}, "--end 1 s: must be after --start 2 s"),
        ({"start_s": 2.0, "end_s": 2.0}, "--end 2 s: must be after --start 2 s"),
        ({"end_s": 0.0}, "--end 0 s: must be after --start 0 s"),
        ({"start_s": -1.0}, "start_s = -1: must be at least 0"),
        ({"end_s": float("nan")}, "end_s = nan: expected a finite number"),
        ({"start_s": "1:30"}, "start_s = '1:30': expected a finite number"),
    ],
    ids=str,
)
def test_impossible_times_are_usage_errors(times: dict[str, Any], message: str, wave: np.ndarray) -> None:
    with pytest.raises(UsageError, match=message):
        upsample(wave, RATE, **times)


def test_positions_in_errors_are_those_of_the_recording(wave: np.ndarray) -> None:
    wave[1, FIRST + 100] = np.nan
    with pytest.raises(InputError, match=f"sample {FIRST + 100} "):
        upsample(wave, RATE, model="none", start_s=START_S)
    assert upsample(wave, RATE, model="none", end_s=START_S).report.frames_in == FIRST


def test_progress_counts_the_part(wave: np.ndarray) -> None:
    calls: list[tuple[float, float | None]] = []
    upsample(wave, RATE, model="none", start_s=0.2, end_s=0.6, progress=lambda *call: calls.append(call))
    assert calls[-1] == (0.4, 0.4)


@pytest.mark.parametrize(
    ("frames", "expected"), [(None, None), (0, 0), (8000, 0), (16000, 0), (20000, 4000), (32000, 8000)]
)
def test_frames_of_the_part_are_counted(frames: int | None, expected: int | None) -> None:
    assert Options(start_s=2.0, end_s=3.0).count_frames(frames, 8000) == expected
