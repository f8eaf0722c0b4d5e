"""pipelines.py: the models that a quality stands for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import SMALL, noise

import audiosr_cli
from audiosr_cli.audio.metadata.provenance import provenance_of
from audiosr_cli.batch.manifest import settings_of
from audiosr_cli.batch.naming import Naming
from audiosr_cli.batch.run import OutputPlan
from audiosr_cli.checkpoints import store
from audiosr_cli.errors import UsageError
from audiosr_cli.files.fingerprint import sha256
from audiosr_cli.models import build, make_config
from audiosr_cli.pipelines import PipelineConfig, SeparateOptions, SeparateSROptions
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
