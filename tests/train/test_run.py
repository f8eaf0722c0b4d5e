"""train/run.py and loop.py: runs that learn, stop, are killed, and continue with the same result."""

from __future__ import annotations

import signal
import subprocess
import sys
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fork_server
import numpy as np
import pytest
import soundfile
import torch
from conftest import HANG_S, SMALL, noise
from corpora import RUN, Rows, interrupt_at, run, voices

from audiosr_cli.checkpoints import catalogue, store
from audiosr_cli.errors import ModelError, TrainingError, UsageError
from audiosr_cli.models import build, make_config
from audiosr_cli.train import checkpoint, loop
from audiosr_cli.train.log import Log
from audiosr_cli.train.loop import Trainer
from audiosr_cli.train.loop_config import LoopConfig
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks import Embedding, Recordings, Separation, Upsampling
from audiosr_cli.train.tasks.upsampling import UpsamplingLossWeights


def test_a_run_learns_stops_and_resumes(speakers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its budget is time, by a clock on which each step and each validation takes a tenth of a second."""
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=count(0.0, 0.1).__next__))
    text = RUN.replace("valid_every_min = 100.0", "valid_every_min = 0.02")
    best, rows = run(speakers, text)
    assert "broken.wav" in next(row["file"] for row in rows if row["event"] == "skipped")
    data = next(row for row in rows if row["event"] == "data")
    assert (data["recordings"], data["speakers"], data["skipped"]) == (6, 3, 1)
    steps = [row["step"] for row in rows if row["event"] == "valid"]
    assert len(steps) == 4
    assert steps[0] == 0
    assert steps[-1] == pytest.approx(30 - 3, abs=1)  # 3 s
    assert all(0 < b - a <= 13 for a, b in pairwise(steps))  # 1.2 s
    model = store.load_model(str(best))
    assert (model.spec.name, model.spec.context > 0) == ("tiny", True)
    assert catalogue.metadata(best)["note"]["folders"] == ["train"]

    with pytest.raises(UsageError, match="--resume"):
        run(speakers, text)
    _, more = run(speakers, text, minutes=0.08, resume=True)
    last = [row for row in more if row["event"] == "valid"][-1]
    assert last["step"] > steps[-1]
    assert last["minutes"] >= 0.08


def test_a_slow_validation_is_not_repeated_immediately(speakers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, validate = count(0.0, 0.1), Trainer.validate

    def slow(trainer: Trainer, recordings: Recordings) -> None:
        validate(trainer, recordings)
        for _ in range(20):  # 2 s
            next(clock)

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=clock.__next__))
    monkeypatch.setattr(Trainer, "validate", slow)
    _, rows = run(speakers, RUN.replace("valid_every_min = 100.0", "valid_every_min = 0.02"), minutes=0.15)
    steps = [row["step"] for row in rows if row["event"] == "valid"]
    assert all(b - a >= 10 for a, b in pairwise(steps[:-1]))  # 1.2 s


STEPS = RUN.replace("minutes = 0.05", "steps = 50")


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(out)[0]["model"]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_interrupted_run_has_the_same_result(
    speakers: Path, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = STEPS + f'optimizer = "{optimizer}"\nema = 0.9\n'
    run(speakers, text, "whole")
    calls = interrupt_at(23, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(speakers, text, "parts")
    assert checkpoint.load(speakers / "parts")[0]["step"] == 23
    run(speakers, text, "parts", resume=True)
    assert len(calls) == 50
    for key, value in weights_of(speakers / "whole").items():
        torch.testing.assert_close(weights_of(speakers / "parts")[key], value, atol=1e-4, rtol=0, msg=key)


def start(folder: Path, text: str, out: str, before: str = "") -> subprocess.Popen[str]:
    """The command, in a process of its own that runs the code ``before``."""
    (folder / "run.toml").write_text(text)
    arguments = [str(folder / "run.toml"), "--data", str(folder), "--out", str(folder / out)]
    code = f"{before}\nfrom audiosr_cli.cli.main import main\nmain()"
    return fork_server.popen([sys.executable, "-c", code, "train", *arguments], stderr=subprocess.PIPE, text=True)


_KILLED_IN_STEP_23 = """
import os
from audiosr_cli.train.loop import Trainer
train_step = Trainer.train_step

def dying(self, batch):
    if self.progress.step == 23:
        os.kill(os.getpid(), 9)
    return train_step(self, batch)

Trainer.train_step = dying
"""


def test_a_killed_run_continues_from_its_last_state(speakers: Path) -> None:
    text = STEPS + "save_every_min = 1e-9\n"
    with start(speakers, text, "killed", _KILLED_IN_STEP_23) as killed:
        killed.communicate(timeout=HANG_S)
    assert killed.returncode == -signal.SIGKILL
    assert checkpoint.load(speakers / "killed")[0]["step"] == 23
    run(speakers, text, "killed", resume=True)
    run(speakers, text, "whole")
    for key, value in weights_of(speakers / "whole").items():
        torch.testing.assert_close(weights_of(speakers / "killed")[key], value, atol=1e-4, rtol=0, msg=key)


def test_sigterm_saves_and_exits_with_143(speakers: Path) -> None:
    with start(speakers, RUN.replace("minutes = 0.05", "minutes = 5"), "out") as running:
        assert running.stderr is not None
        assert any('"valid"' in line for line in running.stderr)
        running.terminate()
    assert running.returncode == 143
    assert checkpoint.load(speakers / "out")[0]["step"] > 0


def make_trainer(
    architecture: str, tmp_path: Path, values: dict[str, Any], **task: Any
) -> tuple[Trainer, Recordings, Rows]:
    torch.manual_seed(0)
    config = make_config(architecture, SMALL.get(architecture, {}) | values)
    model, rows = build(architecture, config), []
    kind = {"separate": Separation, "upsample": Upsampling, "embed": Embedding}[model.spec.task]
    rate = model.spec.out_rate
    recordings = Recordings(voices(3, 1.0, rate), voices(2, 1.0, rate))
    loop = LoopConfig(**{"learning_rate": 3e-3, "precision": "fp32", "warmup_steps": 1, "optimizer": "muon"})
    trainer = Trainer(
        model, build(architecture, config), kind(model.spec, 2, **task), loop, tmp_path, Ranks(), Log(rows.append), {}
    )
    return trainer, recordings, rows


SPECTRAL = {
    "sample_rate": 8000,
    "n_fft": 128,
    "hop_length": 64,
    "fine": 64,
    "widths": [8, 16],
    "time_strides": [2],
    "hidden": 16,
    "layers": 1,
    "heads": 2,
    "context": 0,
    "core": 1024,
    "overlap": 0,
}
OVERFIT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "wave_u_net": (
        {"filters": 12, "difference": False, "norm": True, "bias": False, "valid": False},
        {"crop_s": 0.128},
    ),
    "audio_unet": ({"filters": [12, 24], "dropout": 0.0}, {"crop_s": 0.1}),
    "spectral_unet": (SPECTRAL, {"crop_s": 0.128}),
    "speaker_encoder": ({}, {"crop_s": 0.2}),
}


@pytest.mark.parametrize("architecture", sorted(OVERFIT))
def test_every_model_overfits_one_batch(architecture: str, tmp_path: Path) -> None:
    """Three times the steps, half the loss: 5 dB of SI-SNR, or a third of the spectral distance."""
    values, task = OVERFIT[architecture]
    trainer, recordings, _ = make_trainer(architecture, tmp_path, values, **task)
    batch = trainer.batch(recordings)
    seen = [sum(trainer.train_step(batch).values()) for _ in range(80)]
    gained = {"audio_unet": 0.67 * seen[0], "speaker_encoder": 0.5 * seen[0]}.get(architecture, seen[0] - 5.0)
    assert sum(seen[-5:]) / 5 < gained


def test_a_batch_is_a_function_of_seed_and_step(tmp_path: Path) -> None:
    trainer, recordings, _ = make_trainer("wave_u_net", tmp_path, {}, crop_s=0.128)
    first, again = trainer.batch(recordings), trainer.batch(recordings)
    assert torch.equal(first["input"], again["input"])
    trainer.progress.step += 1
    assert not torch.equal(trainer.batch(recordings)["input"], first["input"])


@pytest.mark.parametrize("architecture", ["wave_u_net", "spectral_unet"])
def test_a_gradient_that_is_not_finite_changes_nothing_and_is_kept(architecture: str, tmp_path: Path) -> None:
    values = OVERFIT[architecture][0]
    trainer, recordings, rows = make_trainer(architecture, tmp_path, values, crop_s=0.128)
    trainer.average = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    batch = trainer.batch(recordings)
    batch["input"][0, 0, 500] = float("nan")
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    trainer.train_step(batch)
    for state in (trainer.model.state_dict(), trainer.average):
        assert all(torch.equal(value, before[key]) for key, value in state.items())
    assert "not finite" in rows[-1]["text"]
    saved = torch.load(tmp_path / "nonfinite-0-rank0.pt", weights_only=True)
    assert saved["input"][0, 0, 500].isnan()
    with pytest.raises(TrainingError, match="10 in a row"):
        for _ in range(9):
            trainer.train_step(batch)
    assert len(list(tmp_path.glob("nonfinite-*"))) == 3
    assert "its batch" not in rows[-1]["text"]


def test_adversarial_terms_join_the_loss(tmp_path: Path) -> None:
    trainer, recordings, _ = make_trainer(
        "audio_unet",
        tmp_path,
        {},
        crop_s=0.1,
        loss_weights=UpsamplingLossWeights(adversarial=0.1, feature_matching=1.0, mel=1.0),
    )
    terms = trainer.train_step(trainer.batch(recordings))
    assert set(terms) == {"lsd", "stft", "complex", "mel", "adversarial", "feature_matching"}
    trainer.save()
    assert checkpoint.load(tmp_path)[0]["discriminators"]["discriminators"]


def test_schedules() -> None:
    def rates(schedule: str, **more: Any) -> list[float]:
        trainer = object.__new__(Trainer)
        trainer.config = LoopConfig(steps=100, schedule=schedule, warmup_steps=10, learning_rate=1.0, **more)
        trainer.progress = type("P", (), {"step": 0, "halvings": 0})()
        rates_seen = []
        for trainer.progress.step in (0, 9, 50, 85, 100):
            rates_seen.append(round(trainer.learning_rate(), 3))
        return rates_seen

    assert rates("linear", cooldown=0.3) == [0.1, 1.0, 1.0, 0.5, 0.0]
    assert rates("cosine") == [0.1, 0.98, 0.5, 0.054, 0.0]
    assert rates("plateau") == [0.1, 1.0, 1.0, 1.0, 1.0]


def test_plateau_halves_after_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, recordings, _ = make_trainer("audio_unet", tmp_path, {}, crop_s=0.1)
    object.__setattr__(trainer.config, "schedule", "plateau")
    scores = iter([1.0, 2.0, 1.5, 1.5, 1.5, 1.5, 3.0])
    monkeypatch.setattr(Upsampling, "score", lambda *_: next(scores))
    halved = []
    for _ in range(7):
        trainer.validate(recordings)
        halved.append(trainer.progress.halvings)
    assert halved == [0, 0, 0, 0, 1, 1, 1]
    assert trainer.progress.best == 3.0


def test_warm_start_and_export(speakers: Path) -> None:
    best, _ = run(speakers, STEPS)
    first = store.load_model(str(best))
    text = STEPS.replace("steps = 50", "steps = 1") + "learning_rate = 0.0\n" + '[card]\nlicence = "CC0"\n'
    weights, _ = run(speakers, text, "second", init=str(best), export=speakers / "bundle")
    assert weights == speakers / "bundle" / "tiny.safetensors"
    for key, value in store.load_model(str(weights)).state_dict().items():
        if "mean_square" not in key:  # a running average, which moves at any learning rate
            torch.testing.assert_close(value, first.state_dict()[key], atol=2e-3, rtol=0)
    note = catalogue.metadata(weights)["note"]
    assert (note["licence"], note["init"]) == ("CC0", str(best))
    assert {"step", "minutes", "audio_hours", "machine", "commit", "command", "SI-SDRi (dB)"} <= set(note)
    other = text.replace("filters = 8", "filters = 4")
    with pytest.raises(ModelError, match="do not fit"):
        run(speakers, other, "third", init=str(best))
    for wrong in (other, text.replace('output = "linear"', 'output = "tanh"')):
        with pytest.raises(TrainingError, match=r"another \[model\]"):
            run(speakers, wrong, "second", resume=True)
        assert (speakers / "second" / "config.toml").read_text() == text
    with pytest.raises(TrainingError, match="another optimizer"):
        run(speakers, text.replace("[card]", 'optimizer = "muon"\n[card]'), "second", resume=True)
    run(speakers, text.replace("steps = 1", "steps = 2"), "second", resume=True)
    assert checkpoint.load(speakers / "second")[0]["init"] == str(best)


def test_more_speakers_start_from_fewer(speakers: Path) -> None:
    best, _ = run(speakers, STEPS.replace("steps = 50", "steps = 2"))
    more = STEPS.replace("steps = 50", "steps = 1\nlearning_rate = 0.0").replace("depth = 3", "depth = 3\nsources = 3")
    more = more.replace('valid = ["valid"]', 'valid = ["train"]')
    weights, _ = run(speakers, more, "second", init=str(best))
    two, three = (store.load_model(str(path)).state_dict() for path in (best, weights))
    assert three["head.weight"].shape[0] == 3
    torch.testing.assert_close(three["head.weight"][:2], two["head.weight"], atol=2e-3, rtol=0)
    with pytest.raises(ModelError, match=r"head\.weight"):
        run(speakers, STEPS.replace("steps = 50", "steps = 1"), "third", init=str(weights))


def test_three_speakers_with_turns_rooms_and_noise(speakers: Path) -> None:
    text = STEPS.replace("steps = 50", "steps = 3").replace("depth = 3", "depth = 3\nsources = 3")
    text = text.replace(
        'valid = ["valid"]', 'valid = ["train"]\nnoise = ["valid"]\nvalid_noise = ["valid"]\nrir = ["rir"]'
    )
    text = text.replace(
        "level_db", "turns_prob = 0.5\nsilent_source_prob = 0.2\nreverb_prob = 0.5\nnoise_prob = 0.5\nlevel_db"
    )
    text = text.replace("reverb_prob = 0.5", "reverb_prob = 0.5\nmeasured_rir_share = 0.5")
    (speakers / "rir").mkdir()
    soundfile.write(speakers / "rir" / "hall.flac", noise(8000)[0] * np.exp(-np.arange(8000) / 1000), 16000)
    best, rows = run(speakers, text)
    assert store.load_model(str(best)).spec.sources == 3
    assert {row["rooms"] for row in rows if "rooms" in row} == {1}
    metrics = {key for row in rows if row["event"] == "valid" for key in row if key.startswith("SI-SDRi")}
    assert metrics == {"SI-SDRi (dB)", "SI-SDRi turns (dB)", "SI-SDRi noise (dB)", "SI-SDRi rooms (dB)"}


def test_upsampling_batches_are_aligned_and_masked(tmp_path: Path) -> None:
    trainer, recordings, _ = make_trainer("audio_unet", tmp_path, {}, crop_s=0.2)
    recordings.train.bandwidth.fill_(9000.0)
    batch = trainer.batch(recordings)
    context = trainer.model.spec.context
    inside = batch["input"][:, 0, context:-context]
    spectra = [torch.fft.rfft(x * torch.hann_window(x.shape[-1])) for x in (inside, batch["target"])]
    low = slice(0, int(500 * inside.shape[-1] / 48000))
    torch.testing.assert_close(spectra[0][:, low], spectra[1][:, low], atol=0.2, rtol=0.1)  # no lag, no gain
    assert (batch["band"] - 9000).abs().max() <= 450 + 1  # moved with the speed


def test_a_resume_does_not_need_the_initial_weights(speakers: Path) -> None:
    """They may be gone, and may not suit what the run has become."""
    first, _ = run(speakers, STEPS.replace("steps = 50", "steps = 1"), "first")
    run(speakers, STEPS.replace("steps = 50", "steps = 1"), "second", init=str(first))
    first.unlink()
    weights, _ = run(speakers, STEPS.replace("steps = 50", "steps = 2"), "second", init=str(first), resume=True)
    assert catalogue.metadata(weights)["note"]["init"] == str(first)
    with pytest.raises(ModelError, match="cannot be read"):
        run(speakers, STEPS, "third", init=str(first), resume=True)
