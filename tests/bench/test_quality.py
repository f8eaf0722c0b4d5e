"""bench/quality.py and datasets.py: scores with known values, on folders of both layouts."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from conftest import EXAMPLES, denoiser, noise, tone
from running import inside

from audiosr_cli.bench import quality
from audiosr_cli.bench.candidates import BenchSettings, Candidate, Failure, find_candidates
from audiosr_cli.bench.datasets import Quality, task_of
from audiosr_cli.checkpoints import store
from audiosr_cli.errors import InputError, UsageError

RATE = 16000
HALF_DB = -6.02


def wave(frames: int = RATE, seed: int = 0) -> torch.Tensor:
    made = torch.from_numpy(noise(frames, seed=seed)[0])
    made[:100] = made[-100:] = 0
    return made


def test_a_reference_scores_perfectly_against_itself() -> None:
    scores = quality.upsampling_scores(wave(), wave(), RATE, 4000.0)
    assert {name: scores[name] for name in ("lag", "LSD", "LSD below", "LSD above")} == {
        "lag": 0.0,
        "LSD": 0.0,
        "LSD below": 0.0,
        "LSD above": 0.0,
    }
    assert scores["gain"] == pytest.approx(0, abs=1e-4)
    assert scores["SNR"] > 60


@pytest.mark.parametrize("late", [7, -7])
def test_lag_is_the_delay(late: int) -> None:
    assert quality.upsampling_scores(wave().roll(late), wave(), RATE, 4000.0)["lag"] == late


def test_uncorrelated_signals_have_no_lag() -> None:
    assert "lag" not in quality.upsampling_scores(wave(seed=1), wave(), RATE, 4000.0)


def test_half_amplitude_is_minus_six_decibels() -> None:
    scores = quality.upsampling_scores(0.5 * wave(), wave(), RATE, 4000.0)
    assert scores["gain"] == pytest.approx(HALF_DB, abs=0.01)
    assert scores["LSD above"] == pytest.approx(-HALF_DB / 10, abs=1e-3)
    assert scores["SNR"] == pytest.approx(-HALF_DB, abs=0.01)


def test_improvement_is_relative_to_the_mixture() -> None:
    """A mixture of two equal speakers has 0 dB; with a tenth of the other one left it is 20 dB."""
    sources = torch.stack([wave(seed=1), wave(seed=2)])
    mix = sources.sum(0)
    nothing = quality.separation_scores(mix.expand_as(sources), sources, mix, RATE)
    assert (nothing["SI-SDRi"], nothing["SDRi"]) == (0, 0)
    scores = quality.separation_scores(sources + 0.1 * sources.flip(0), sources, mix, RATE)
    assert scores["SI-SDRi"] == pytest.approx(20, abs=0.3)
    assert scores["lag"] == 0


def test_silent_sources_are_left_out() -> None:
    sources = torch.stack([wave(), torch.zeros(RATE)])
    scores = quality.separation_scores(sources, sources, sources[0], RATE)
    assert scores == quality.separation_scores(sources[:1], sources[:1], sources[0], RATE)


def test_no_band_lies_above_half_the_sample_rate() -> None:
    assert "LSD above" not in quality.separation_scores(wave()[None], wave()[None], wave(), 8000)


def test_average_takes_the_furthest_lag() -> None:
    rows = [{"lag": 3.0, "gain": 1.0}, {"lag": -7.0, "gain": math.nan}, {"lag": 0.0, "gain": 2.0}]
    assert quality.average(rows) == {"lag": -7.0, "gain": 1.5}


@pytest.fixture
def voices(tmp_path: Path) -> Path:
    """Write the example's two speakers in the layout of LibriMix."""
    folder = tmp_path / "voices"
    names = {"s1": "two_speakers_reference1.flac", "s2": "two_speakers_reference2.flac", "mix": "two_speakers.wav"}
    for place, name in names.items():
        (folder / place).mkdir(parents=True)
        sound = soundfile.read(EXAMPLES / name)[0]
        soundfile.write(folder / place / "a.wav", sound, RATE, "FLOAT")
    return folder


@pytest.fixture
def references(tmp_path: Path) -> Path:
    """Write two stereo references: a tone below the cutoff, and one above it."""
    folder = tmp_path / "references"
    folder.mkdir()
    for name, hz in (("low", 1000), ("high", 6000)):
        sound = tone(12000, hz, RATE) + noise(12000, level=1e-3)
        soundfile.write(folder / f"{name}.wav", np.concatenate([sound, sound]).T, RATE, "FLOAT")
    return folder


def test_separation_is_scored_against_the_mixture(voices: Path, tmp_path: Path) -> None:
    assert task_of(voices) == "separate"
    mixture, made = quality.score_separation(voices, find_candidates(["separate"], []), BenchSettings(tmp_path))
    assert isinstance(mixture, Quality)
    assert isinstance(made, Quality)
    assert (mixture.model, mixture.condition, mixture.files) == ("the mixture", "2 speakers", 1)
    assert mixture.cpu_per_s is None
    assert mixture.figures["SI-SDRi"] == mixture.figures["lag"] == 0
    assert made.figures["SI-SDRi"] > 1
    assert made.figures["lag"] == 0
    assert made.figures.keys() == mixture.figures.keys()
    assert made.cpu_per_s is not None
    assert made.cpu_per_s > 0


def test_speech_in_noise_is_scored_with_one_source(
    voices: Path, tmp_path: Path, small_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(voices / "s2")
    store.save_model(denoiser(), tmp_path / "speech.safetensors", {})

    def run_inside(command: list[str]) -> SimpleNamespace:
        assert inside(*command[command.index("separate") :]).returncode == 0
        return SimpleNamespace(cpu_s=1.0)

    monkeypatch.setattr(quality, "measure_process", run_inside)
    candidates = find_candidates([str(tmp_path / "speech.safetensors")], [])
    mixture, made = quality.score_separation(voices, candidates, BenchSettings(tmp_path, device="cpu"))
    assert isinstance(mixture, Quality)
    assert isinstance(made, Quality)
    assert (mixture.condition, made.condition) == ("1 speaker", "1 speaker")
    assert made.figures["gain"] < mixture.figures["gain"]


def test_another_number_of_speakers_is_refused(voices: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has 2 sources, but spectral3 separates 3"):
        next(quality.score_separation(voices, find_candidates(["spectral3"], []), BenchSettings(tmp_path)))


def test_references_that_do_not_fit_are_refused(voices: Path, tmp_path: Path) -> None:
    soundfile.write(voices / "s2" / "a.wav", np.zeros(9999), RATE)
    with pytest.raises(InputError, match=r"a\.wav differs in sample rate or length"):
        next(quality.score_separation(voices, [], BenchSettings(tmp_path)))
    soundfile.write(voices / "s2" / "a.wav", np.zeros(100), RATE)
    with pytest.raises(InputError, match="expected at least 2048"):
        next(quality.score_separation(voices, [], BenchSettings(tmp_path)))


def test_upsampling_is_scored_against_soxr(references: Path, tmp_path: Path) -> None:
    assert task_of(references) == "upsample"
    (only,) = quality.score_upsampling(references, [], [8000], BenchSettings(tmp_path))
    assert isinstance(only, Quality)
    assert (only.model, only.condition, only.files) == ("soxr", "8000 → 16000 Hz", 2)
    assert only.figures["lag"] == 0
    assert only.figures["LSD below"] < 0.1 < 2 < only.figures["LSD above"]


def test_references_need_one_sample_rate_above_the_input(references: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="references at 16000 Hz; expected one sample rate, above the 16000 Hz of --from"
    ):
        next(quality.score_upsampling(references, [], [8000, 16000], BenchSettings(tmp_path)))
    soundfile.write(references / "other.wav", np.zeros(9000), 8000)
    with pytest.raises(UsageError, match="references at 8000, 16000 Hz"):
        next(quality.score_upsampling(references, [], [4000], BenchSettings(tmp_path)))


def test_a_failing_command_is_a_failure(references: Path, tmp_path: Path) -> None:
    broken = Candidate("model", "nobody", "nobody", "upsample", 8000)
    _, made = quality.score_upsampling(references, [broken], [8000], BenchSettings(tmp_path))
    assert isinstance(made, Failure)
    assert "no model 'nobody'" in made.reason


def test_folders_of_other_layouts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        task_of(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="expected mix/"):
        task_of(tmp_path)
