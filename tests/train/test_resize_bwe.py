"""train/resize_bwe.py: a grown upsampler computes what it did, and all of it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import noise
from corpora import run
from torch import Tensor

from audiosr_cli.checkpoints import store
from audiosr_cli.errors import ModelError
from audiosr_cli.models.spectral_bwe import SpectralBWE, SpectralBWEConfig
from audiosr_cli.train.resize_bwe import grow_bwe

CONFIG = SpectralBWEConfig(
    sample_rate=16000, n_fft=128, hop_length=64, hidden=16, blocks=2, expansion=2, margin=12, frames=16
)
LARGER: list[dict[str, Any]] = [
    {"blocks": 4, "margin": 18},
    {"expansion": 3},
    {"blocks": 3, "expansion": 5, "margin": 0},
]


def trained() -> SpectralBWE:
    """A network no weight of which is still where it started."""
    torch.manual_seed(1)
    model = SpectralBWE(CONFIG)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


def output(model: SpectralBWE, frames: int = 24) -> Tensor:
    """What the network makes of noise, without its context."""
    margin, hop = model.config.margin, model.config.hop_length
    x = 0.1 * torch.randn(2, 1, 80 * hop, generator=torch.Generator().manual_seed(2))
    middle = x[..., (40 - frames // 2 - margin) * hop : (40 + frames // 2 + margin) * hop]
    return model(middle, cutoff_hz=torch.tensor([3000.0, 5000.0]))


@pytest.mark.parametrize("changes", LARGER, ids=str)
def test_a_grown_network_computes_the_same(changes: dict[str, Any]) -> None:
    old = trained().eval()
    new = grow_bwe(old, replace(CONFIG, **changes))
    assert new.config == replace(CONFIG, **changes)
    same = SpectralBWE(replace(CONFIG, margin=new.config.margin if new.config.margin < 18 else 12))
    same.load_state_dict(old.state_dict())
    with torch.no_grad():
        before, after = output(same), output(new)
    assert float((after - before).abs().max() / before.abs().max()) < 1e-6


@pytest.mark.parametrize("changes", LARGER, ids=str)
def test_every_new_weight_gets_a_gradient(changes: dict[str, Any]) -> None:
    new = grow_bwe(trained(), replace(CONFIG, **changes)).train()
    optimizer = torch.optim.SGD(new.parameters(), 1e-2)
    for _ in range(2):  # what starts at zero hides the weights before it for one step
        new.zero_grad()
        out = output(new)
        (out - torch.randn(out.shape, generator=torch.Generator().manual_seed(3))).square().sum().backward()
        optimizer.step()
    for key, weight in new.blocks.named_parameters():
        assert weight.grad is not None
        assert (weight.grad != 0).double().mean() > 0.8, key  # units behind a ReLU may rest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": 1}, "blocks = 1: the trained network has 2; use at least as many"),
        ({"expansion": 1}, "expansion = 1: the trained network has 2"),
        ({"hidden": 32}, "hidden = 32: the trained network has 16, and that cannot be changed"),
        ({"n_fft": 256, "hop_length": 128}, "n_fft = 256: the trained network has 128"),
    ],
)
def test_what_cannot_grow_is_an_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        grow_bwe(trained(), replace(CONFIG, **changes))


def test_the_bundled_upsampler_grows() -> None:
    old = store.load_model("spectral_bwe")
    assert isinstance(old, SpectralBWE)
    config = replace(old.config, margin=0)
    small = SpectralBWE(config)
    small.load_state_dict(old.state_dict())
    x = 0.1 * torch.randn(1, 1, 32 * 512, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = (model(x) for model in (small, grow_bwe(old, replace(config, blocks=8, expansion=4))))
    assert float((after - before).abs().max() / before.abs().max()) < 1e-6


def test_a_run_starts_from_a_smaller_upsampler(tmp_path: Path) -> None:
    for name in ("train", "valid"):
        (tmp_path / name / "a").mkdir(parents=True)
        soundfile.write(tmp_path / name / "a" / "1.wav", 0.1 * np.asarray(noise(16000, seed=1)[0]), 16000)
    text = """
[model]
architecture = "spectral_bwe"
name = "tiny"
sample_rate = 16000
n_fft = 128
hop_length = 64
hidden = 16
blocks = {blocks}
expansion = 2
margin = 0
[data]
train = ["train"]
valid = ["valid"]
[task]
name = "upsample"
batch_size = 2
crop_s = 0.256
[task.degradation]
cutoff_hz = [1000.0, 4000.0]
[loop]
steps = 2
precision = "fp32"
valid_every_min = 100.0
"""
    best, _ = run(tmp_path, text.format(blocks=2), out="small")
    _, rows = run(tmp_path, text.format(blocks=3), out="large", init=str(best))
    grown = [row for row in rows if row["event"] == "grown"]
    assert len(grown) == 1 and grown[0]["parameters"] > grown[0]["parameters_before"]
