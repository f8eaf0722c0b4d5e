"""arguments.py and api.py: what cannot be used is an AudioSRError that names it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from api_calls import RATE, WAVE, encoded, resample

import audiosr_cli
from audiosr_cli.errors import AudioSRError, InputError, ModelError, UsageError
from audiosr_cli.models.runner import ModelRunner
from audiosr_cli.runtime import device as devices

# The models are untrained, so that speaker order is uncertain.
pytestmark = [pytest.mark.filterwarnings("ignore::audiosr_cli.AudioSRWarning"), pytest.mark.usefixtures("untrained")]


@pytest.mark.parametrize(
    ("source", "sample_rate", "message"),
    [
        (np.zeros(9, np.int16), RATE, "dtype int16; expected floating point .* divide by 32768"),
        (np.zeros(9, np.uint8), RATE, "dtype uint8; expected floating point samples, full scale 1.0$"),
        (np.zeros(9, np.complex64), RATE, "dtype complex64"),
        (np.array(["a"], object), RATE, "dtype object"),
        (np.array(["a"]), RATE, "dtype <U1"),
        (np.zeros(9, bool), RATE, "dtype bool"),
        (np.zeros(()), RATE, r"shape \(\)"),
        (np.zeros((1, 2, 3)), RATE, r"shape \(1, 2, 3\)"),
        (np.zeros((0, 9)), RATE, "0 channels"),
        (np.zeros((900, 2)), RATE, r"900 channels; .* pass array\.T"),
        (np.ma.masked_equal(np.zeros(9), 0), RATE, "masked"),
        (torch.zeros(9, dtype=torch.int32), RATE, "dtype int32"),
        (torch.zeros(9).to_sparse(), RATE, "sparse"),
        (torch.zeros(9, device="meta"), RATE, "without data"),
        (WAVE, None, "sample_rate is missing"),
        (WAVE, 0, "sample_rate = 0: must be 1000 to 768000"),
        (WAVE, -8000, "sample_rate = -8000"),
        (WAVE, 10**9, "sample_rate = 1000000000"),
        (WAVE, 8000.0, "sample_rate = 8000.0: expected an integer, not float"),
        (WAVE, "8000", "sample_rate = '8000': expected an integer, not str"),
        (WAVE, True, "sample_rate = True"),
        (WAVE, np.array([RATE]), "sample_rate = array"),
        ([0.0, 0.1], RATE, "source is of type list; .* numpy.asarray"),
        (None, RATE, "source is of type NoneType"),
        (1.5, RATE, "source is of type float"),
        (b"RIFF", RATE, "sample_rate is for arrays"),
        ("a" * 5000, None, "too long"),
        ("a\0b", None, "null byte"),
        ("missing.wav", None, "missing.wav: cannot be opened: No such file"),
        (Path("/"), None, "is a folder"),
        ("", None, "No such file"),
    ],
)
def test_a_bad_source_is_an_audiosr_error(source: Any, sample_rate: Any, message: str) -> None:
    for function in (audiosr_cli.separate, audiosr_cli.upsample, audiosr_cli.separate_sr):
        with pytest.raises(UsageError if sample_rate is not None else AudioSRError, match=message):
            function(source, sample_rate)


@pytest.mark.parametrize(
    "options",
    [
        {"channels": 0},
        {"channels": 3},
        {"channels": "left"},
        {"channels": 1.0},
        {"audio_stream": 0},
        {"audio_stream": "1"},
        {"channels": True},
        {"clip": "keep"},
        {"clip": None},
        {"strict": 1},
        {"nonfinite": "drop"},
        {"device": "gpu"},
        {"device": torch.device("cpu")},
        {"precision": "fp16"},
        {"batch": 0},
        {"batch": 257},
        {"batch": 1.0},
        {"threads": 0},
        {"threads": "2"},
        {"progress": 5},
        {"model": 5},
        {"model": ""},
        {"model": "a\0.safetensors"},
        {"model": b"spectral2"},
    ],
    ids=str,
)
def test_a_bad_shared_option_is_a_usage_error_that_names_it(options: dict[str, Any]) -> None:
    for function in (audiosr_cli.separate, audiosr_cli.upsample, audiosr_cli.separate_sr):
        with pytest.raises(UsageError, match=f"{next(iter(options))} "):
            function(WAVE, RATE, **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("separate", {"speakers": 0}, "speakers = 0: must be at least 1"),
        ("separate", {"speakers": "2"}, "speakers = '2': expected an integer, or 'auto'"),
        ("separate", {"speakers": "auto", "model": "spectral2"}, "--speakers auto: chooses a model"),
        ("separate_sr", {"speakers": "auto", "model": "spectral2"}, "--speakers auto: chooses a model"),
        ("separate", {"speakers": 2.0}, "speakers = 2.0"),
        ("separate", {"speakers": 7}, "--speakers 7"),
        ("separate", {"residual": "no"}, "residual = 'no'"),
        ("separate", {"quality": "better"}, "quality = 'better': expected one of 'fast', 'standard', 'best'"),
        ("separate_sr", {"quality": None}, "quality = None"),
        ("upsample", {"rate": 0}, "rate = 0"),
        ("upsample", {"rate": 48000.0}, "rate = 48000.0"),
        ("upsample", {"rate": None}, "rate = None"),
        ("upsample", {"rate": 4000}, "to downsample use --model none"),
        ("upsample", {"cutoff_hz": float("nan")}, "cutoff_hz = nan: expected a finite number"),
        ("upsample", {"cutoff_hz": "3000"}, "cutoff_hz = '3000'"),
        ("upsample", {"cutoff_hz": 10**400}, "cutoff_hz = 1000"),
        ("upsample", {"cutoff_hz": -1}, "--cutoff -1"),
        ("upsample", {"steps": 1.5}, "steps = 1.5"),
        ("upsample", {"steps": 10**6}, "--steps"),
        ("upsample", {"guidance": "2"}, "guidance = '2'"),
        ("upsample", {"seed": None, "steps": 2}, "--steps, --guidance and --seed"),
        ("separate_sr", {"speakers": -1}, "speakers = -1"),
        ("separate_sr", {"rate": 2.5}, "rate = 2.5"),
        ("separate_sr", {"restorer": 1}, "restorer = 1"),
        ("separate_sr", {"upsampler": "audio_unet"}, "--upsampler"),
    ],
    ids=str,
)
def test_a_bad_option_is_a_usage_error(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        getattr(audiosr_cli, name)(WAVE, RATE, **options)


@pytest.mark.parametrize(
    "model", ["nobody", "nobody.safetensors", "a" * 5000, "/", Path("nobody.safetensors"), "wave_u_net"], ids=repr
)
def test_a_model_that_cannot_be_used_is_an_audiosr_error(model: Any) -> None:
    with pytest.raises(ModelError):
        audiosr_cli.upsample(WAVE, RATE, model=model)
    if model != "wave_u_net":
        with pytest.raises(AudioSRError):
            audiosr_cli.load_model(model)


def test_a_file_object_that_fails_is_an_input_error(tmp_path: Path) -> None:
    class Broken(io.RawIOBase):
        def read(self, count: int = -1) -> Any:
            raise RuntimeError("connection reset")

    closed = io.BytesIO(encoded())
    closed.close()
    with (tmp_path / "a.wav").open("wb") as unreadable:
        for source, message in ((Broken(), "connection reset"), (closed, "closed file"), (unreadable, "read")):
            with pytest.raises(InputError, match=f"cannot be read: .*{message}"):
                resample(source)


def test_too_little_memory_and_refusals_of_the_system_are_audiosr_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    for error, message in ((MemoryError(), "not enough memory"), (PermissionError(13, "denied", "w"), "w: denied")):
        monkeypatch.setattr(ModelRunner, "_call", lambda *_, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(AudioSRError, match=message):
            audiosr_cli.upsample(WAVE, RATE, model="audio_unet", cutoff_hz=3000.0)


def test_no_cuda_device_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: False)
    for call in (lambda: resample(WAVE, RATE, device="cuda"), lambda: audiosr_cli.load_model("audio_unet", "cuda")):
        with pytest.raises(UsageError, match="no CUDA device is available"):
            call()
