"""Small corpora in memory, and a run that takes seconds."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import noise

from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.loop import Trainer
from audiosr_cli.train.run import TrainCall, train

Rows = list[dict[str, Any]]

RUN = """
[model]
architecture = "wave_u_net"
name = "tiny"
sample_rate = 8000
depth = 3
filters = 8
core = 512
norm = true
bias = false
output = "linear"
difference = false
[model.training]
valid = false
[data]
train = ["train"]
valid = ["valid"]
[task]
name = "separate"
batch_size = 2
crop_s = 0.256
[task.mixing]
level_db = [0.0, 0.0]
[loop]
minutes = 0.05
warmup_steps = 5
valid_every_min = 100.0
precision = "fp32"
"""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def corpus_of(waves: list[np.ndarray], people: list[int], rate: int = 8000, band: float | None = None) -> Corpus:
    """Waveforms (T,) as a corpus, every speaker as likely."""
    parts = [torch.from_numpy(np.rint(wave * 32768).clip(-32768, 32767).astype(np.int16)) for wave in waves]
    sizes = torch.tensor([len(part) for part in parts])
    count = max(people) + 1
    return Corpus(
        sample_rate=rate,
        samples=torch.cat(parts),
        starts=sizes.cumsum(0) - sizes,
        lengths=sizes,
        speakers=torch.tensor(people),
        bandwidth=torch.full((len(parts),), band or rate / 2),
        level=torch.tensor([max(float(np.sqrt(np.mean(wave**2))), 1e-4) for wave in waves]),
        speaker_probs=torch.full((count,), 1 / count),
        names=[str(i) for i in range(len(parts))],
        skipped=[],
        damaged=[],
    )


def voices(count: int, seconds: float = 2.0, rate: int = 8000) -> Corpus:
    """Speakers of noise, one recording each."""
    return corpus_of([noise(round(seconds * rate), seed=i)[0] for i in range(count)], list(range(count)), rate)


def run(folder: Path, text: str = RUN, out: str = "out", **call: Any) -> tuple[Path, Rows]:
    (folder / "run.toml").write_text(text)
    rows: Rows = []
    return train(folder / "run.toml", folder / out, rows.append, TrainCall(data=folder, **call)), rows


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ctrl-C in that training step from now on; the list grows with every step."""
    real, calls = Trainer.train_step, list[int]()

    def stopping(self: Trainer, batch: Any) -> dict[str, float]:
        calls.append(1)
        if len(calls) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, batch)

    monkeypatch.setattr(Trainer, "train_step", stopping)
    return calls
