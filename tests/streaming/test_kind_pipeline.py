"""streaming/kind_pipeline.py: recordings get the upsampler for their kind, loaded when the first one needs it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import noise, tone
from kinds import bundle_kinds

from audiosr_cli.audio.metadata.provenance import provenance_of
from audiosr_cli.audio.read import AudioReader
from audiosr_cli.checkpoints import loading, store
from audiosr_cli.models import Model
from audiosr_cli.pipelines import PipelineConfig, UpsampleOptions
from audiosr_cli.streaming.kind_pipeline import KindPipeline
from audiosr_cli.streaming.options import Options

RATE = 8000
TONE, NOISE = tone(2 * RATE, 500, RATE), noise(2 * RATE)


@pytest.fixture
def loaded(small_weights: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that have been loaded; the catalogue has an upsampler for music."""
    names: list[str] = []

    def load(name: str, device: str = "cpu") -> Model:
        names.append(name)
        return store.load_model(name, device)

    monkeypatch.setattr(loading, "load_model", load)
    bundle_kinds(small_weights)
    return names


def detecting() -> KindPipeline:
    pipeline = PipelineConfig(UpsampleOptions(cutoff_hz=3600.0), Options()).build()
    assert isinstance(pipeline, KindPipeline)
    return pipeline


def test_each_recording_gets_the_model_for_its_kind(loaded: list[str]) -> None:
    pipeline = detecting()
    for signal, model in ((TONE, "spectral_bwe_music"), (NOISE, "spectral_bwe")):
        expected = UpsampleOptions(model=model, cutoff_hz=3600.0).pipeline(Options()).array(signal, RATE)
        np.testing.assert_array_equal(pipeline.array(signal, RATE), expected)
    other = UpsampleOptions(model="spectral_bwe", cutoff_hz=3600.0).pipeline(Options()).array(TONE, RATE)
    assert not np.array_equal(pipeline.array(TONE, RATE), other)


def test_the_other_model_is_loaded_by_the_first_recording_that_needs_it_and_once(loaded: list[str]) -> None:
    pipeline = detecting()
    assert loaded == ["spectral_bwe", "audio_classifier"]
    pipeline.array(NOISE, RATE)
    assert len(loaded) == 2
    pipeline.array(TONE, RATE)
    pipeline.array(TONE, RATE)
    assert loaded[2:] == ["spectral_bwe_music"]


def test_every_model_that_may_be_used_is_among_the_checkpoints(loaded: list[str]) -> None:
    checkpoints = detecting().checkpoints
    assert set(checkpoints) == {"spectral_bwe", "audio_classifier", "spectral_bwe_music"}
    assert checkpoints == {name: store.load_model(name).sha256 for name in checkpoints}


def test_files_are_written_with_the_model_for_their_kind(loaded: list[str], tmp_path: Path) -> None:
    for name, signal, model in (("music", TONE, "spectral_bwe_music"), ("rain", NOISE, "spectral_bwe")):
        soundfile.write(tmp_path / f"{name}.wav", signal.T, RATE)
        target = tmp_path / f"{name}_48000.wav"
        report = detecting().write(tmp_path / f"{name}.wav", [target])
        assert report.kind == {"music": "music", "rain": "effects"}[name]
        assert [used.split()[0] for used in provenance_of(target)["models"]] == [model]
        assert ("treated as music" in report.notes[0]) == (name == "music")


def test_what_was_selected_detects_nothing_again(
    loaded: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pipeline = detecting()
    soundfile.write(tmp_path / "music.wav", TONE.T, RATE)
    with AudioReader(tmp_path / "music.wav") as reader:
        selected = pipeline.select(reader)
        monkeypatch.setattr(pipeline.classifier, "forward", None)
        assert selected.in_memory(reader)[1].kind == "music"


def test_silence_is_only_resampled(loaded: list[str]) -> None:
    pipeline = PipelineConfig(UpsampleOptions(), Options()).build()
    with AudioReader(_wav(np.zeros((1, RATE), np.float32))) as reader:
        output, report = pipeline.in_memory(reader)
    assert not output.any()
    assert (report.kind, report.kind_confidence, report.cutoff_hz) == ("speech", None, None)


def test_a_recording_before_detection_has_the_checks_of_an_upsampler(loaded: list[str]) -> None:
    """They are those of speech's: one output, and no rate below the recording's."""
    pipeline = detecting()
    assert pipeline.outputs == ("speaker1",)
    assert pipeline.uses_cutoff


def _wav(signal: np.ndarray) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, signal.T, RATE, "FLOAT", format="WAV")
    return stream.getvalue()


def test_a_pipe_with_a_known_cutoff_is_not_read_ahead(loaded: list[str]) -> None:
    """Its output starts at once; otherwise both the cutoff and the kind are detected first."""
    for pipeline, detects in ((detecting(), False), (replace(detecting(), cutoff_hz=None), True)):
        with AudioReader(_wav(TONE)) as reader:
            selected = pipeline.select(reader)
        assert isinstance(selected, KindPipeline) is detects
