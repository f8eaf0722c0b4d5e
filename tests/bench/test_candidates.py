"""bench/candidates.py, peers.py and run.py: what is measured, selected without measuring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import denoiser

from audiosr_cli.bench import peers
from audiosr_cli.bench.candidates import COMMANDS, BenchSettings, all_names, duration, find_candidates, noise_file
from audiosr_cli.bench.flops import chain_gflop
from audiosr_cli.bench.run import BenchPlan, select_candidates
from audiosr_cli.bench.worker import _options
from audiosr_cli.checkpoints import catalogue, store
from audiosr_cli.errors import ModelError, UsageError
from audiosr_cli.pipelines import default_options


def test_all_names_are_commands_and_models_that_work_alone() -> None:
    alone = [name for name, entry in catalogue.entries().items() if {"separate", "upsample"} & {*entry["tasks"]}]
    assert all_names() == ["separate", "separate-sr", "upsample", *alone]


def test_a_candidate_knows_its_command() -> None:
    whole, model, peer = find_candidates(["upsample", "spectral3"], ["sepformer"])
    assert whole.command("a.wav", "out", "--rate", "16000") == [
        *("upsample", "a.wav", "-o", "out", "-q", "--overwrite", "--rate", "16000")
    ]
    assert model.command("a.wav", "out")[-4:] == ["--model", "spectral3", "--speakers", "3"]
    assert (whole.label, model.label) == ("audiosr upsample", "spectral3")
    assert peer.label == "SepFormer, our code (random weights)"


def test_a_model_of_speech_and_the_rest_has_one_speaker(small_weights: Path) -> None:
    path = small_weights / "speech.safetensors"
    store.save_model(denoiser(), path, {})
    (candidate,) = find_candidates([str(path)], [])
    assert candidate.speakers == 1
    assert candidate.command("a.wav", "out")[-2:] == ["--speakers", "1"]
    model = store.load_model(str(path))
    assert chain_gflop([model, model]) == pytest.approx(2 * (chain_gflop([model]) or 0.0))


def test_settings_reach_commands_and_models(tmp_path: Path) -> None:
    settings, (candidate,) = (
        BenchSettings(tmp_path, batch=3, threads=2, precision="float32"),
        find_candidates(["upsample"], []),
    )
    assert " ".join(settings.options) == "--device auto --batch 3 --precision float32 --threads 2"
    options = _options(settings.job(candidate, "time") | {"device": "cpu"})
    assert (options.batch, options.threads, options.bf16) == (3, 2, False)
    default = BenchSettings(tmp_path)
    assert "--threads" not in default.options
    assert _options(default.job(candidate, "time") | {"device": "cpu"}) == default_options("cpu")


@pytest.mark.parametrize("name", ["speaker_encoder", "band_masks_wide"])
def test_models_that_cannot_process_recordings_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot process recordings"):
        find_candidates([name], [])


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"no model 'nobody'; bundled: spectral2"):
        find_candidates(["nobody"], [])
    with pytest.raises(UsageError, match=r"--against nobody: unknown peer; known: soxr, .*demucs"):
        find_candidates([], ["nobody"])


def test_a_peer_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="demucs is not installed; pip install demucs"):
        find_candidates([], ["demucs"])
    assert peers.installed() == ["soxr", "ap-bwe", "sepformer", "sfsrnet", "dprnn", "conv-tasnet"]


def test_random_weights_are_labelled() -> None:
    assert {name for name, peer in peers.PEERS.items() if "(random weights)" not in peer.label} == {"soxr"}


def test_noise_files_have_the_requested_length(tmp_path: Path) -> None:
    path = noise_file(tmp_path, 20.5, 8000)
    assert soundfile.info(path).frames == 164000
    assert duration(path) == (20.5, 1)
    wave = soundfile.read(path)[0]
    assert abs(np.sqrt(np.mean(wave**2)) - 0.1) < 1e-3
    written = Path(path).stat().st_mtime_ns
    assert noise_file(tmp_path, 20.5, 8000) == path
    assert Path(path).stat().st_mtime_ns == written


def test_a_plan_without_models_selects_what_fits(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    selection = select_candidates(BenchPlan(lengths=(1.0,), quality=tmp_path))
    assert [one.name for one in selection.speed] == all_names()
    assert [one.name for one in selection.memory] == list(COMMANDS)
    assert [one.name for one in selection.quality] == ["upsample"]


def test_quality_of_peers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    with pytest.raises(UsageError, match="random weights"):
        select_candidates(BenchPlan(against=("ap-bwe",), speed=False, quality=tmp_path))
    with pytest.raises(UsageError, match="has references for upsample, which none of --models does"):
        select_candidates(BenchPlan(models=("spectral2",), speed=False, quality=tmp_path))
