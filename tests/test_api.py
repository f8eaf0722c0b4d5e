"""api.py: results, inputs of every kind, warnings, and errors that are all AudioSRErrors."""

from __future__ import annotations

import ast
import doctest
import importlib
import io
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from api_calls import RATE, WAVE, encoded, resample, warned
from conftest import EXAMPLES, noise, tone

import audiosr_cli
from audiosr_cli import api
from audiosr_cli.audio.arrays import ArrayReader
from audiosr_cli.errors import AudioSRWarning, InputError, SampleError, UsageError
from audiosr_cli.models.runner import ModelRunner
from audiosr_cli.pipelines import PipelineConfig, UpsampleOptions
from audiosr_cli.streaming.options import Options

# The models are untrained, so that speaker order is uncertain; tests of warnings record them.
pytestmark = [pytest.mark.filterwarnings("ignore::audiosr_cli.AudioSRWarning"), pytest.mark.usefixtures("untrained")]


# Results


def test_results_hold_audio_sample_rate_and_report() -> None:
    separated = audiosr_cli.separate(WAVE, RATE, residual=True)
    assert (separated.audio.shape, separated.audio.dtype, separated.sample_rate) == ((3, 2, 2000), np.float32, RATE)
    np.testing.assert_allclose(separated.audio.sum(0), WAVE, atol=1e-6)
    assert (separated.report.frames_in, separated.report.frames_out, separated.report.channels) == (2000, 2000, 2)
    assert len(separated.report.levels_db) == 3
    assert separated.report.confidence
    wide = audiosr_cli.upsample(WAVE, RATE, rate=44100, cutoff_hz=3000)
    assert (wide.audio.shape, wide.sample_rate, wide.report.cutoff_hz) == ((2, 11025), 44100, 3000.0)
    assert wide.report.notes == ["the array: content ends at 3.0 kHz; frequencies above were restored"]
    assert audiosr_cli.separate_sr(WAVE, RATE, rate=16000, channels="mix").audio.shape == (2, 1, 4000)


def test_arrays_give_what_the_command_writes(tmp_path: Path) -> None:
    """For upsampling: cutoff detection included."""
    (tmp_path / "a.wav").write_bytes(encoded())
    report = UpsampleOptions(16000).pipeline().write(tmp_path / "a.wav", [tmp_path / "b.wav"])
    result = audiosr_cli.upsample(WAVE, RATE, rate=16000)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "b.wav", dtype="float32")[0].T, result.audio)
    assert (report.cutoff_hz, report.levels_db) == (result.report.cutoff_hz, result.report.levels_db)


def test_options_reach_the_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.processing.arguments, "pick_bf16", lambda precision, device: precision == "bf16")
    loaded: list[Options] = []
    build = PipelineConfig.build
    monkeypatch.setattr(PipelineConfig, "build", lambda config: loaded.append(config.options) or build(config))
    options = {"batch": 3, "threads": 2, "clip": "rescale", "channels": 2, "strict": True, "nonfinite": "zero"}
    resample(WAVE, RATE, **options, precision="bf16", device="cpu")
    assert loaded == [Options("cpu", 3, "rescale", 2, True, "zero", True, 2)]


def test_one_channel_is_that_channel() -> None:
    np.testing.assert_array_equal(resample(WAVE, RATE, channels=2).audio, resample(WAVE[1], RATE).audio)


# Sources


@pytest.mark.parametrize(
    "wave",
    [
        WAVE.astype(np.float64),
        WAVE.astype(">f4"),
        np.asfortranarray(WAVE),
        np.repeat(WAVE, 2, axis=1)[:, ::2],
        torch.from_numpy(WAVE),
        torch.from_numpy(WAVE).double().requires_grad_(),
    ],
    ids=["float64", "big-endian", "fortran", "strided", "tensor", "gradient"],
)
def test_arrays_of_every_layout(wave: Any) -> None:
    np.testing.assert_array_equal(resample(wave, RATE).audio, resample(WAVE, RATE).audio)


@pytest.mark.parametrize("wave", [WAVE.astype(np.float16), torch.from_numpy(WAVE).bfloat16()], ids=["half", "bfloat16"])
def test_arrays_of_low_precision(wave: Any) -> None:
    np.testing.assert_allclose(resample(wave, RATE).audio, resample(WAVE, RATE).audio, atol=2e-3)


def test_a_read_only_array_is_neither_written_to_nor_warned_of(recwarn: pytest.WarningsRecorder) -> None:
    wave = WAVE.copy()
    wave.setflags(write=False)
    audiosr_cli.separate(wave, RATE)  # at the model's rate, so that no resampler copies the samples
    assert {warning.category for warning in recwarn} <= {AudioSRWarning}
    (block,) = ArrayReader(wave, RATE).blocks()
    assert block.flags.writeable  # torch warns only once in a process
    np.testing.assert_array_equal(wave, WAVE)


class Pipe(io.RawIOBase):
    """A file object that cannot seek and has no descriptor."""

    def __init__(self, content: bytes) -> None:
        self.rest = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self.rest.read(min(len(buffer), 1000))
        buffer[: len(piece)] = piece
        return len(piece)


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "FLOAT"), ("FLAC", "PCM_24")])
def test_bytes_and_file_objects_are_read_like_files(kind: str, subtype: str, tmp_path: Path) -> None:
    content = encoded(WAVE, kind, subtype)
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    expected = resample(path).audio
    (entry,) = os.scandir(os.fsencode(tmp_path))
    with path.open("rb") as file, path.open("rb", buffering=0) as raw:
        sources = [path, entry, content, bytearray(content), memoryview(content), io.BytesIO(content), file, raw]
        for source in [*sources, Pipe(content), io.BufferedReader(Pipe(content))]:
            np.testing.assert_array_equal(resample(source).audio, expected)
        assert not file.closed


def test_a_file_object_is_read_from_where_it_stands() -> None:
    stream = io.BytesIO(b"header" + encoded())
    stream.seek(6)
    assert resample(stream).audio.shape == (2, 4000)
    with pytest.raises(InputError, match="the file object: is empty"):
        resample(stream)


def test_a_file_object_is_named_in_messages(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no audio")
    with (tmp_path / "a.txt").open("rb") as stream, pytest.raises(InputError, match=r"a\.txt: cannot be read as audio"):
        resample(stream)
    with (tmp_path / "a.txt").open() as stream, pytest.raises(InputError, match=r"a\.txt: .* open it in binary mode"):
        resample(stream)
    with pytest.raises(InputError, match="the bytes: cannot be read as audio"):
        resample(b"no audio at all")


# Progress


def test_progress_is_called_with_seconds_and_the_length() -> None:
    calls: list[tuple[float, float | None]] = []
    resample(np.zeros(100_000), RATE, progress=lambda *values: calls.append(values))
    assert calls == [(65536 / RATE, 12.5), (12.5, 12.5)]
    calls.clear()
    resample(encoded(), progress=lambda *values: calls.append(values))
    assert calls == [(0.25, 0.25)]


def test_an_exception_of_the_progress_callback_ends_the_call() -> None:
    def cancel(done: float, total: float | None) -> None:
        raise KeyError("cancelled")

    with pytest.raises(KeyError, match="cancelled"):
        resample(WAVE, RATE, progress=cancel)


# Warnings


def test_damage_is_a_warning_or_strictly_an_error() -> None:
    damaged = encoded()[:-800]
    result, messages = warned(damaged)
    assert messages == ["the bytes: ends 100 frames earlier than its header says"]
    assert result.audio.shape == (2, 3800)
    with pytest.raises(InputError, match="ends 100 frames earlier"):
        resample(damaged, strict=True)


def test_an_empty_recording_is_a_warning() -> None:
    for source in ((np.zeros((2, 0)), RATE), (encoded(WAVE[:, :0]),)):
        result, messages = warned(*source)
        assert [message.split(": ")[1] for message in messages] == ["holds no samples"]
        assert result.audio.shape == (2, 0)
    assert audiosr_cli.separate(np.zeros(0), RATE, residual=True).audio.shape == (3, 1, 0)


def test_samples_that_are_not_finite() -> None:
    wave = WAVE.copy()
    wave[0, 500] = np.nan
    wave[1, 700] = -np.inf
    with pytest.raises(InputError, match=r"the array: sample 500 \(0\.062 s\) is not a finite number"):
        resample(wave, RATE)
    result, messages = warned(wave, RATE, nonfinite="zero")
    assert messages == ["the array: 2 samples were not finite and have been set to zero"]
    assert result.report.zeroed == 2
    with pytest.raises(InputError, match="sample 3 "):
        resample(np.array([0, 0, 0, 1e300]), RATE)  # finite in float64 only


def test_samples_beyond_full_scale_are_kept_turned_down_or_refused() -> None:
    loud = 5 * WAVE
    kept, messages = warned(loud, RATE)
    assert messages == [
        f"the array: {kept.report.clipped} output samples exceed full scale and would clip in a PCM file; "
        "use clip='rescale'"
    ]
    assert kept.report.clipped == np.count_nonzero(np.abs(kept.audio) > 1) > 0
    scaled, (message,) = warned(loud, RATE, clip="rescale")
    assert "were attenuated by" in message
    assert np.abs(scaled.audio).max() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(scaled.audio, kept.audio * np.float32(scaled.report.gain), rtol=1e-6)
    first = np.argmax((np.abs(kept.audio) > 1).any(0)) / 16000
    with pytest.raises(SampleError, match=f"exceeds full scale at {first:.3f} s"):
        resample(loud, RATE, clip="error")


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_an_output_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(SampleError, match="is not a finite number; is the input far beyond full scale"):
        audiosr_cli.separate(1e37 * WAVE, RATE, model="wave_u_net")


def test_an_uncertain_speaker_order_is_a_warning() -> None:
    with pytest.warns(AudioSRWarning, match="uncertain") as caught:
        result = audiosr_cli.separate(noise(20_000), RATE)
    assert [str(warning.message) for warning in caught] == result.report.warnings
    assert {warning.filename for warning in caught} == {__file__}


def test_a_retreat_to_the_cpu_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    call = ModelRunner._call

    def retreat(self: ModelRunner, *x: torch.Tensor) -> torch.Tensor:
        self.warnings = ["audio_unet: not enough CUDA memory; continuing on the CPU"]
        return call(self, *x)

    monkeypatch.setattr(ModelRunner, "_call", retreat)
    with pytest.warns(AudioSRWarning, match="continuing on the CPU"):
        audiosr_cli.upsample(WAVE, RATE, model="audio_unet", cutoff_hz=3000.0)


def test_a_rate_that_is_not_raised_is_a_warning() -> None:
    assert warned(tone(100, rate=16000), 16000)[1] == [
        "the array: the sample rate is 16000 Hz already; it was not raised"
    ]


def test_warnings_can_be_errors() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", AudioSRWarning)
        with pytest.raises(AudioSRWarning, match="exceed full scale"):
            resample(5 * WAVE, RATE)


# The package


def test_models_are_listed_by_task_and_load() -> None:
    assert audiosr_cli.list_models("separate") == ["wave_u_net"]
    assert set(audiosr_cli.list_models()) >= {"wave_u_net", "audio_unet", "speaker_encoder"}
    with pytest.raises(UsageError, match="task = 'sing'"):
        audiosr_cli.list_models("sing")
    with pytest.raises(UsageError, match="model = None"):
        audiosr_cli.load_model(None)  # type: ignore[arg-type]
    assert audiosr_cli.load_model("wave_u_net").spec.sources == 2


def test_every_public_name_exists_and_is_listed() -> None:
    for name in audiosr_cli.__all__:
        assert getattr(audiosr_cli, name) is not None
    assert set(dir(audiosr_cli)) == set(audiosr_cli.__all__)
    with pytest.raises(AttributeError, match="no attribute 'sing'"):
        audiosr_cli.sing  # noqa: B018


def test_examples_in_docstrings_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES.parent)
    modules = [importlib.import_module(f"audiosr_cli.api.{name}") for name in ("models", "processing")]
    results = [doctest.testmod(module) for module in modules]
    assert sum(result.attempted for result in results) > 10
    assert not any(result.failed for result in results)


WITHOUT_ASSERT = """
from audiosr_cli.errors import ModelError
from audiosr_cli.models import make_config
assert False, "this runs without -O"
for name, values in [
    ("wave_u_net", {"overlap": 10**6}),
    ("wave_u_net", {"kernel_down": 4}),
    ("wave_u_net", {"depth": 0}),
    ("audio_unet", {"kernels": [9]}),
    ("spectral_unet", {"fine": 100}),
    ("band_mixer", {"bands": [1]}),
    ("dual_path", {"width": 7, "heads": 4}),
    ("conv_tasnet", {"stride": 0}),
    ("spectral_bwe", {"hop_length": 0}),
]:
    try:
        make_config(name, values)
    except ModelError as error:
        continue
    print(name, values)
"""


def test_options_and_configs_are_not_checked_by_assert() -> None:
    """``python -O`` removes it: dataclasses, which users' values fill, raise errors."""
    for path in Path(audiosr_cli.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(item) for item in node.decorator_list):
                lines = [inner.lineno for inner in ast.walk(node) if isinstance(inner, ast.Assert)]
                assert not lines, f"{path}, {node.name}: assert in lines {lines}"


@pytest.mark.slow
def test_invalid_configs_are_errors_without_assert_statements() -> None:
    """Under ``python -O``, which removes them."""
    done = subprocess.run(
        [sys.executable, "-O", "-c", WITHOUT_ASSERT], capture_output=True, text=True, env=os.environ, check=True
    )
    assert done.stdout == ""
