"""One batch through each model under torchrun; the leader writes the gradients to argv[1]: for test_train_ranks.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from conftest import SMALL
from corpora import voices

from audiosr_cli.models import build, make_config
from audiosr_cli.train.heads import ClusteringConfig
from audiosr_cli.train.log import Log
from audiosr_cli.train.loop import Trainer
from audiosr_cli.train.loop_config import LoopConfig
from audiosr_cli.train.ranks import Ranks, join
from audiosr_cli.train.tasks import Recordings, Separation, Upsampling

SPECTRAL = {
    "sample_rate": 8000,
    "n_fft": 128,
    "hop_length": 64,
    "fine": 32,
    "widths": [8, 16],
    "time_strides": [2],
    "hidden": 16,
    "layers": 1,
    "heads": 2,
    "context": 0,
    "core": 1024,
    "overlap": 0,
}
CASES: dict[str, tuple[Callable[..., Any], dict[str, Any], float]] = {
    "wave_u_net": (Separation, {"norm": True, "bias": False, "difference": False, "valid": False}, 0.128),
    "audio_unet": (Upsampling, {"dropout": 0.0}, 0.1),
    "spectral_unet": (
        partial(Separation, clustering=ClusteringConfig(1.0, 4), half_resolution_weight=0.5),
        SPECTRAL,
        0.128,
    ),
}


def gradients(ranks: Ranks, batch_size: int) -> dict[str, torch.Tensor]:
    """Gradients of every model's parameters for the batch of step 0, ``batch_size`` items a rank."""
    made = {}
    for architecture, (task, values, crop_s) in CASES.items():
        torch.manual_seed(0)
        config = make_config(architecture, SMALL.get(architecture, {}) | values)
        model = build(architecture, config)
        loop = LoopConfig(precision="fp32")
        job = task(model.spec, batch_size, crop_s)
        trainer = Trainer(model, build(architecture, config), job, loop, Path(), ranks, Log(print), {})
        trainer.network = ranks.wrap(trainer.auxiliary.network)
        model.train()
        corpus = voices(4, 1.0, model.spec.out_rate)
        batch = trainer.batch(Recordings(corpus, corpus))
        assert len(batch["input"]) == batch_size
        torch.stack(list(trainer.auxiliary.losses(job, trainer.forward, batch).terms.values())).sum().backward()
        made |= {f"{architecture}.{name}": p.grad for name, p in trainer.auxiliary.network.named_parameters()}
    return made


if __name__ == "__main__":
    with join("cpu") as ranks:
        found = gradients(ranks, 2)
        if ranks.is_leader:
            torch.save(found, sys.argv[1])
