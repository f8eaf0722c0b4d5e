"""train/loop.py: what a step changes, and which weights are exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL
from corpora import Rows, voices

from audiosr_cli.checkpoints import store
from audiosr_cli.models import build, make_config
from audiosr_cli.train.log import Log
from audiosr_cli.train.loop import Trainer
from audiosr_cli.train.loop_config import LoopConfig
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks import Recordings, Separation

RECORDINGS = Recordings(voices(3, 1.0), voices(2, 1.0))


def make_trainer(out: Path, rows: Rows, **loop: Any) -> Trainer:
    torch.manual_seed(0)
    config = make_config("wave_u_net", SMALL["wave_u_net"])
    model, deployed = build("wave_u_net", config), build("wave_u_net", config)
    settings = LoopConfig(**({"precision": "fp32", "warmup_steps": 1, "learning_rate": 1e-2} | loop))
    return Trainer(
        model, deployed, Separation(model.spec, 2, crop_s=0.128), settings, out, Ranks(), Log(rows.append), {}
    )


def exported(trainer: Trainer, score: float, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """The weights that a validation with this score leaves."""
    monkeypatch.setattr(Separation, "score", lambda *_: score)
    trainer.validate(RECORDINGS)
    return store.load_model(str(trainer.out / f"{trainer.model.spec.name}.safetensors")).state_dict()


def are(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    """Whether weights are the expected ones, as far as half precision holds them."""
    return all(torch.allclose(value, expected[name], atol=1e-3) for name, value in actual.items())


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_averaged_weights_are_exported_if_there_are_any(
    ema: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tmp_path, [], ema=ema)
    for _ in range(10):
        trainer.train_step(trainer.batch(RECORDINGS))
    weights = exported(trainer, 1.0, monkeypatch)
    assert are(weights, trainer.model.state_dict()) == (not ema)
    assert are(weights, trainer.average or trainer.model.state_dict())


def test_only_better_weights_are_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(tmp_path, [])
    first = exported(trainer, 2.0, monkeypatch)
    trainer.train_step(trainer.batch(RECORDINGS))
    assert are(exported(trainer, 1.0, monkeypatch), first)
    assert are(exported(trainer, 3.0, monkeypatch), trainer.model.state_dict())


@pytest.mark.parametrize("clip_norm", [1e-3, 1e6])
def test_gradients_are_clipped_to_their_norm(clip_norm: float, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, [], clip_norm=clip_norm)
    trainer.train_step(trainer.batch(RECORDINGS))
    norm = float(torch.cat([weight.grad.flatten() for weight in trainer.model.parameters()]).norm())
    assert norm == pytest.approx(1e-3, rel=1e-2) if clip_norm < 1 else 1e-2 < norm < clip_norm
