"""streaming/auto.py: recordings get the pipeline for their number of speakers; what is counted of files and pipes."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import soundfile
from conftest import BWE, halves, noise
from counted import auto

from audiosr_cli.audio.read import AudioReader
from audiosr_cli.errors import UsageError
from audiosr_cli.models import build, make_config
from audiosr_cli.streaming.auto import AutoPipeline
from audiosr_cli.streaming.options import Options, Samples
from audiosr_cli.streaming.pipeline import Pipeline

RATE = 8000


def counted(pipeline: AutoPipeline) -> Samples:
    return cast("Any", pipeline.counter).signal


def wav(seconds: float) -> tuple[Samples, bytes]:
    signal, stream = noise(round(seconds * RATE)), io.BytesIO()
    soundfile.write(stream, signal.T, RATE, "FLOAT", format="WAV")
    return signal, stream.getvalue()


def test_all_outputs_that_a_recording_may_have_are_named() -> None:
    assert auto().outputs == ("speaker1", "speaker2", "speaker3")
    assert auto(residual=True).outputs == ("speaker1", "speaker2", "speaker3", "residual")
    assert auto().alternatives == (("speaker1",), ("speaker1", "speaker2"), ("speaker1", "speaker2", "speaker3"))


def test_models_that_count_are_among_the_checkpoints() -> None:
    pipeline = auto()
    model = halves()
    model.sha256 = "abc"
    cast("Any", pipeline.counter).models = (model,)
    assert pipeline.checkpoints["wave_u_net"] == ""  # of by_count, which has the same name here
    assert replace(pipeline, by_count=()).checkpoints == {"wave_u_net": "abc"}


@pytest.mark.parametrize("speakers", [1, 2, 3])
def test_a_signal_gets_as_many_outputs_as_it_has_speakers(speakers: int) -> None:
    pipeline, signal = auto(speakers), noise(RATE)
    output = pipeline.array(signal, RATE)
    assert output.shape == (speakers, 1, RATE)
    np.testing.assert_allclose(output.sum(0), signal, atol=1e-5)
    np.testing.assert_array_equal(counted(pipeline), signal)


def test_one_voice_comes_out_as_it_is() -> None:
    signal = noise(3000, channels=2)
    np.testing.assert_array_equal(auto(1).array(signal, 44100)[0], signal)


def test_the_beginning_of_a_pipe_is_counted_and_nothing_of_it_is_lost() -> None:
    signal, data = wav(3)
    pipeline = auto()
    with AudioReader(data) as reader:
        output, report = pipeline.in_memory(reader)
    np.testing.assert_array_equal(counted(pipeline), signal[:, :RATE])
    np.testing.assert_allclose(output.sum(0), signal, atol=1e-5)
    assert report.notes[0] == "the bytes: 2 speakers (confidence 0.90, counted in its first 1 s)"
    with AudioReader(wav(0.5)[1]) as reader:
        assert pipeline.in_memory(reader)[1].notes[0] == "the bytes: 2 speakers (confidence 0.90)"


@pytest.mark.parametrize("is_file", [True, False])
def test_only_the_part_between_start_and_end_is_counted(is_file: bool, tmp_path: Path) -> None:
    signal, data = wav(3)
    (tmp_path / "a.wav").write_bytes(data)
    pipeline = auto(options=Options(start_s=1.5, end_s=2.25))
    with AudioReader(str(tmp_path / "a.wav") if is_file else data) as reader:
        output, _ = pipeline.in_memory(reader)
    part = signal[:, 12000:18000]
    np.testing.assert_array_equal(counted(pipeline), part)
    np.testing.assert_allclose(output.sum(0), part, atol=1e-5)


def test_a_long_file_is_counted_in_parts_of_it(tmp_path: Path) -> None:
    signal, data = wav(8)
    (tmp_path / "a.wav").write_bytes(data)
    pipeline = auto()
    with AudioReader(tmp_path / "a.wav") as reader:
        output, report = pipeline.in_memory(reader)
    starts = (0, 20000, 40000, 60000)
    np.testing.assert_array_equal(counted(pipeline), np.concatenate([signal[:, s : s + 4000] for s in starts], axis=1))
    assert output.shape == (2, 1, 8 * RATE)
    assert report.notes[0].endswith("2 speakers (confidence 0.90, counted in 2 s of it)")
    pipeline.array(signal, RATE)
    assert counted(pipeline).shape == (1, 16000)


@pytest.mark.parametrize(("seconds", "total_s"), [(8.0, 2.0), (1.5, 1.5)])
def test_counting_shows_how_far_it_is(seconds: float, total_s: float, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(seconds)[1])
    calls: list[tuple[float, float | None]] = []
    with AudioReader(tmp_path / "a.wav") as reader:
        auto().select(reader, lambda *call: calls.append(call))
    assert calls[0] == (0.0, total_s)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    assert all(done < total_s for done, _ in calls)


def test_a_file_of_unknown_length_is_counted_in_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(8)[1])
    pipeline = auto()
    with AudioReader(tmp_path / "a.wav") as reader:
        reader.frames = None
        count = pipeline.select(reader).count
    assert count is not None
    assert (count.analysed_s, count.where) == (2.0, "its first 2 s")
    assert counted(pipeline).shape == (1, 2 * RATE)


def test_a_file_that_ends_before_its_header_says_was_not_counted_in_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(3)[1])
    with AudioReader(tmp_path / "a.wav") as reader:
        reader.frames = 8 * RATE
        count = auto().select(reader).count
    assert count is not None
    assert count.where == "1 s of it"


def test_a_pipe_of_just_the_limit_is_counted_in_all_of_it() -> None:
    with AudioReader(wav(1)[1]) as reader:
        count = auto().select(reader).count
    assert count is not None
    assert count.where == ""


def test_the_report_has_the_number_its_confidence_and_the_time_it_took() -> None:
    with AudioReader(wav(0.5)[1]) as reader:
        report = auto(3).in_memory(reader)[1]
        assert (report.speakers, report.speakers_confidence) == (3, 0.9)
        assert report.elapsed_s > 1000
    with AudioReader(wav(0.5)[1]) as reader:
        report = auto().by_count[1].in_memory(reader)[1]
        assert (report.speakers, report.speakers_confidence) == (None, None)


@pytest.mark.parametrize(
    ("speakers", "values", "warning"),
    [
        (1, {"voices": 0, "confidence": 0.3}, "no speech was found to count speakers in"),
        (3, {"voices": 5}, "5 voices were found; at most 3 can be separated"),
        (2, {"confidence": 0.4}, "the number of speakers is uncertain (2, confidence 0.40); use --speakers N"),
        (2, {"confidence": 0.6}, None),
    ],
    ids=str,
)
def test_doubts_are_warnings(speakers: int, values: dict[str, Any], warning: str | None) -> None:
    with AudioReader(wav(0.5)[1]) as reader:
        report = auto(speakers, **values).in_memory(reader)[1]
    about = [line for line in report.warnings if "speakers" in line or "voices" in line]
    assert [warning in line for line in about if warning] == [True] * (warning is not None)
    assert bool(about) == (warning is not None)


def test_one_voice_at_a_lower_rate_is_only_resampled() -> None:
    """An upsampler that comes first would refuse a rate below the recording's."""
    pipeline = auto(1)
    upsampler = build("spectral_bwe", make_config("spectral_bwe", BWE)).eval()
    single = Pipeline((upsampler,), 4000, pipeline.options)
    pipeline = replace(pipeline, rate=4000, by_count=(single, *pipeline.by_count[1:]))
    assert pipeline.array(noise(RATE), RATE).shape == (1, 1, 4000)


def test_files_need_the_selected_pipeline(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(800).T, RATE)
    targets = [tmp_path / f"{i}.wav" for i in range(3)]
    with pytest.raises(UsageError, match="depends on the recording"):
        auto(3).write(tmp_path / "a.wav", targets)
    with AudioReader(tmp_path / "a.wav") as reader:
        report = auto(3).select(reader).file(reader, targets)
    assert (report.speakers, len(report.outputs)) == (3, 3)
