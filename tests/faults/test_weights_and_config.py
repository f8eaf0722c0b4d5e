"""Faults 93 to 102: weights, configs and checkpoints that are damaged, hostile or misspelt."""

from __future__ import annotations

import json
import os
import pickle
import struct
import sys
from pathlib import Path
from typing import Any

import fork_server
import pytest
import soundfile
import torch
from conftest import SMALL
from corpora import RUN, run
from hostile import RATE, inside, need, samples
from safetensors.torch import load_file, save_file

import audiosr_cli
from audiosr_cli.checkpoints import catalogue, store
from audiosr_cli.models import build, make_config
from audiosr_cli.train import checkpoint

PACKAGE = Path(audiosr_cli.__file__).parent


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "a.wav", samples(RATE).T, RATE)
    return tmp_path / "a.wav"


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A small model's weights."""
    model = build("audio_unet", make_config("audio_unet", SMALL["audio_unet"]))
    store.save_model(model, tmp_path / "whole.safetensors", {})
    return tmp_path / "whole.safetensors"


def rewritten(path: Path, tensors: dict[str, torch.Tensor] | None = None, **changed: object) -> Path:
    """A copy of a checkpoint with other tensors or metadata."""
    known = catalogue.metadata(path) | changed
    target = path.with_name("bad.safetensors")
    save_file(tensors or load_file(path), target, {key: json.dumps(value) for key, value in known.items()})
    return target


def filled(path: Path, content: bytes) -> Path:
    target = path.with_name("bad.safetensors")
    target.write_bytes(content)
    return target


def check_refused(bad: Path, recording: Path, message: str) -> None:
    """One line that names the file, code 1, and nothing written."""
    done = inside("upsample", recording, "--cutoff", 4000, "--model", bad, "-o", recording.parent / "out")
    assert done.code == 1
    assert message in done.message_about(bad)
    assert len(done.stderr.splitlines()) == 1
    assert not (recording.parent / "out").exists()


def test_093_truncated_weights(whole: Path, recording: Path) -> None:
    check_refused(filled(whole, whole.read_bytes()[:-50]), recording, "cannot be read")


def test_094_one_flipped_bit(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the bundled weights, of which the SHA-256 is known: of a folder with links to the others."""
    weights = recording.parent / "weights"
    weights.mkdir()
    for path in (PACKAGE.parent / "weights").iterdir():
        (weights / path.name).symlink_to(path)
    monkeypatch.setattr(catalogue, "_FOLDERS", (weights,))
    bad = weights / "spectral_bwe.safetensors"
    held = bytearray(bad.read_bytes())
    held[len(held) // 2] ^= 1
    bad.unlink()
    bad.write_bytes(held)
    done = inside("upsample", recording, "-o", recording.parent / "out")
    assert done.code == 1
    assert "damaged (its SHA-256 differs from the catalogue); reinstall audiosr-cli" in done.message_about(bad)
    verified = inside("models", "verify")
    assert verified.code == 1
    rows = dict(line.split(": ", 1) for line in verified.stdout.decode().splitlines())
    assert [name for name, status in rows.items() if status != "ok"] == ["spectral_bwe"]


def test_095_weights_that_are_no_numbers(whole: Path, recording: Path) -> None:
    tensors = load_file(whole)
    first = next(iter(tensors))
    tensors[first].view(-1)[-1] = float("nan")
    check_refused(rewritten(whole, tensors), recording, f"the weights {first!r} are not finite")


def test_096_a_pickle_by_another_name(whole: Path, recording: Path) -> None:
    """Nothing of it is run: it would make a file."""

    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(recording.parent / "run"),)

    check_refused(filled(whole, pickle.dumps(Hostile())), recording, "not an audiosr checkpoint")
    assert not (recording.parent / "run").exists()


def hostile_header(tensors: dict[str, object]) -> bytes:
    model = build("audio_unet", make_config("audio_unet", SMALL["audio_unet"]))
    known = {
        "format": 1,
        "model": "audio_unet",
        "config": SMALL["audio_unet"],
        "spec": model.spec.as_dict(),
        "note": {},
    }
    packed = {"__metadata__": {key: json.dumps(value) for key, value in known.items()}} | tensors
    encoded = json.dumps(packed).encode()
    return struct.pack("<Q", len(encoded)) + encoded


@pytest.mark.parametrize(
    ("kind", "message"),
    [("long", "its header claims 120000000 bytes"), ("overlap", "cannot be read"), ("beyond", "cannot be read")],
)
def test_097_hostile_headers(kind: str, message: str, whole: Path, recording: Path) -> None:
    if kind == "long":
        bad = filled(whole, struct.pack("<Q", 120_000_000) + b"{")
        os.truncate(bad, 150_000_000)
    else:
        ends = [64, 32] if kind == "overlap" else [64, 2**50]
        claims = {str(i): {"dtype": "F32", "shape": [16], "data_offsets": [0, end]} for i, end in enumerate(ends)}
        bad = filled(whole, hostile_header(claims) + bytes(64))
    check_refused(bad, recording, message)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "sepformer2"}, "unknown architecture 'sepformer2'; known: audio_classifier"),
        ({"format": 99}, "checkpoint format 99; this version reads formats 1 to 2"),
    ],
)
def test_098_unknown_architecture_or_version(
    changed: dict[str, object], message: str, whole: Path, recording: Path
) -> None:
    check_refused(rewritten(whole, **changed), recording, message)


@pytest.mark.parametrize("command", [("separate",), ("upsample",), ("separate-sr", "--rate", 48000)])
def test_099_without_any_network(command: tuple[object, ...], recording: Path) -> None:
    need("unshare", "-n", "true")
    new_network = 0x40000000  # CLONE_NEWNET of <linux/sched.h>
    code = f"import ctypes\nassert ctypes.CDLL(None).unshare({new_network}) == 0\n"
    code += "from audiosr_cli.cli.main import main\nmain()"
    call = [sys.executable, "-c", code, *map(str, command), str(recording), "-o", str(recording.parent / "out")]
    done = fork_server.run(call, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "1e12"])
def test_100_rates_that_are_none(rate: str, recording: Path) -> None:
    done = inside("upsample", recording, "--rate", rate, "-o", recording.parent / "out")
    assert done.code == 2
    assert "--rate" in done.stderr
    assert "must be between 1000 and 768000 Hz" in done.stderr or "expected a sample rate" in done.stderr
    assert not (recording.parent / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("warmup_steps", "warmup_step"), "[loop] has no key 'warmup_step'; did you mean 'warmup_steps'?"),
        (("filters", "fliters"), "[model] has no key 'fliters'; did you mean 'filters'?"),
        (("level_db", "level_bd"), "[task.mixing] has no key 'level_bd'; did you mean 'level_db'?"),
        (("[loop]", "[lop]"), "unknown section [lop]; did you mean 'loop'?"),
    ],
)
def test_101_a_key_that_is_not_known(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RUN.replace(*change))
    done = inside("train", tmp_path / "run.toml", "--data", tmp_path, "--out", tmp_path / "out")
    assert done.code == 2
    assert message in done.message_about("run.toml")
    assert not (tmp_path / "out").exists()


def test_102_a_half_written_checkpoint(speakers: Path) -> None:
    """The previous one is taken, and the run ends as if nothing had been."""

    def trained(steps: int, resume: bool) -> tuple[dict[str, Any], Path, Path]:
        """The newest state, its file, and the other one."""
        run(speakers, RUN.replace("minutes = 0.05", f"steps = {steps}\nsave_every_min = 1e-6"), resume=resume)
        state, turn = checkpoint.load(speakers / "out")
        return state, *(speakers / "out" / f"state-{(turn + i) % 2}.pt" for i in (1, 0))

    _, newest, _ = trained(2, resume=False)
    earlier = newest.read_bytes()
    whole, newest, other = trained(4, resume=True)
    other.write_bytes(earlier)
    os.truncate(newest, newest.stat().st_size // 2)
    assert (checkpoint.load(speakers / "out")[0]["step"], whole["step"]) == (2, 4)
    again, _, _ = trained(4, resume=True)
    assert again["step"] == 4
    assert all(torch.equal(again["model"][name], weight) for name, weight in whole["model"].items())
