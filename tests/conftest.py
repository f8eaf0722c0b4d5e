"""Signals and small models that several tests use."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from config_places import Places

from audiosr_cli.checkpoints import catalogue, store
from audiosr_cli.files.fingerprint import sha256
from audiosr_cli.models import Model, build, make_config
from audiosr_cli.train.tasks import valid_sets

# One thread, in the commands that tests start, too: small models gain nothing from more, most of all on a busy machine.
# AUDIOSR_TEST_THREADS=2 makes the suite see other orders of summation.
THREADS = int(os.environ.get("AUDIOSR_TEST_THREADS", "1"))
os.environ["OMP_NUM_THREADS"] = str(THREADS)
torch.set_num_threads(THREADS)

# Loops take ten seconds to compile in a fresh checkout, and every command that trains 0.4 s to load them; test_fused.py
# compares them with torch, and models with and without them.
os.environ.setdefault("AUDIOSR_NUMBA", "0")

# A shell that runs `make test &` in a script has SIGINT ignored, which the commands that tests interrupt would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# `nohup make test` ignores SIGHUP, likewise.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Commands run as for somebody without options of their own; tests of these set what they need.
for variable in [name for name in os.environ if name.startswith("AUDIOSR_")]:
    if variable not in ("AUDIOSR_DATA", "AUDIOSR_NUMBA", "AUDIOSR_TEST_THREADS"):
        del os.environ[variable]
os.environ["AUDIOSR_NO_CONFIG"] = "1"

HANG_S = 300.0  # deadline of whatever a test waits for, so that none hangs; a machine ten times slower keeps it

# Taken out of the environment, so that the commands under test run as for somebody who has not set it.
DATA = Path(os.environ.pop("AUDIOSR_DATA", "") or Path(__file__).parents[2] / "shared" / "data")
EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def data() -> Path:
    """The real recordings, where this machine has them."""
    if not (DATA / "manifest.csv").is_file():
        pytest.skip(f"the real recordings are not in {DATA}; set AUDIOSR_DATA, see docs/data.md")
    return DATA


def until(true: Callable[[], Any]) -> Any:
    """What ``true`` returns as soon as that is something."""
    deadline = time.monotonic() + HANG_S
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def tone(frames: int, hz: float = 440.0, rate: int = 16000, channels: int = 1, level: float = 0.5) -> np.ndarray:
    """A sine (C, T) float32, a little higher in every channel."""
    time = np.arange(frames) / rate
    return np.stack([level * np.sin(2 * np.pi * hz * (1 + c) * time) for c in range(channels)]).astype(np.float32)


def noise(frames: int, channels: int = 1, level: float = 0.1, seed: int = 0) -> np.ndarray:
    """White noise (C, T) float32."""
    return (level * np.random.default_rng(seed).standard_normal((channels, frames))).astype(np.float32)


def halves(rate: int = 8000, sources: int = 2) -> Model:
    """A separator that gives every source an equal share of the mixture."""
    values = {"sample_rate": rate, "depth": 2, "filters": 2, "core": 256, "overlap": 32, "sources": sources}
    model = build("wave_u_net", make_config("wave_u_net", values | {"output": "linear", "difference": False}))
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)
    model.head.weight.data[:, -1] = 1 / sources
    return model.eval().requires_grad_(False)


def denoiser(rate: int = 8000) -> Model:
    """A model of speech and the rest: three quarters of the mixture, and one."""
    model = halves(rate)
    model.head.weight.data[:, -1] = torch.tensor([0.75, 0.25]).view(2, *[1] * (model.head.weight.dim() - 2))
    model.spec = replace(model.spec, rest=True)
    return model


def restorer(rate: int = 16000, sources: int = 2) -> Model:
    """Fresh: sources as they were estimated, above 3.75 kHz as much of the mixture as they have of it below."""
    values = {"sample_rate": rate, "sources": sources, "frame_s": 0.008, "width": 4, "blocks": 1, "frames": 16}
    return build("band_masks", make_config("band_masks", values)).eval().requires_grad_(False)


BWE = {"n_fft": 64, "hop_length": 32, "hidden": 8, "blocks": 2, "frames": 16, "margin": 12, "fade_hz": 1500.0}
SMALL = {
    "wave_u_net": {"sample_rate": 8000, "depth": 3, "filters": 4, "core": 512, "overlap": 64, "output": "linear"},
    "spectral_bwe": BWE,
    "audio_unet": {"filters": [4, 8], "kernels": [9, 5], "core": 1024, "bias": False},
    "band_masks": {"frame_s": 0.008, "width": 4, "blocks": 1, "frames": 16},
    "speaker_encoder": {"width": 8, "size": 8},
}


@pytest.fixture
def small_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue of untrained models, small enough for tests of everything around them."""
    place = tmp_path / "weights"
    write_small_weights(place)
    monkeypatch.setattr(catalogue, "_FOLDERS", (place,))
    return place


def write_small_weights(place: Path) -> None:
    """Write a catalogue of untrained models into a new folder."""
    place.mkdir()
    entries = {}
    for name, values in SMALL.items():
        torch.manual_seed(0)
        model = build(name, make_config(name, values))
        store.save_model(model, place / f"{name}.safetensors", {"data": "none"})
        digest = sha256(place / f"{name}.safetensors")
        entries[name] = {"file": f"{name}.safetensors", "sha256": digest, "tasks": [model.spec.task]}
    (place / "catalogue.json").write_text(json.dumps(entries))


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The catalogue of ``small_weights``, once for all tests of a module: none may change it."""
    place = tmp_path_factory.mktemp("models") / "weights"
    write_small_weights(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "_FOLDERS", (place,))
        yield


def few_mixtures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score runs on four mixtures instead of 40, and two hard ones of a kind instead of 24.

    All of them would take longer than the training.
    """
    for name, chosen in valid_sets.SETS.items():
        monkeypatch.setitem(valid_sets.SETS, name, replace(chosen, count=4 if name == "plain" else 2))


@pytest.fixture
def speakers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three speakers for training and two to check on, a second each, and a file that is no audio.

    Runs on them are scored on fewer mixtures: see ``few_mixtures``.
    """
    monkeypatch.setenv("AUDIOSR_CACHE", str(tmp_path / "cache"))
    few_mixtures(monkeypatch)
    for i, name in enumerate(("train/a", "train/b", "train/c", "valid/d", "valid/e")):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for take in range(2):
            wave = tone(16000, 100 * (i + 2), 16000) * 0.5 + noise(16000, seed=i * 2 + take, level=0.01)
            soundfile.write(folder / f"{take}.flac", wave.T, 16000)
    (tmp_path / "train" / "a" / "broken.wav").write_bytes(b"no audio at all, but a name like it")
    return tmp_path


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A folder with three recordings of 1,000 frames, one of them further down, and a text."""
    folder = tmp_path / "in"
    for name in ("a.wav", "b.flac", "sub/a.wav"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, noise(1000).T, 8000)
    (folder / "notes.txt").write_text("no audio")
    return folder


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    return Places(tmp_path, monkeypatch)
