"""A separator that learns beside its restorer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from corpora import interrupt_at, run

from audiosr_cli.checkpoints import store
from audiosr_cli.train import checkpoint

JOINT = """
[model]
architecture = "band_masks"
name = "tiny"
frame_s = 0.008
width = 4

[model.training]
margin = 0

[data]
train = ["train"]
valid = ["valid"]

[task]
name = "separate-sr"
separator = "wave_u_net"
joint = true
batch_size = 2
crop_s = 0.512

[card]
data = "tones"
licence = "CC0"
description = "for tests"

[loop]
steps = 6
warmup_steps = 1
learning_rate = 1e-3
valid_every_min = 5.0
"""


def test_a_jointly_trained_separator_is_saved_and_resumed(
    speakers: Path, small_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best, _ = run(speakers, JOINT, "whole")
    interrupt_at(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(speakers, JOINT, "parts")
    run(speakers, JOINT, "parts", resume=True)
    whole, parts = (checkpoint.load(speakers / name)[0]["joint_model"] for name in ("whole", "parts"))
    initial = store.load_model("wave_u_net").state_dict()
    assert all(torch.allclose(parts[key], whole[key], atol=1e-4) for key in whole)
    assert any(not torch.allclose(parts[key], initial[key], atol=1e-4) for key in whole)
    learned = store.load_model(str(best.parent / "wave_u_net.safetensors"))
    assert (learned.spec, store.load_model(str(best)).spec.inputs) == (store.load_model("wave_u_net").spec, 3)
