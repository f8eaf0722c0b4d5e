"""pipelines.py: the kinds of recordings that an upsampler is chosen for."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import noise
from kinds import bundle_kinds

import audiosr_cli
from audiosr_cli.batch.manifest import settings_of
from audiosr_cli.batch.naming import Naming
from audiosr_cli.batch.run import OutputPlan
from audiosr_cli.errors import ModelError, UsageError
from audiosr_cli.pipelines import PipelineConfig, SeparateSROptions, UpsampleOptions
from audiosr_cli.streaming.kind_pipeline import KindPipeline
from audiosr_cli.streaming.options import KindChoice, Options


@pytest.mark.parametrize(
    ("kind", "model"), [("speech", "spectral_bwe"), ("music", "spectral_bwe_music"), ("effects", "spectral_bwe")]
)
def test_a_kind_stands_for_a_bundled_model(kind: KindChoice, model: str, small_weights: Path) -> None:
    bundle_kinds(small_weights)
    pipeline = UpsampleOptions(kind=kind).pipeline()
    assert [network.spec.name for network in pipeline.models] == [model]
    assert not isinstance(pipeline, KindPipeline)


def test_nothing_is_detected_where_it_would_not_matter(small_weights: Path) -> None:
    assert not isinstance(UpsampleOptions().pipeline(), KindPipeline)  # there is one upsampler for all kinds
    bundle_kinds(small_weights)
    assert isinstance(UpsampleOptions().pipeline(), KindPipeline)
    for model in ("none", "spectral_bwe", "audio_unet"):
        assert not isinstance(UpsampleOptions(model=model).pipeline(), KindPipeline)


def test_kinds_share_an_upsampler(small_weights: Path) -> None:
    bundle_kinds(small_weights, "music", "effects")
    pipeline = UpsampleOptions(44100, cutoff_hz=3000.0).pipeline()
    assert isinstance(pipeline, KindPipeline)
    assert pipeline.by_kind["music"] is pipeline.by_kind["effects"]
    loaded = pipeline.by_kind["music"].loaded
    assert (loaded.rate, loaded.cutoff_hz, loaded.outputs) == (44100, 3000.0, pipeline.outputs)


def test_a_kind_and_a_model_exclude_each_other(small_weights: Path) -> None:
    for model in ("spectral_bwe", "none"):
        with pytest.raises(UsageError, match=f"--kind music and --model {model} both choose a model"):
            UpsampleOptions(model=model, kind="music").pipeline()
    with pytest.raises(UsageError, match="--steps, --guidance and --seed need a diffusion model"):
        audiosr_cli.upsample(noise(800), 8000, kind="music", steps=1)


def test_voices_that_were_separated_are_speech(small_weights: Path) -> None:
    bundle_kinds(small_weights, "speech", "music")
    assert SeparateSROptions(rate=48000).pipeline().models[-1].spec.name == "spectral_bwe_music"  # which is for speech


def test_a_classifier_processes_no_recordings(small_weights: Path) -> None:
    bundle_kinds(small_weights)
    with pytest.raises(ModelError, match="expected a model for upsample; this one is for classify"):
        UpsampleOptions(model="audio_classifier").pipeline()


def test_kinds_need_a_classifier(small_weights: Path) -> None:
    bundle_kinds(small_weights)
    path = small_weights / "catalogue.json"
    path.write_text(path.read_text().replace('"classify"', '"embed"'))
    with pytest.raises(ModelError, match="no bundled model for the task 'classify'"):
        UpsampleOptions().pipeline()


def test_the_kind_is_a_setting_of_the_manifest() -> None:
    config = PipelineConfig(UpsampleOptions(kind="music"), Options())
    assert settings_of(config, OutputPlan(Naming(None, "{stem}.{ext}")))["kind"] == "music"


def test_the_python_interface_reports_the_kind(small_weights: Path) -> None:
    bundle_kinds(small_weights)
    detected = audiosr_cli.upsample(noise(16000), 8000, cutoff_hz=3000.0).report
    assert (detected.kind, detected.kind_confidence) == ("effects", pytest.approx(1.0, abs=0.01))
    chosen = audiosr_cli.upsample(noise(800), 8000, cutoff_hz=3000.0, kind="music").report
    assert (chosen.kind, chosen.kind_confidence) == (None, None)
    with pytest.raises(UsageError, match="kind = 'song': expected one of 'auto', 'speech', 'music', 'effects'"):
        audiosr_cli.upsample(noise(800), 8000, kind="song")  # type: ignore[arg-type]
