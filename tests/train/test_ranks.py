"""train/ranks.py: two processes train as one with twice the batch does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fork_server
import pytest
import torch
from conftest import HANG_S
from corpora import RUN
from ddp_gradients import gradients

from audiosr_cli.checkpoints import store
from audiosr_cli.errors import UsageError
from audiosr_cli.train import checkpoint
from audiosr_cli.train.ranks import Ranks, join

Launch = Callable[..., tuple[str, str]]
TOLERANCE = 1e-2  # of the largest entry: losses of logarithms make 1e-3 of rounding, a wrong mean is a factor
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def torchrun(*command: str) -> tuple[str, str]:
    """Run ``python -m`` with the words of ``command`` under torchrun; return its output and its messages."""
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parents[1]}:{Path(__file__).parents[2]}"}
    done = subprocess.run(
        [*TORCHRUN, "-m", *command], capture_output=True, text=True, env=environment, timeout=HANG_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def two_processes(*command: str) -> tuple[str, str]:
    """Do the same without torchrun: with the environment variables that it sets."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    code = f"import runpy, sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); del sys.argv[0]; "
    code += "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
    call = [sys.executable, "-c", code, *command]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    processes = [fork_server.popen(call, env=shared | rank, **pipes) for rank in ranks]
    outputs = [process.communicate(timeout=HANG_S) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    return outputs[0][0] + outputs[1][0], outputs[0][1] + outputs[1][1]


launchers = pytest.mark.parametrize("launch", [two_processes, pytest.param(torchrun, marks=pytest.mark.slow)])


@launchers
def test_two_ranks_have_the_gradients_of_one_with_twice_the_batch(launch: Launch, tmp_path: Path) -> None:
    launch("ddp_gradients", str(tmp_path / "gradients.pt"))
    of_two = torch.load(tmp_path / "gradients.pt", weights_only=True)
    of_one = gradients(Ranks(), 4)
    assert set(of_two) == set(of_one)
    for name, gradient in of_one.items():
        scale = float(gradient.abs().max())
        assert scale > 1e-4
        torch.testing.assert_close(of_two[name] / scale, gradient / scale, atol=TOLERANCE, rtol=0, msg=name)


@launchers
def test_the_command_trains_in_two_processes(launch: Launch, speakers: Path) -> None:
    text = RUN.replace("minutes = 0.05", "steps = 12").replace("batch_size = 2", "batch_size = 1")
    (speakers / "run.toml").write_text(text + 'optimizer = "muon"\n')
    out = speakers / "out"
    arguments = ["train", str(speakers / "run.toml"), "--data", str(speakers), "--out", str(out)]
    stdout, stderr = launch("audiosr_cli", *arguments, "--device", "cpu")
    assert stdout.splitlines() == [str(out / "tiny.safetensors")]
    rows = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
    steps = [row["step"] for row in rows if row["event"] == "valid"]
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (0, 12)
    state, _ = checkpoint.load(out)
    assert state["step"] == 12
    assert abs(state["audio_s"] - 12 * 2 * 0.256) < 1e-6
    assert store.load_model(str(out / "tiny.safetensors")).spec.name == "tiny"


def test_one_gpu_for_several_processes_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(UsageError, match=r"--device cuda:1: each of the 2 processes .* use --device cuda"),
        join("cuda:1"),
    ):
        pass
