"""bench/flops.py: FLOPs that are known in closed form, and the machine's rate."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import SMALL, halves
from torch import nn

from audiosr_cli.bench import flops, worker
from audiosr_cli.bench.ap_bwe import ApBwe
from audiosr_cli.bench.peers import PEERS
from audiosr_cli.checkpoints.store import load_model
from audiosr_cli.models import build, make_config

AP_BWE_MILLIONS = 29.8  # parameters of the published generator


class Counted(nn.Module):
    """One convolution, 3 taps, without padding."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(1, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def test_flops_of_a_convolution() -> None:
    """Two FLOPs per weight and frame: 4 channels, 3 taps, 1998 frames, in two seconds."""
    assert flops.peer_gflop(Counted(), 1000, seconds=2.0) == pytest.approx(2 * 4 * 3 * 1998 / 2 / 1e9)


def test_flops_that_cannot_be_counted_are_none() -> None:
    assert flops.peer_gflop(lambda x: x, 8000) is None
    assert flops.peer_gflop(nn.LSTM(8, 8), 8, seconds=1.0) is None


def test_later_models_of_a_chain_run_once_per_source() -> None:
    """Two sources pass the second model one after the other; overlapping windows count each time."""
    parting, widening = halves(), build("audio_unet", make_config("audio_unet", SMALL["audio_unet"])).eval()
    first, second = (flops.chain_gflop([model]) for model in (parting, widening))
    assert first and second
    assert flops.chain_gflop([parting, widening]) == pytest.approx(first + 2 * second)


def test_machine_rate_is_positive() -> None:
    assert 0 < flops.machine_gflops(torch.float32, seconds=0.02) < math.inf


def test_ap_bwe_has_the_published_size() -> None:
    model = ApBwe()
    assert sum(weight.numel() for weight in model.parameters()) / 1e6 == pytest.approx(AP_BWE_MILLIONS, abs=0.1)
    with torch.inference_mode():
        assert model(torch.zeros(1, 1, 4800)).shape == (1, 4800)


@pytest.mark.parametrize("name", ["soxr", "conv-tasnet"])
def test_peers_run(name: str) -> None:
    with torch.inference_mode():
        PEERS[name].make("cpu")(torch.zeros(1, 1, 800))


_AS_USUAL = {"device": "cpu", "batch": 1, "threads": None, "precision": "auto"}


def test_workers_count_the_flops_of_models_and_commands() -> None:
    job = {"kind": "model", "name": "spectral_bwe_large", "rate": 48000} | _AS_USUAL
    model = worker.count_flops(job, worker.Path())["gflop_per_s"]
    assert model == pytest.approx(flops.chain_gflop([load_model("spectral_bwe_large")]))
    command = worker.count_flops(job | {"kind": "command", "name": "upsample", "rate": 8000}, worker.Path())
    assert command["gflop_per_s"] == pytest.approx(model)
