"""pipelines.py: the models that a quality stands for, and those for one speaker."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import SMALL, denoiser, halves, noise

import audiosr_cli
from audiosr_cli import api
from audiosr_cli.audio.metadata.provenance import provenance_of
from audiosr_cli.batch.manifest import settings_of
from audiosr_cli.batch.naming import Naming
from audiosr_cli.batch.run import OutputPlan
from audiosr_cli.checkpoints import loading, store
from audiosr_cli.errors import UsageError
from audiosr_cli.files.fingerprint import sha256
from audiosr_cli.models import Model, build, make_config
from audiosr_cli.pipelines import PipelineConfig, SeparateOptions, SeparateSROptions
from audiosr_cli.streaming.auto import AutoPipeline, UnloadedPipeline
from audiosr_cli.streaming.options import Options, Quality

QUALITIES: tuple[Quality, ...] = ("fast", "standard", "best")


@pytest.fixture
def two_separators(small_weights: Path) -> Path:
    """``wave_u_net``, the default, and ``quick``, which is the fast one."""
    quick = build("wave_u_net", make_config("wave_u_net", SMALL["wave_u_net"] | {"name": "quick", "filters": 2}))
    store.save_model(quick, small_weights / "quick.safetensors", {"data": "none"})
    digest = sha256(small_weights / "quick.safetensors")
    entry = {"file": "quick.safetensors", "sha256": digest, "tasks": ["separate"], "quality": "fast"}
    catalogue = small_weights / "catalogue.json"
    catalogue.write_text(json.dumps(json.loads(catalogue.read_text()) | {"quick": entry}))
    return small_weights


@pytest.mark.parametrize(
    ("speakers", "names"), [(2, ["spectral2", "spectral2_large", "spectral2_large"]), (3, ["spectral3"] * 3)]
)
def test_qualities_stand_for_bundled_models(speakers: int, names: list[str]) -> None:
    """A number of speakers with one model has it for all of them."""
    pipelines = [SeparateOptions(speakers, quality=quality).pipeline() for quality in QUALITIES]
    assert [pipeline.models[0].spec.name for pipeline in pipelines] == names


def test_best_runs_the_separator_twice_and_no_other_model(two_separators: Path) -> None:
    for quality, starts in (("fast", 1), ("standard", 1), ("best", 2)):
        calls = SeparateSROptions(rate=48000, quality=quality).pipeline().chain(16000, 8000.0)
        assert [call.starts for call in calls] == [starts, 1, 1]
        (call,) = SeparateOptions(quality=quality).pipeline().chain(16000)
        assert (call.spec.name, call.starts) == ("quick" if quality == "fast" else "wave_u_net", starts)


def test_best_works_with_any_model_and_fast_chooses_its_own(two_separators: Path) -> None:
    (call,) = SeparateOptions(model="quick", quality="best").pipeline().chain(16000)
    assert (call.spec.name, call.starts) == ("quick", 2)
    assert SeparateOptions(model="quick").pipeline().models[0].spec.name == "quick"
    message = "--quality fast and --model wave_u_net both choose a model"
    for command in (SeparateOptions, SeparateSROptions):
        with pytest.raises(UsageError, match=message):
            command(model="wave_u_net", quality="fast").pipeline()


def test_separate_sr_has_one_separator_for_all_qualities(two_separators: Path) -> None:
    """That with the lowest rate, of equal ones the first."""
    names = {SeparateSROptions(quality=quality).pipeline().models[0].spec.name for quality in QUALITIES}
    assert names == {"wave_u_net"}


def test_best_changes_samples_but_not_their_number(two_separators: Path) -> None:
    wave = noise(9001, 2)
    once, twice = (
        SeparateOptions(residual=True, hum="keep", quality=quality).pipeline().array(wave, 8000)
        for quality in ("standard", "best")
    )
    assert once.shape == twice.shape == (3, 2, 9001)
    assert not np.array_equal(once, twice)
    np.testing.assert_allclose(twice.sum(0), wave, atol=1e-5)


@pytest.mark.parametrize("function", [audiosr_cli.separate, audiosr_cli.separate_sr])
def test_the_python_interface_passes_the_quality_on(function: Callable[..., object]) -> None:
    with pytest.raises(UsageError, match="--quality fast and --model spectral2 both choose a model"):
        function(noise(1000), 8000, model="spectral2", quality="fast")


def test_a_quality_reaches_provenance_and_manifest(two_separators: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.wav", noise(1000).T, 8000)
    tags, settings = {}, {}
    for quality in QUALITIES:
        command = SeparateOptions(quality=quality)
        config = PipelineConfig(command, Options())
        targets = [tmp_path / f"{quality}{i}.wav" for i in range(2)]
        config.build().write(tmp_path / "in.wav", targets)
        tags[quality] = provenance_of(targets[0])["options"].get("quality")
        settings[quality] = settings_of(config, OutputPlan(Naming(None, "{stem}.{ext}")))["quality"]
    assert tags == {"fast": "fast", "standard": None, "best": "best"}
    assert settings == {quality: quality for quality in QUALITIES}


def bundle(folder: Path, name: str, model: Model) -> None:
    """Add a model to the catalogue in ``folder``, before the others."""
    store.save_model(model, folder / f"{name}.safetensors", {"data": "none"})
    entry = {"file": f"{name}.safetensors", "sha256": sha256(folder / f"{name}.safetensors"), "tasks": ["separate"]}
    path = folder / "catalogue.json"
    path.write_text(json.dumps({name: entry} | json.loads(path.read_text())))


def test_only_one_speaker_picks_the_model_of_speech_and_the_rest(small_weights: Path) -> None:
    with pytest.raises(
        UsageError, match=r"--speakers 1: no bundled model separates speech from noise \(available: 2\)"
    ):
        SeparateOptions(1).pipeline()
    bundle(small_weights, "speech", denoiser())
    for options in (SeparateOptions, SeparateSROptions):
        assert options(1).pipeline().models[0].spec.rest
        assert not options(2).pipeline().models[0].spec.rest
    with pytest.raises(UsageError, match=r"no bundled model separates 4 speakers \(available: 1, 2\)"):
        SeparateOptions(4).pipeline()


def test_models_of_another_number_of_speakers_are_refused(tmp_path: Path) -> None:
    store.save_model(denoiser(), tmp_path / "speech.safetensors", {})
    store.save_model(halves(), tmp_path / "two.safetensors", {})
    with pytest.raises(UsageError, match=r"--speakers 2: .* separates speech from noise; use --speakers 1"):
        SeparateOptions(2, str(tmp_path / "speech.safetensors")).pipeline()
    with pytest.raises(UsageError, match=r"--speakers 1: .* separates 2 speakers; use --speakers 2"):
        SeparateSROptions(1, model=str(tmp_path / "two.safetensors")).pipeline()


def test_the_track_of_one_speaker_is_called_speech(small_weights: Path) -> None:
    bundle(small_weights, "speech", denoiser())
    assert SeparateOptions(1, residual=True).pipeline().outputs == ("speech", "residual")
    assert SeparateSROptions(1, rate=48000).pipeline().outputs == ("speech",)
    assert SeparateOptions(2).pipeline().outputs == ("speaker1", "speaker2")


def test_the_residual_is_the_input_minus_speech(small_weights: Path) -> None:
    bundle(small_weights, "speech", denoiser())
    wave = noise(5001, 2)
    result = api.separate(wave, 8000, speakers=1, residual=True, hum="keep")
    assert result.audio.shape == (2, 2, 5001)
    np.testing.assert_allclose(result.audio[0], 0.75 * wave, atol=5e-3)  # bfloat16 on some machines
    np.testing.assert_allclose(result.audio.sum(0), wave, atol=1e-6)
    assert (result.report.confidence, result.report.warnings) == ([], [])


@pytest.mark.parametrize(("rate", "models"), [(8000, ["separate"]), (16000, ["separate", "separate-sr"])])
def test_speech_is_restored_from_the_mixture_where_it_has_more_band(
    small_weights: Path, rate: int, models: list[str]
) -> None:
    """The restorer shares the mixture above 4 kHz between speech and the rest."""
    bundle(small_weights, "speech", denoiser())
    pipeline = SeparateSROptions(1).pipeline()
    assert [call.spec.task for call in pipeline.chain(rate)] == models
    wave = noise(2 * rate)
    output = pipeline.array(wave, rate)
    assert output.shape == (1, 1, 2 * rate)
    power = [np.square(np.abs(np.fft.rfft(x.ravel())[12000:])).sum() for x in (output, wave)]
    assert rate == 8000 or 0.2 < power[0] / power[1] < 0.95


def test_a_noisy_call_becomes_full_band(small_weights: Path, tmp_path: Path) -> None:
    bundle(small_weights, "speech", denoiser())
    soundfile.write(tmp_path / "call.wav", noise(8001).T, 8000)
    pipeline = SeparateSROptions(1, rate=48000).pipeline()
    report = pipeline.write(tmp_path / "call.wav", [tmp_path / "call_speech.wav"])
    assert [call.spec.task for call in pipeline.chain(8000)] == ["separate", "upsample"]
    assert (report.frames_out, report.rate_out) == (48006, 48000)


def test_a_model_without_a_rest_has_nothing_to_share_the_mixture_with(small_weights: Path) -> None:
    bundle(small_weights, "alone", halves(sources=1))
    pipeline = SeparateSROptions(1).pipeline()
    assert [model.spec.task for model in pipeline.models] == ["separate", "upsample"]
    with pytest.raises(
        UsageError, match="restores 2 sources, but the outputs of wave_u_net are 1; use --restorer none"
    ):
        SeparateSROptions(1, restorer="band_masks").pipeline()


def test_separators_of_counted_recordings_are_loaded_when_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(name: str, device: str = "cpu") -> Model:
        loaded.append(name)
        return store.load_model(name, device)

    monkeypatch.setattr(loading, "load_model", load)
    auto = SeparateOptions("auto", residual=True, quality="fast").pipeline()
    assert isinstance(auto, AutoPipeline)
    assert set(loaded) == {"spectral2", "spectral_speech", "spectral3", "speaker_encoder"}  # those that count
    for speakers, candidate in enumerate(auto.by_count, 1):
        loaded.clear()
        assert isinstance(candidate, UnloadedPipeline)
        pipeline = candidate.loaded
        assert loaded == list(candidate.checkpoints)
        assert candidate.loaded is pipeline
        assert (candidate.outputs, candidate.checkpoints) == (pipeline.outputs, pipeline.checkpoints)
        assert (pipeline.quality, pipeline.options.hum) == ("fast", "remove")
        assert SeparateOptions(speakers, residual=True).pipeline().outputs == pipeline.outputs
