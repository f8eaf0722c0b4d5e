"""Faults 39 to 53: samples that no sound has, levels, and numbers of speakers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import EXAMPLES, noise
from hostile import RATE, Run, audiosr, content, inside, samples

from audiosr_cli.models.runner import ModelRunner
from audiosr_cli.runtime.threads import flushes_subnormals

FRAMES = 24_000
FLIPPED = 0.98  # least correlation of what comes of a recording with what comes of its negative, turned over
SQUARE = np.where(np.arange(FRAMES) // 40 % 2, 1.0, -1.0).astype(np.float32)


def spoiled(value: float, at: int = 20_000) -> np.ndarray:
    wave = noise(FRAMES)[0]
    wave[at] = value
    return wave


VOICES = soundfile.read(EXAMPLES / "two_speakers.wav", dtype="float32")[0]
WAVES = {
    "nan": spoiled(np.nan),
    "inf": spoiled(-np.inf),
    "big": spoiled(1e30),
    "last": spoiled(np.nan, FRAMES - 1),
    "silence": np.zeros(FRAMES, np.float32),
    "constant": np.full(FRAMES, 0.5, np.float32),
    "square": SQUARE,
    "over": 1.5 * SQUARE,
    "voices": VOICES,
    "turned": -VOICES,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("samples")
    for name, wave in WAVES.items():
        soundfile.write(output / f"{name}.wav", wave, RATE, "FLOAT")
    return output


def through(folder: Path, target: str, *options: object) -> Run:
    """All of them, some of which fail."""
    done = audiosr(*options, *(folder / f"{name}.wav" for name in WAVES), "-o", folder / target)
    assert done.code == 3, done.stderr
    return done


@pytest.fixture(scope="module")
def floats(folder: Path) -> Run:
    return through(folder, "floats", "upsample", "--model", "none")


@pytest.fixture(scope="module")
def ints(folder: Path) -> Run:
    options = ("upsample", "--model", "none", "--rate", RATE, "--subtype", 16, "--nonfinite", "zero")
    done = audiosr(*options, *(folder / f"{name}.wav" for name in WAVES), "-o", folder / "ints")
    assert done.code == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def raised(folder: Path) -> Run:
    return through(folder, "raised", "upsample", "--cutoff", 4000)


@pytest.fixture(scope="module")
def parted(folder: Path) -> Run:
    return through(folder, "parted", "separate", "--model", "spectral2_narrow")


def reports(done: Run) -> list[dict[str, Any]]:
    """What became of every recording, of the events that --json is."""
    rows = map(json.loads, done.stdout.splitlines())
    return [row for row in rows if row["event"] == "done"]


def check_refused(name: str, at: int, folder: Path, *runs: Run) -> None:
    for done in runs:
        line = done.message_about(folder / f"{name}.wav")
        assert f"sample {at} ({at / RATE:.3f} s) is not a finite number; see --nonfinite zero" in line
    assert not [path for place in ("floats", "raised", "parted") for path in (folder / place).glob(f"*{name}*")]
    assert not list(folder.rglob("*.part"))


def test_039_not_a_number(folder: Path, floats: Run, raised: Run, parted: Run) -> None:
    check_refused("nan", 20_000, folder, floats, raised, parted)


def check_zeroed(name: str, folder: Path, ints: Run) -> None:
    lines = [line for line in ints.stderr.splitlines() if f"{name}.wav: 1 samples were not finite" in line]
    assert len(lines) == 1
    output = content(folder / "ints" / f"{name}_{RATE}.wav")[0]
    expected = np.rint(np.nan_to_num(WAVES[name], neginf=0.0) * 32768)
    np.testing.assert_array_equal(output, expected)


def test_039_040_zeroed_on_request(folder: Path, ints: Run) -> None:
    check_zeroed("nan", folder, ints)
    check_zeroed("inf", folder, ints)


def test_040_infinite(folder: Path, floats: Run, raised: Run, parted: Run) -> None:
    check_refused("inf", 20_000, folder, floats, raised, parted)


def test_041_1e30_is_a_counted_clip_or_an_error(folder: Path, floats: Run, ints: Run, raised: Run) -> None:
    assert np.isfinite(soundfile.read(folder / "floats" / "big_48000.wav")[0]).all()
    assert any("big.wav: 1 samples clipped" in line for line in ints.stderr.splitlines())
    assert content(folder / "ints" / f"big_{RATE}.wav")[0, 20_000] == 32767
    line = raised.message_about(folder / "raised" / "big_48000.wav")
    assert "is not a finite number; is the input far beyond full scale?" in line
    assert not (folder / "raised" / "big_48000.wav").exists()
    assert "Warning" not in floats.stderr + ints.stderr + raised.stderr


def test_042_not_a_number_in_the_last_block(folder: Path, floats: Run, raised: Run, parted: Run) -> None:
    check_refused("last", FRAMES - 1, folder, floats, raised, parted)


def test_043_silence_stays_silent(folder: Path, raised: Run, parted: Run) -> None:
    for name in ("raised/silence_48000", "parted/silence_speaker1", "parted/silence_speaker2"):
        output = soundfile.read(folder / f"{name}.wav")[0]
        assert len(output)
        assert not output.any()


def test_044_a_constant_stays_finite(folder: Path, raised: Run, parted: Run) -> None:
    for name in ("raised/constant_48000", "parted/constant_speaker1", "parted/constant_speaker2"):
        output = soundfile.read(folder / f"{name}.wav")[0]
        assert np.abs(output).max() < 2


def test_045_full_scale_never_wraps(folder: Path, ints: Run, tmp_path: Path) -> None:
    output = content(folder / "ints" / f"square_{RATE}.wav")[0]
    np.testing.assert_array_equal(output, np.where(SQUARE > 0, 32767, -32768))
    done = inside(  # resampled, it overshoots
        "upsample", folder / "square.wav", "--model", "none", "--subtype", 16, "-o", tmp_path / "a.wav"
    )
    assert "samples clipped" in done.stderr
    output, held = content(tmp_path / "a.wav")[0], np.repeat(SQUARE, 3)
    settled = np.arange(len(held)) % 120 > 12  # behind the edges
    settled &= np.arange(len(held)) % 120 < 108
    assert (np.sign(output) == held)[settled].all()


def test_046_above_full_scale(folder: Path, floats: Run, ints: Run) -> None:
    assert np.abs(soundfile.read(folder / "floats" / "over_48000.wav")[0]).max() > 1.5
    assert not any("over.wav" in line and "clipped" in line for line in floats.stderr.splitlines())
    assert f"over.wav: {FRAMES} samples clipped; use --clip rescale or --subtype float" in ints.stderr


def test_046_levels_are_those_of_the_attenuated_outputs(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "over.wav", 2 * np.ones(FRAMES), RATE, "FLOAT")
    options = (
        "--model",
        "none",
        "--rate",
        RATE,
        "--clip",
        "rescale",
        "--subtype",
        16,
        "--json",
        "-o",
        tmp_path / "out.wav",
    )
    done = audiosr("upsample", tmp_path / "over.wav", *options)
    (report,) = (json.loads(line) for line in done.stdout.splitlines() if b'"done"' in line)
    assert report["gain"] == pytest.approx(0.5)
    assert report["levels_db"][0] == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("command", [("upsample", "--cutoff", 4000), ("separate", "--model", "spectral2_narrow")])
def test_047_models_compute_with_zeros_instead_of_denormals(
    command: tuple[object, ...], threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is why denormals take no longer than other samples, in whichever thread they are computed."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush denormals")
    torch.set_flush_denormal(False)
    call, seen = ModelRunner._call, list[tuple[bool, bool]]()

    def watched(self: ModelRunner, x: torch.Tensor, position: torch.Tensor | None) -> torch.Tensor:
        seen.append((flushes_subnormals(), bool((1.5 * x).any())))
        return call(self, x, position)

    monkeypatch.setattr(ModelRunner, "_call", watched)
    soundfile.write(tmp_path / "a.wav", noise(RATE)[0] * np.float32(1e-38), RATE, "FLOAT")
    done = inside(*command, tmp_path / "a.wav", "--threads", threads, "-o", tmp_path / "out")
    assert done.code == 0, done.stderr
    assert set(seen) == {(True, False)}
    assert not flushes_subnormals()


def test_048_turned_over_in_turned_over_out(folder: Path, raised: Run, parted: Run) -> None:
    for name in ("raised/{}_48000", "parted/{}_speaker1", "parted/{}_speaker2"):
        output, turned = (soundfile.read(folder / f"{name.format(which)}.wav")[0] for which in ("voices", "turned"))
        assert -(output @ turned) > FLIPPED * np.sqrt((output @ output) * (turned @ turned))


def test_049_16_bits_pass_through(tmp_path: Path) -> None:
    wave = samples(100_003, 2)
    soundfile.write(tmp_path / "a.wav", wave.T, 44100)
    done = inside("upsample", tmp_path / "a.wav", "--rate", 44100, "--model", "none", "-o", tmp_path / "b.wav")
    assert done.code == 0, done.stderr
    np.testing.assert_array_equal(content(tmp_path / "b.wav"), wave)


@pytest.fixture(scope="module")
def at_48000(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rates") / "a.wav"
    soundfile.write(path, samples(24_000).T, 48000)
    return path


def test_050_already_at_the_rate(at_48000: Path) -> None:
    done = inside("upsample", at_48000, "-o", at_48000.parent / "same.wav")
    assert (done.code, done.stderr) == (0, f"audiosr: {at_48000}: content ends at 24.0 kHz; nothing to restore\n")
    np.testing.assert_array_equal(content(at_48000.parent / "same.wav"), content(at_48000))


def test_051_upsampling_does_not_go_down(at_48000: Path) -> None:
    done = inside("upsample", at_48000, "--rate", 16000, "-o", at_48000.parent / "down.wav")
    assert done.code == 2
    assert f"--rate 16000 is below the 48000 Hz of {at_48000}; to downsample use --model none" in done.stderr
    assert not (at_48000.parent / "down.wav").exists()


def test_052_more_speakers_than_any_model_parts(at_48000: Path) -> None:
    done = inside("separate", at_48000, "--speakers", 4, "-o", at_48000.parent)
    assert done.code == 2
    assert "--speakers 4: no bundled model separates 4 speakers" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_053_one_talker_where_two_were_asked_for(tmp_path: Path) -> None:
    voice = soundfile.read(EXAMPLES / "two_speakers_reference1.flac")
    soundfile.write(tmp_path / "alone.wav", *voice)
    done = audiosr("separate", tmp_path / "alone.wav", "-o", tmp_path / "out", "--json")
    (row,) = reports(done)
    quiet, loud = sorted(-200 if level is None else level for level in row["levels_db"])
    assert quiet < loud - 20
    assert any("is nearly empty" in line for line in row["warnings"])
