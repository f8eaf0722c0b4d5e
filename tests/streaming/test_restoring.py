"""streaming/restoring.py: stretches are restored from their own cutoffs, and nothing else is touched."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import BWE, noise
from torch import Tensor
from voices import turns

from audiosr_cli.audio.arrays import ArrayReader
from audiosr_cli.audio.read import AudioReader
from audiosr_cli.audio.resample import Resampler
from audiosr_cli.models import Model, build, make_config
from audiosr_cli.models.runner import ModelCall
from audiosr_cli.streaming import pipeline as pipeline_module
from audiosr_cli.streaming.in_memory import process_array
from audiosr_cli.streaming.options import Options
from audiosr_cli.streaming.pipeline import Pipeline
from audiosr_cli.streaming.report import Report
from audiosr_cli.streaming.restoring import stages_for, stretched_call
from audiosr_cli.streaming.stages import stream
from audiosr_cli.streaming.stretches import FADE_S, Stretch

OPTIONS = Options()
RATE = 48000
FADE = round(FADE_S * RATE)


@cache
def upsampler() -> Model:
    config = make_config("spectral_bwe", BWE | {"n_fft": 256, "hop_length": 128, "frames": 100})
    return build("spectral_bwe", config).eval().requires_grad_(False)


def pipeline(options: Options = OPTIONS, rate: int = RATE) -> Pipeline:
    return Pipeline((upsampler(),), rate, options)


def restored(
    wave: np.ndarray,
    stretches: list[Stretch],
    calls: list[ModelCall | None],
    options: Options = OPTIONS,
    block: int = 20_000,
    out_rate: int = RATE,
    in_rate: int = RATE,
) -> np.ndarray:
    """Stream ``wave`` through the stage for ``stretches``."""
    call = stretched_call(stretches, calls, len(wave))
    stages = stages_for([call], in_rate, out_rate, len(wave), options)
    blocks = (wave[:, i : i + block] for i in range(0, wave.shape[1], block))
    return np.concatenate(list(stream(blocks, stages)), axis=1)


def test_a_stretch_is_what_the_whole_would_be_and_the_rest_is_the_input() -> None:
    wave, model = noise(2 * RATE), upsampler()
    call = ModelCall(model, 4000.0)
    plan = [Stretch(0, 0.5, 24000.0), Stretch(0.5, 1.25, 4000.0), Stretch(1.25, 2, 24000.0)]
    output = restored(wave, plan, [None, call, None])
    whole = process_array(wave, RATE, [call], RATE, OPTIONS)[0]
    start, end = RATE // 2, RATE * 5 // 4
    np.testing.assert_array_equal(output[:, :start], wave[:, :start])
    np.testing.assert_array_equal(output[:, end:], wave[:, end:])
    inside = slice(start + FADE, end - FADE)
    np.testing.assert_array_equal(output[:, inside], whole[:, inside])
    weight = (np.arange(FADE) + 0.5) / FADE  # the crossfades lie within the stretch, and are linear
    for part, share in ((slice(start, start + FADE), weight), (slice(end - FADE, end), weight[::-1])):
        expected = wave[:, part] + share * (whole - wave)[:, part]
        np.testing.assert_allclose(output[:, part], expected, atol=1e-6)


def test_two_cutoffs_are_crossfaded_without_the_input_between_them() -> None:
    wave, model = noise(2 * RATE), upsampler()
    low, high = ModelCall(model, 4000.0), ModelCall(model, 8000.0)
    output = restored(wave, [Stretch(0, 1, 4000.0), Stretch(1, 2, 8000.0)], [low, high])
    one, two = (process_array(wave, RATE, [call], RATE, OPTIONS)[0] for call in (low, high))
    np.testing.assert_array_equal(output[:, :RATE], one[:, :RATE])
    np.testing.assert_array_equal(output[:, RATE + FADE :], two[:, RATE + FADE :])
    weight = (np.arange(FADE) + 0.5) / FADE
    part = slice(RATE, RATE + FADE)
    np.testing.assert_allclose(output[:, part], one[:, part] + weight * (two - one)[:, part], atol=1e-6)


def test_only_the_channel_of_a_stretch_is_restored() -> None:
    wave, call = noise(RATE, 3), ModelCall(upsampler(), 4000.0)
    plan = [Stretch(0, 1, 24000.0, 1), Stretch(0, 1, 4000.0, 2), Stretch(0, 1, None, 3)]
    output = restored(wave, plan, [None, call, None])
    np.testing.assert_array_equal(output[[0, 2]], wave[[0, 2]])
    np.testing.assert_array_equal(output[1:2], process_array(wave[1:2], RATE, [call], RATE, OPTIONS)[0])


@pytest.mark.parametrize(("in_rate", "out_rate"), [(44100, 48000), (16000, 44100), (48000, 96000)])
@pytest.mark.parametrize("frames", [0, 1, 1000, 44_101])
def test_length_is_exact_and_what_passes_is_resampled(in_rate: int, out_rate: int, frames: int) -> None:
    wave, call = noise(frames, 2), ModelCall(upsampler(), 4000.0)
    plan = [Stretch(0, 0.6, 9000.0), Stretch(0.6, math.inf, 4000.0)]
    output = restored(wave, plan, [None, call], in_rate=in_rate, out_rate=out_rate)
    plain = Resampler(in_rate, out_rate, 2).push(np.pad(wave, ((0, 0), (0, 8))), last=True)
    assert output.shape == (2, (2 * frames * out_rate + in_rate) // (2 * in_rate))
    same = min(output.shape[1] - 200, round(0.6 * out_rate))  # beyond the end, zeros are padded
    np.testing.assert_array_equal(output[:, : max(0, same)], plain[:, : max(0, same)])


def test_blocks_batches_and_threads_do_not_change_the_output() -> None:
    wave, call = noise(RATE, 2), ModelCall(upsampler(), 4000.0)
    plan = [Stretch(0, 0.4, 24000.0), Stretch(0.4, 1, 4000.0)]
    expected = restored(wave, plan, [None, call])
    np.testing.assert_array_equal(restored(wave, plan, [None, call], block=777), expected)
    batched = restored(wave, plan, [None, call], Options(batch=5, threads=2))
    np.testing.assert_allclose(batched, expected, atol=1e-6)


def test_the_network_runs_only_where_something_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    wave, model, windows = noise(4 * RATE), upsampler(), list[int]()
    forward = type(model).forward

    def counted(self: Model, x: Tensor, **arguments: Tensor) -> Tensor:
        windows.append(len(x))
        return forward(self, x, **arguments)

    monkeypatch.setattr(type(model), "forward", counted)
    plan = [Stretch(0, 3, 24000.0), Stretch(3, 3.5, 4000.0), Stretch(3.5, 4, 24000.0)]
    restored(wave, plan, [None, ModelCall(model, 4000.0), None], Options(batch=8))
    needed = 0.6 * RATE / model.spec.hop  # half a second, and a little on both sides
    assert needed - 1 <= sum(windows) <= needed + 3


def guest(stereo: bool = False) -> np.ndarray:
    wave = turns((3.0, None), (3.0, 4000), (3.0, None))
    return np.concatenate([wave, turns((9.0, 4000))]) if stereo else wave


def test_a_guest_is_restored_in_a_file_and_in_memory(tmp_path: Path) -> None:
    wave = guest()
    soundfile.write(tmp_path / "a.wav", wave.T, RATE, "FLOAT")
    report = pipeline().write(tmp_path / "a.wav", [tmp_path / "b.wav"])
    output = soundfile.read(tmp_path / "b.wav", dtype="float32", always_2d=True)[0].T
    host = np.r_[: 3 * RATE, 6 * RATE : 9 * RATE]
    np.testing.assert_array_equal(output[:, host], wave[:, host])
    high = np.abs(np.fft.rfft([signal[0, 4 * RATE : 5 * RATE] for signal in (wave, output)]))[:, 6000:]
    assert np.square(high[1]).sum() > 100 * np.square(high[0]).sum()
    np.testing.assert_array_equal(pipeline().array(wave, RATE)[0], output)
    assert [round(stretch.cutoff_hz or 0, -2) for stretch in report.stretches] == [24000, 4000, 24000]
    assert report.cutoff_hz == 24000
    assert report.notes == [
        f"{tmp_path / 'a.wav'}: content ends at 4.0 kHz in 1 of 3 stretches (3 s of 9 s); frequencies above were "
        "restored there"
    ]
    listed = json.loads(json.dumps(asdict(report)))["stretches"]
    assert listed[0] == {"start_s": 0.0, "end_s": report.stretches[1].start_s, "cutoff_hz": 24000.0, "channel": None}


def test_channels_and_their_stretches_are_reported() -> None:
    report = pipeline().in_memory(ArrayReader(guest(stereo=True), RATE))[1]
    assert [stretch.channel for stretch in report.stretches] == [1, 1, 1, 2]
    assert report.notes == [
        "the array: channel 1: content ends at 4.0 kHz in 1 of 3 stretches (3 s of 9 s); frequencies above were "
        "restored there",
        "the array: channel 2: content ends at 4.0 kHz; frequencies above were restored",
    ]


def test_identical_channels_stay_identical() -> None:
    output = pipeline().array(np.repeat(guest(), 2, axis=0), RATE)[0]
    np.testing.assert_array_equal(output[0], output[1])
    assert (output[0] != guest()[0]).any()


def test_one_bandwidth_is_processed_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    wave = turns((4.0, 4000))
    bandwidth = pipeline().find_bandwidth([wave], RATE)
    monkeypatch.setattr(pipeline_module, "stretched_call", None)
    output, report = pipeline().in_memory(ArrayReader(wave, RATE))
    chain = pipeline().chain(RATE, bandwidth.cutoff_hz)
    np.testing.assert_array_equal(output, process_array(wave, RATE, chain, RATE, OPTIONS))
    assert report.stretches == []


def test_a_given_cutoff_holds_throughout() -> None:
    output, report = replace(pipeline(), cutoff_hz=4000.0).in_memory(ArrayReader(guest(), RATE))
    assert report.stretches == []
    assert (output[0][:, :RATE] != guest()[:, :RATE]).any()


def test_stretches_that_need_no_restoration_are_only_resampled() -> None:
    report = pipeline(rate=48000).in_memory(ArrayReader(guest(), RATE))[1]
    assert len(report.stretches) == 3
    low = turns((4.0, None), (4.0, 3400), sample_rate=16000)
    both = Pipeline((upsampler(),), 16000, OPTIONS).in_memory(ArrayReader(low, 16000))
    np.testing.assert_array_equal(both[0][0][:, : 4 * 16000], low[:, : 4 * 16000])


@pytest.mark.parametrize("seconds", [9.0, 14.0])
def test_after_the_beginning_of_a_pipe_the_widest_cutoff_holds(
    seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_module, "_PIPE_CUTOFF_S", 9.0)
    wave = turns((4.0, None), (seconds - 4.0, 4000))
    soundfile.write(tmp_path / "a.wav", wave.T, RATE, "FLOAT")
    with AudioReader(tmp_path / "a.wav") as reader:
        reader.path = None  # like a pipe
        report: Report = pipeline().file(reader, [tmp_path / "b.wav"])
    output = soundfile.read(tmp_path / "b.wav", dtype="float32", always_2d=True)[0].T
    assert (output[:, 6 * RATE : 7 * RATE] != wave[:, 6 * RATE : 7 * RATE]).any()
    assert report.stretches[-1].end_s == seconds
    if seconds > 9.0:
        np.testing.assert_array_equal(output[:, 11 * RATE :], wave[:, 11 * RATE :])
        assert len(report.stretches) == 3
    else:
        whole = pipeline().array(wave, RATE)[0]
        np.testing.assert_array_equal(output, whole)
