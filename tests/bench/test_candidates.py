"""subjects.py, peers.py and run.py: what is measured, found without measuring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiosr_cli.bench import peers
from audiosr_cli.bench.candidates import COMMANDS, Setting, all_names, find, length, sound
from audiosr_cli.bench.run import Plan, choose
from audiosr_cli.bench.worker import _options
from audiosr_cli.checkpoints import catalogue
from audiosr_cli.errors import ModelError, UsageError
from audiosr_cli.pipelines import default_options


def test_all_are_the_commands_and_what_works_alone() -> None:
    alone = [name for name, entry in catalogue.entries().items() if {"separate", "upsample"} & {*entry["tasks"]}]
    assert all_names() == ["separate", "separate-sr", "upsample", *alone]


def test_a_subject_knows_its_command() -> None:
    whole, model, peer = find(["upsample", "spectral3"], ["sepformer"])
    assert whole.command("a.wav", "out", "--rate", "16000") == [
        *("upsample", "a.wav", "-o", "out", "-q", "--overwrite", "--rate", "16000")
    ]
    assert model.command("a.wav", "out")[-4:] == ["--model", "spectral3", "--speakers", "3"]
    assert (whole.label, model.label) == ("audiosr upsample", "spectral3")
    assert peer.label == "SepFormer, our code (random weights)"


def test_how_subjects_run_reaches_commands_and_models(tmp_path: Path) -> None:
    setting, (subject,) = Setting(tmp_path, batch=3, threads=2, precision="float32"), find(["upsample"], [])
    assert " ".join(setting.options) == "--device auto --batch 3 --precision float32 --threads 2"
    options = _options(setting.job(subject, "time") | {"device": "cpu"})
    assert (options.batch, options.threads, options.bf16) == (3, 2, False)
    usual = Setting(tmp_path)
    assert "--threads" not in usual.options
    assert _options(usual.job(subject, "time") | {"device": "cpu"}) == default_options("cpu")


@pytest.mark.parametrize("name", ["speaker_encoder", "band_masks_wide"])
def test_what_works_on_no_recording_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="does not work on recordings"):
        find([name], [])


def test_unknown_names_are_told_what_there_is() -> None:
    with pytest.raises(ModelError, match=r"no model 'nobody'; bundled: spectral2"):
        find(["nobody"], [])
    with pytest.raises(UsageError, match=r"--against nobody: no such peer; known: soxr, .*demucs"):
        find([], ["nobody"])


def test_a_peer_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="demucs is not installed here; pip install demucs"):
        find([], ["demucs"])
    assert peers.installed() == ["soxr", "ap-bwe", "sepformer", "sfsrnet", "dprnn", "conv-tasnet"]


def test_only_random_weights_are_called_so() -> None:
    assert {name for name, peer in peers.PEERS.items() if "(random weights)" not in peer.label} == {"soxr"}


def test_sound_is_as_long_as_asked_for(tmp_path: Path) -> None:
    path = sound(tmp_path, 20.5, 8000)
    assert soundfile.info(path).frames == 164000
    assert length(path) == (20.5, 1)
    wave = soundfile.read(path)[0]
    assert abs(np.sqrt(np.mean(wave**2)) - 0.1) < 1e-3
    written = Path(path).stat().st_mtime_ns
    assert sound(tmp_path, 20.5, 8000) == path
    assert Path(path).stat().st_mtime_ns == written


def test_a_plan_without_models_takes_what_fits(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    chosen = choose(Plan(lengths=(1.0,), quality=tmp_path))
    assert [one.name for one in chosen.speed] == all_names()
    assert [one.name for one in chosen.memory] == list(COMMANDS)
    assert [one.name for one in chosen.quality] == ["upsample"]


def test_quality_of_what_has_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    with pytest.raises(UsageError, match="random weights"):
        choose(Plan(against=("ap-bwe",), timed=False, quality=tmp_path))
    with pytest.raises(UsageError, match="is to upsample; none of --models does"):
        choose(Plan(models=("spectral2",), timed=False, quality=tmp_path))
