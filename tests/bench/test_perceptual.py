"""bench/perceptual.py: what is missing is named, and the packages get what they expect."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import EXAMPLES, noise
from typer.testing import CliRunner

from audiosr_cli.audio.read import AudioReader
from audiosr_cli.bench import perceptual, quality
from audiosr_cli.cli.main import app
from audiosr_cli.errors import UsageError

RATE = 16000
SPEECH = EXAMPLES / "two_speakers_reference1.flac"


def wave(frames: int = RATE, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(noise(frames, seed=seed)[0])


def speech() -> torch.Tensor:
    with AudioReader(SPEECH) as reader:
        return torch.from_numpy(np.concatenate(list(reader.blocks()), axis=1)[0])


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins of pystoi and pesq, which return how many seconds they were given, and of DNSMOS's network."""
    returned = SimpleNamespace(RETURN_VALUES="values")

    def pesq(rate: int, clean: np.ndarray, made: np.ndarray, mode: str, on_error: str) -> float:
        assert (rate, mode, on_error) == (RATE, "wb", "values")
        return -1.0 if not clean.any() else len(made) / rate

    def visqol(clean: np.ndarray, made: np.ndarray, rate: int) -> SimpleNamespace:
        assert rate == 48000
        if len(clean) < rate:
            raise ValueError("Reference spectrum size (17) smaller than minimum patch size (45).")
        return SimpleNamespace(moslqo=len(made) / rate if made.any() else np.nan)

    def run(_: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        window = inputs["input_1"]
        assert window.shape == (1, int(9.01 * RATE))
        assert np.abs(window).max() <= 1
        return [np.array([[window[0, 0], 0.0, 1.0]])]

    monkeypatch.setitem(sys.modules, "pystoi", SimpleNamespace(stoi=lambda clean, made, rate: len(made) / rate))
    monkeypatch.setitem(sys.modules, "pesq", SimpleNamespace(pesq=pesq, PesqError=returned))
    monkeypatch.setattr(perceptual, "_dnsmos_network", lambda: SimpleNamespace(run=run))
    monkeypatch.setattr(perceptual, "_visqol_model", lambda: SimpleNamespace(measure_from_arrays=visqol))


def test_a_missing_package_is_a_usage_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual, "find_spec", lambda name: name)
    perceptual.check_installed("--perceptual")
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None if name == "pystoi" else name)
    with pytest.raises(
        UsageError, match=r"^--perceptual: pystoi is not installed; pip install 'audiosr-cli\[metrics\]'$"
    ):
        perceptual.check_installed("--perceptual")
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match="pystoi, pesq, visqol-python, speechmos, onnxruntime are not installed"
    ) as caught:
        perceptual.check_installed("--perceptual")
    assert "C compiler" in (caught.value.hint or "")


def test_the_extra_has_every_package() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extra = {name.split(">=")[0] for name in project["optional-dependencies"]["metrics"]}
    assert extra == set(perceptual.PACKAGES.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--synthetic", "1"], "--perceptual scores the recordings of --quality; give --quality FOLDER, too"),
        (["--quality", "."], r"pip install 'audiosr-cli\[metrics\]'"),
    ],
)
def test_bench_refuses_before_it_measures(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    done = CliRunner().invoke(app, ["bench", "--perceptual", *arguments])
    with pytest.raises(UsageError, match=message):
        raise done.exception or AssertionError(done.output)


def test_pesq_and_dnsmos_need_16_khz(packages: None) -> None:
    long = wave(96000)
    scores = perceptual.compare(long, long, 48000)
    assert scores == {"STOI": 2.0, "PESQ": 2.0, "ViSQOL": 2.0}  # resampled, seconds stay seconds
    assert perceptual.compare(long, long, 8000) == {"STOI": 12.0}
    assert set(perceptual.dnsmos(long, 48000)) == {"DNSMOS SIG", "DNSMOS BAK", "DNSMOS OVRL"}
    assert perceptual.dnsmos(long, 8000) == perceptual.dnsmos(long[:0], RATE) == {}


def test_pesq_without_speech_is_left_out(packages: None) -> None:
    assert perceptual.compare(wave(), torch.zeros(RATE), RATE) == {"STOI": 1.0}


@pytest.mark.parametrize(("frames", "scale"), [(47000, 1.0), (96000, 0.0)])
def test_visqol_of_short_or_silent_recordings_is_left_out(packages: None, frames: int, scale: float) -> None:
    assert "ViSQOL" not in perceptual.compare(scale * wave(frames), wave(frames), 48000)


@pytest.mark.parametrize(("seconds", "windows"), [(1.0, 1), (9.01, 1), (10.0, 1), (12.5, 3)])
def test_dnsmos_rates_a_window_a_second_and_repeats_short_recordings(
    packages: None, seconds: float, windows: int
) -> None:
    """The network stands for the first sample of its window, which is the number of the second here, in hundredths."""
    samples = (torch.arange(round(seconds * RATE)) // RATE).float() / 100
    scores = perceptual.dnsmos(samples, RATE)
    rated = [np.polyval((-0.08397278, 1.22083953, 0.0052439), i / 100) for i in range(windows)]
    assert scores["DNSMOS SIG"] == pytest.approx(np.mean(rated))
    assert scores["DNSMOS BAK"] == pytest.approx(-0.39604546)
    assert scores["DNSMOS OVRL"] == pytest.approx(-0.06766283 + 1.11546468 + 0.04602535)


def test_dnsmos_clips_what_exceeds_full_scale(packages: None) -> None:
    assert perceptual.dnsmos(5 * wave().sign(), RATE) == perceptual.dnsmos(wave().sign(), RATE)


def test_scores_are_perceptual_only_if_asked_for(packages: None) -> None:
    names = {"STOI", "PESQ", "DNSMOS SIG", "DNSMOS BAK", "DNSMOS OVRL"}
    for asked in (False, True):
        upsampled = quality.upsampling_scores(wave(), wave(), RATE, 4000.0, asked)
        separated = quality.separation_scores(wave()[None], wave()[None], wave(), RATE, asked)
        assert set(upsampled) & names == set(separated) & names == (names if asked else set())


def installed(*names: str) -> Any:
    """Skip a test where the optional packages are not installed."""
    return [pytest.importorskip(name) for name in names]


def test_visqol_hears_a_missing_octave() -> None:
    """A real score: white noise, and the same without its upper half."""
    installed("visqol")  # half of the band is missing, which is heard
    full = wave(72000)
    half = torch.fft.irfft(torch.fft.rfft(full) * (torch.arange(36001) < 18000), n=72000)
    assert perceptual.visqol(half, full, 48000)["ViSQOL"] < perceptual.visqol(full, full, 48000)["ViSQOL"] - 1


def test_clean_speech_scores_higher_than_a_mixture() -> None:
    installed("pystoi", "pesq", "speechmos", "onnxruntime")
    clean = speech()
    with AudioReader(EXAMPLES / "two_speakers.wav") as reader:
        mix = torch.from_numpy(np.concatenate(list(reader.blocks()), axis=1)[0])
    best, worse = (perceptual.compare(one, clean, RATE) for one in (clean, mix))
    assert best["STOI"] == pytest.approx(1, abs=1e-6)
    assert best["PESQ"] == pytest.approx(4.64, abs=0.01)
    assert worse["STOI"] < 0.9
    assert worse["PESQ"] < 2
    rated, mixed = perceptual.dnsmos(clean, RATE), perceptual.dnsmos(mix, RATE)
    assert all(1 <= mixed[name] < rated[name] <= 5 for name in rated)


def test_dnsmos_agrees_with_speechmos() -> None:
    """speechmos needs librosa for what it rates besides."""
    (reference,) = installed("speechmos.dnsmos")
    samples = torch.cat([speech(), speech(), speech()])
    theirs = reference.run(samples.numpy(), RATE)
    assert perceptual.dnsmos(samples, RATE) == pytest.approx(
        {f"DNSMOS {name.upper()}": float(theirs[f"{name}_mos"]) for name in ("sig", "bak", "ovrl")}, abs=1e-4
    )
