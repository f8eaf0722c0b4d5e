"""train/ranks.py: two processes train as one with twice the batch does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from conftest import HANG_S
from corpora import RUN
from ddp_gradients import gradients

from audiosr_cli.checkpoints import store
from audiosr_cli.train import checkpoint
from audiosr_cli.train.ranks import Ranks

TOLERANCE = 1e-2  # of the largest entry: losses of logarithms make 1e-3 of rounding, a wrong mean is a factor
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def torchrun(*command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run([*TORCHRUN, *command], capture_output=True, text=True, env=environment, timeout=HANG_S)


def test_two_ranks_have_the_gradients_of_one_with_twice_the_batch(tmp_path: Path) -> None:
    process = torchrun(str(Path(__file__).parents[1] / "ddp_gradients.py"), str(tmp_path / "gradients.pt"))
    assert process.returncode == 0, process.stderr
    of_two = torch.load(tmp_path / "gradients.pt", weights_only=True)
    of_one = gradients(Ranks(), 4)
    assert set(of_two) == set(of_one)
    for name, gradient in of_one.items():
        scale = float(gradient.abs().max())
        assert scale > 1e-4
        torch.testing.assert_close(of_two[name] / scale, gradient / scale, atol=TOLERANCE, rtol=0, msg=name)


def test_the_command_trains_under_torchrun(speakers: Path) -> None:
    text = RUN.replace("minutes = 0.05", "steps = 12").replace("batch_size = 2", "batch_size = 1")
    (speakers / "run.toml").write_text(text + 'optimizer = "muon"\n')
    out = speakers / "out"
    arguments = ["train", str(speakers / "run.toml"), "--data", str(speakers), "--out", str(out)]
    process = torchrun("-m", "audiosr_cli", *arguments, "--device", "cpu")
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines() == [str(out / "tiny.safetensors")]
    rows = [json.loads(line) for line in process.stderr.splitlines() if line.startswith("{")]
    steps = [row["step"] for row in rows if row["event"] == "valid"]
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (0, 12)
    state, _ = checkpoint.load(out)
    assert state["step"] == 12
    assert abs(state["audio_s"] - 12 * 2 * 0.256) < 1e-6
    assert store.load_model(str(out / "tiny.safetensors")).spec.name == "tiny"
