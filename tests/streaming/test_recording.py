"""streaming/: the whole route of a recording with small models: lengths, levels, files."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from conftest import BWE, HANG_S, SMALL, halves, noise, restorer, tone
from torch import Tensor

from audiosr_cli import api
from audiosr_cli.audio import write
from audiosr_cli.audio.formats import OutputFormat
from audiosr_cli.audio.read import AudioReader
from audiosr_cli.audio.resample import resampled_length
from audiosr_cli.checkpoints import store
from audiosr_cli.checkpoints.store import load_model
from audiosr_cli.errors import InputError, ModelError, UsageError
from audiosr_cli.files import atomic
from audiosr_cli.files.fingerprint import sha256
from audiosr_cli.models import build, make_config
from audiosr_cli.models.runner import ModelCall
from audiosr_cli.pipelines import SeparateOptions, SeparateSROptions, UpsampleOptions
from audiosr_cli.streaming.in_memory import process_array
from audiosr_cli.streaming.options import Options
from audiosr_cli.streaming.pipeline import Pipeline
from audiosr_cli.streaming.recording import process_file
from audiosr_cli.streaming.report import Report, _speaker_warnings

OPTIONS = Options()


@pytest.mark.parametrize("in_rate", [8000, 11025, 16000, 44100, 96000])
@pytest.mark.parametrize("out_rate", [8000, 44100, 48000])
@pytest.mark.parametrize("frames", [0, 1, 7, 4410, 30_001])
def test_exact_length(in_rate: int, out_rate: int, frames: int) -> None:
    output = process_array(noise(frames, 2), in_rate, [halves()], out_rate, OPTIONS)
    assert output.shape == (2, 2, resampled_length(frames, in_rate, out_rate))


@pytest.mark.parametrize("in_rate", [8000, 44100, 48000])
def test_no_lag_no_gain(in_rate: int) -> None:
    wave = tone(in_rate, 400, in_rate, 2)
    output = process_array(wave, in_rate, [halves()], in_rate, OPTIONS)
    cutoff = in_rate // 20
    np.testing.assert_allclose(output.sum(0)[:, cutoff:-cutoff], wave[:, cutoff:-cutoff], atol=2e-3)
    np.testing.assert_allclose(output[0], output[1], atol=1e-6)


@pytest.mark.parametrize("frames", [0, 1, 7, 4410, 30_001])
@pytest.mark.parametrize(("in_rate", "out_rate"), [(8000, 8000), (11025, 44100), (44100, 44100), (96000, 16000)])
def test_exact_length_with_a_restorer(in_rate: int, out_rate: int, frames: int) -> None:
    output = process_array(noise(frames, 2), in_rate, [halves(), restorer()], out_rate, OPTIONS)
    assert output.shape == (2, 2, resampled_length(frames, in_rate, out_rate))


@pytest.mark.parametrize(("rate", "sources"), [(16000, 2), (48000, 3)])
def test_restored_sources_sum_to_the_mixture(rate: int, sources: int) -> None:
    wave = noise(rate, 2)
    output = process_array(wave, rate, [halves(8000, sources), restorer(rate, sources)], rate, OPTIONS)
    missing = (output.sum(0) - wave)[:, rate // 20 : -rate // 20]
    assert np.square(missing).mean() < 0.01 * np.square(wave).mean()  # where soxr's filter falls
    np.testing.assert_allclose(output[0], output[1], atol=1e-6)
    silent = process_array(0 * wave, rate, [halves(8000, sources), restorer(rate, sources)], rate, OPTIONS)
    assert not silent.any()


@pytest.mark.parametrize(("rate", "out_rate", "models"), [(8000, None, 1), (16000, None, 2), (8000, 48000, 2)])
def test_a_chain_leaves_out_models_that_a_recording_does_not_need(rate: int, out_rate: int | None, models: int) -> None:
    """A restorer needs content above the separator's band, an upsampler a recording that lacks content."""
    chain = (halves(), restorer(), *([load_model("audio_unet")] if out_rate else []))
    assert len(Pipeline(chain, out_rate, OPTIONS).chain(rate)) == models


@pytest.mark.parametrize(("rate", "out_rate"), [(8000, None), (16000, None), (48000, 16000), (8000, 16000)])
def test_separated_sources_of_full_band_are_not_upsampled(rate: int, out_rate: int | None) -> None:
    separator, (upsampler,) = halves(16000), upsampling().models
    tasks = [call.spec.task for call in Pipeline((separator, upsampler), out_rate, OPTIONS).chain(rate)]
    assert tasks == (["separate", "upsample"] if (rate, out_rate) == (8000, 16000) else ["separate"])


@pytest.mark.parametrize(("rate", "cutoff_hz"), [(8000, 3780), (16000, 7560), (24000, 11340)])
def test_an_upsampler_begins_where_the_restored_band_ends(rate: int, cutoff_hz: float) -> None:
    """The restorer has filled the band between the separator's 4 kHz and there from the mixture."""
    chain = Pipeline((halves(8000), restorer(24000), *upsampling().models), 48000, OPTIONS).chain(rate)
    assert len(chain) == (3 if rate > 8000 else 2)
    assert chain[-1].cutoff_hz == pytest.approx(cutoff_hz)


def upsampling(cutoff_hz: float | None = None, rate: int = 48000) -> Pipeline:
    model = build("spectral_bwe", make_config("spectral_bwe", BWE)).eval().requires_grad_(False)
    return Pipeline((model,), rate, OPTIONS, cutoff_hz=cutoff_hz)


def narrow(cutoff: float, sample_rate: int = 48000, seconds: int = 2) -> np.ndarray:
    """Noise (2, T) that ends at ``cutoff`` Hz."""
    wave = noise(seconds * sample_rate, 2)
    spectrum = np.fft.rfft(wave)
    spectrum[:, int(cutoff * seconds) :] = 0
    return np.fft.irfft(spectrum, wave.shape[1]).astype(np.float32)


@pytest.mark.parametrize(("cutoff", "models"), [(4000, 1), (12000, 1), (21000, 0), (24000, 0)])
def test_upsampling_changes_only_recordings_that_lack_content(tmp_path: Path, cutoff: int, models: int) -> None:
    wave = narrow(cutoff)
    pipeline = upsampling()
    detected = pipeline.find_bandwidth([wave], 48000).cutoff_hz
    assert detected == pytest.approx(cutoff, rel=0.05)
    chain = pipeline.chain(48000, detected)
    assert len(chain) == models
    soundfile.write(tmp_path / "a.wav", wave.T, 48000, "FLOAT")
    report = pipeline.write(tmp_path / "a.wav", [tmp_path / "b.wav"])
    assert report.cutoff_hz == detected
    assert ("frequencies above were restored" if models else "nothing to restore") in report.notes[0]
    output = soundfile.read(tmp_path / "b.wav", dtype="float32")[0].T
    assert np.array_equal(output, wave) == (models == 0)
    np.testing.assert_array_equal(output, pipeline.array(wave, 48000)[0])


def test_a_given_cutoff_replaces_the_detected_one(tmp_path: Path) -> None:
    wave = narrow(9000)
    assert upsampling(3000.0).find_bandwidth([wave], 48000).cutoff_hz == 3000.0
    assert upsampling(30000.0).find_bandwidth([wave], 48000).cutoff_hz == 24000.0
    silent = upsampling()
    assert silent.find_bandwidth([0 * wave], 48000).cutoff_hz is None
    assert silent.chain(48000, None) == ()
    np.testing.assert_array_equal(silent.array(0 * wave, 48000)[0], 0 * wave)
    with pytest.raises(UsageError, match="--cutoff 20: must be at least 500 Hz"):
        UpsampleOptions(cutoff_hz=20.0).pipeline()
    assert UpsampleOptions(16000, "none").pipeline().array(wave, 48000).shape == (1, 2, 32000)


@pytest.mark.parametrize("cutoff_hz", [1000.0, 3000.0, 9000.0])
def test_upsampler_gets_the_given_cutoff(cutoff_hz: float) -> None:
    pipeline = upsampling(cutoff_hz)
    (model,) = pipeline.chain(48000, cutoff_hz)
    assert model.cutoff_hz == pytest.approx(cutoff_hz, rel=0.02)
    expected = process_array(noise(9600), 48000, [ModelCall(pipeline.models[0], model.cutoff_hz)], 48000, OPTIONS)
    np.testing.assert_array_equal(pipeline.array(noise(9600), 48000), expected)


@pytest.mark.parametrize("low_rate", [8000, 16000, 24000])
def test_upsampler_gets_the_minus_3_db_point_of_a_resampled_recording(low_rate: int) -> None:
    """Not the frequency at which content ends, which is higher: the roll-off would remain as a dip."""
    wide = noise(4 * 48000)[0]
    low = soxr.resample(soxr.resample(wide, 48000, low_rate), low_rate, 48000)[: len(wide)]
    power = [np.square(np.abs(np.fft.rfft(wave))).reshape(-1)[:-1].reshape(-1, 200).sum(1) for wave in (low, wide)]
    three_db = float(np.argmax(power[0] < power[1] / 2) * 200 / 4)  # in bands of 50 Hz
    pipeline = upsampling()
    (model,) = pipeline.chain(48000, pipeline.find_bandwidth([low[None]], 48000).cutoff_hz)
    assert 0.98 * three_db - 50 < model.cutoff_hz < three_db + 25


def test_upsampler_after_a_separator_gets_the_cutoff_of_its_output() -> None:
    pipeline = Pipeline((halves(8000), *upsampling().models), 48000, OPTIONS)
    separator, upsampler = pipeline.chain(44100)
    assert separator.spec.out_rate == 8000
    assert 0.9 * 4000 < upsampler.cutoff_hz < 4000


def test_the_cutoff_of_a_pipe_is_detected_without_losing_samples(tmp_path: Path) -> None:
    wave = narrow(5000, 16000, 4)
    soundfile.write(tmp_path / "a.wav", wave.T, 16000, "FLOAT")
    with AudioReader(tmp_path / "a.wav") as reader:
        reader.path = None  # like a pipe
        for _ in reader.peek(1.0):
            pass
        np.testing.assert_array_equal(np.concatenate(list(reader.blocks()), axis=1), wave)
    with AudioReader(tmp_path / "a.wav") as reader:
        reader.path = None
        assert upsampling().file_bandwidth(reader).cutoff_hz == pytest.approx(5000, rel=0.05)


@pytest.mark.filterwarnings("ignore::audiosr_cli.AudioSRWarning")
def test_arrays_and_paths_give_equal_results(small_weights: Path, tmp_path: Path) -> None:
    wave = tone(9000, 300, 8000, 2)
    soundfile.write(tmp_path / "a.wav", wave.T, 8000, "FLOAT")
    for function in (api.separate, api.upsample, api.separate_sr):
        np.testing.assert_array_equal(function(wave, 8000).audio, function(tmp_path / "a.wav").audio)
    assert api.separate(wave[0], 8000).audio.shape == (2, 1, 9000)
    assert api.upsample(wave, 8000, rate=44100).audio.shape == (2, 49613)
    assert api.separate_sr(wave, 8000, rate=16000).audio.shape == (2, 2, 18000)


@pytest.mark.filterwarnings("ignore::audiosr_cli.AudioSRWarning")
def test_written_files_equal_the_arrays(small_weights: Path, tmp_path: Path) -> None:
    wave = tone(9000, 300, 8000, 2)
    soundfile.write(tmp_path / "a.wav", wave.T, 8000, "FLOAT")
    targets = [tmp_path / "1.wav", tmp_path / "2.wav"]
    report = SeparateOptions(2).pipeline().write(tmp_path / "a.wav", targets)
    for output, target in zip(api.separate(wave, 8000).audio, targets, strict=True):
        np.testing.assert_array_equal(soundfile.read(target, dtype="float32")[0].T, output)
    assert (report.frames_in, report.frames_out, report.channels) == (9000, 9000, 2)
    assert all("uncertain" in line or "nearly empty" in line for line in report.warnings)  # it is untrained


def test_all_targets_or_none(small_weights: Path, tmp_path: Path) -> None:
    """The last sample is not finite, so no output must exist."""
    wave = tone(9000, 300, 8000)
    wave[0, -1] = np.nan
    soundfile.write(tmp_path / "a.wav", wave.T, 8000, "FLOAT")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(InputError, match=r"sample 8999 \(1\.125 s\)"):
        SeparateOptions(2).pipeline().write(tmp_path / "a.wav", [out / "1.wav", out / "2.wav"])
    assert list(out.iterdir()) == []


def test_all_outputs_are_flushed_before_the_first_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", noise(1000).T, 8000)
    steps: list[str] = []
    monkeypatch.setattr(write, "flush", lambda part: steps.append("flush"))
    monkeypatch.setattr(atomic.os, "replace", lambda part, target: steps.append("name"))
    targets = [tmp_path / "1.wav", tmp_path / "2.wav"]
    Pipeline((halves(),), None, OPTIONS).write(tmp_path / "a.wav", targets)
    assert steps == ["flush", "flush", "name", "name"]


def test_warnings_about_empty_tracks_and_uncertain_order() -> None:
    certain = Report("x.wav", [], levels_db=[-20.0, -45.0, None, 0.0], confidence=[1.0, 0.9], confidence_hop_s=1.5)
    first, second = _speaker_warnings(certain, 3)  # the fourth is the residual
    assert "track of speaker 2 is nearly empty (-25 dB)" in first
    assert "track of speaker 3 is nearly empty (-inf dB)" in second
    uncertain = Report("x.wav", [], levels_db=[-20.0, -22.0], confidence=[1.0, 0.5, 0.6], confidence_hop_s=1.5)
    assert _speaker_warnings(uncertain, 2) == ["x.wav: speaker order is uncertain at 2 s, 3 s (2 of 3 windows)"]
    assert not _speaker_warnings(Report("x.wav", [], levels_db=[None, None]), 2)


def test_sources_and_residual_sum_to_the_input(small_weights: Path) -> None:
    wave = noise(5000, 2)
    output = SeparateOptions(2, residual=True).pipeline().array(wave, 16000)
    assert output.shape == (3, 2, 5000)
    np.testing.assert_allclose(output.sum(0), wave, atol=1e-6)
    assert SeparateOptions(2, residual=True).pipeline().array(wave[:, :0], 16000).shape == (3, 2, 0)


def test_separate_sr_uses_the_separator_with_the_lowest_rate(small_weights: Path) -> None:
    """The restorer adds the frequencies above; `separate` uses the first model of the catalogue."""
    wide = build("wave_u_net", make_config("wave_u_net", SMALL["wave_u_net"] | {"name": "wide", "sample_rate": 16000}))
    store.save_model(wide, small_weights / "wide.safetensors", {"data": "none"})
    entry = {"file": "wide.safetensors", "sha256": sha256(small_weights / "wide.safetensors"), "tasks": ["separate"]}
    catalogue = small_weights / "catalogue.json"
    catalogue.write_text(json.dumps({"wide": entry} | json.loads(catalogue.read_text())))
    assert SeparateOptions(2).pipeline().models[0].spec.name == "wide"
    assert SeparateSROptions(2).pipeline().models[0].spec.name == "wave_u_net"


def test_a_restorer_must_fit_the_band_of_the_separator(small_weights: Path, tmp_path: Path) -> None:
    """The bundled one takes sources that end at 4 kHz, so it fits no separator at 16 kHz, or at 4 kHz."""
    assert [model.spec.task for model in SeparateSROptions(2).pipeline().models] == ["separate", "separate-sr"]
    for rate, end in ((16000, 8000), (4000, 2000)):
        path = tmp_path / f"{rate}.safetensors"
        model = build("wave_u_net", make_config("wave_u_net", SMALL["wave_u_net"] | {"sample_rate": rate}))
        store.save_model(model, path, {"data": "none"})
        pipeline = SeparateSROptions(2, model=str(path)).pipeline()
        assert [model.spec.task for model in pipeline.models] == ["separate", "upsample"]
        with pytest.raises(UsageError, match=rf"above 3750 Hz, but the tracks of .* end at {end} Hz"):
            SeparateSROptions(2, model=str(path), restorer="band_masks").pipeline()


def test_usage_errors(small_weights: Path) -> None:
    with pytest.raises(UsageError, match=r"no bundled model separates 3 speakers \(available: 2\)"):
        SeparateOptions(3).pipeline()
    with pytest.raises(UsageError, match="--rate 0"):
        UpsampleOptions(0).pipeline()
    with pytest.raises(ModelError, match="expected a model for upsample; this one is for separate"):
        UpsampleOptions(model="wave_u_net").pipeline()
    with pytest.raises(UsageError, match="sample_rate is missing"):
        api.separate(noise(100))
    with pytest.raises(UsageError, match=r"shape \(2, 2, 2\); expected"):
        api.separate(np.zeros((2, 2, 2)), 8000)
    with pytest.raises(UsageError, match="int16"):
        api.separate(np.zeros(100, np.int16), 8000)
    with pytest.raises(UsageError, match="3000 channels"):
        api.separate(np.zeros((3000, 2)), 8000)
    with pytest.raises(InputError, match="sample 1 "):
        api.separate(np.array([0, np.nan, 0]), 8000)


@pytest.mark.parametrize("name", ["batch", "threads", "channels"])
def test_options_below_1_are_usage_errors(name: str) -> None:
    with pytest.raises(UsageError, match=f"--{name} 0: must be at least 1"):
        Options(**{name: 0})


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_and_cpu_give_close_results() -> None:
    wave = tone(20_000, 300, 8000, 2)
    on_cpu, on_cuda = (
        SeparateOptions(2).pipeline(Options(device=device, batch=4)).array(wave, 8000) for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(on_cuda, on_cpu, atol=1e-3)  # TF32 convolutions


@pytest.mark.parametrize("channels", [1, 2])
def test_windows_are_computed_in_parallel(channels: int, tmp_path: Path) -> None:
    """Each window waits until another one is computed, too; with one thread none comes."""
    model, meeting, inside = halves(), threading.Barrier(2, timeout=HANG_S), list[int]()
    forward = type(model).forward

    def meet(x: Tensor) -> Tensor:
        inside.append(meeting.wait())
        return forward(model, x)

    model.forward = meet
    wave = noise(4 * model.spec.hop // channels - 10, channels)  # zeros follow
    output = process_array(wave, 8000, [model], 8000, Options(threads=2))
    assert sorted(inside) == [0, 0, 1, 1]
    inside.clear()
    soundfile.write(tmp_path / "a.wav", wave.T, 8000, subtype="FLOAT")
    with AudioReader(tmp_path / "a.wav") as reader:
        targets = [tmp_path / f"{i}.wav" for i in range(2)]
        process_file(targets, reader, [model], OutputFormat("wav", "FLOAT", 8000, channels), Options(threads=2))
    assert sorted(inside) == [0, 0, 1, 1]
    assert np.array_equal(soundfile.read(targets[0], dtype="float32", always_2d=True)[0].T, output[0])
    meeting = threading.Barrier(2, timeout=0.1)
    with pytest.raises(threading.BrokenBarrierError):
        process_array(wave, 8000, [model], 8000, Options(threads=1))
