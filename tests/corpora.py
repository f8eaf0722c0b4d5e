"""Small corpora in memory, and a run that takes seconds."""

from __future__ import annotations

import numpy as np
import torch
from conftest import noise

from audiosr_cli.train.corpus import Corpus

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
valid_every_min = 0.02
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
        chance=torch.full((count,), 1 / count),
        names=[str(i) for i in range(len(parts))],
        skipped=[],
        damaged=[],
    )


def voices(count: int, seconds: float = 2.0, rate: int = 8000) -> Corpus:
    """Speakers of noise, one recording each."""
    return corpus_of([noise(round(seconds * rate), seed=i)[0] for i in range(count)], list(range(count)), rate)
