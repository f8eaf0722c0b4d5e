"""models/runner.py: the arguments of a recording reach the model, for every window its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import BWE, halves
from torch import Tensor, nn

from audiosr_cli.contract import ModelSpec
from audiosr_cli.models import Model, build, make_config
from audiosr_cli.models.diffusion import Sampling
from audiosr_cli.models.runner import ModelCall, ModelRunner, as_call
from audiosr_cli.streaming.options import Options
from audiosr_cli.streaming.pipeline import Pipeline

SPEC = ModelSpec("recorder", "upsample", 8000, 1, 1, 1, 4, 0, 4, uses_cutoff=True, uses_position=True)


class Recorder(Model):
    """Remember the arguments of every call."""

    def __init__(self) -> None:
        super().__init__(SimpleNamespace(spec=SPEC))
        self.weight = nn.Parameter(torch.zeros(()))
        self.calls = list[dict[str, Any]]()

    def forward(self, x: Tensor, **arguments: Any) -> Tensor:
        self.calls.append(arguments)
        return x.unsqueeze(1)


def test_a_model_by_itself_gets_no_arguments() -> None:
    model = Recorder()
    as_call(model)(torch.zeros(3, 1, 4))
    assert model.calls == [{}]


def test_the_arguments_of_a_recording_are_passed_on() -> None:
    model, sampling, position = Recorder(), Sampling(seed=7), torch.tensor([0, 4])
    call = ModelCall(model, 3000.0, sampling)
    assert as_call(call) is call
    call(torch.zeros(2, 1, 4), position)
    (arguments,) = model.calls
    assert arguments["cutoff_hz"].tolist() == [3000.0, 3000.0]
    assert arguments["position"] is position
    assert arguments["sampling"] is sampling
    assert set(vars(model)) == set(vars(Recorder()))  # nothing is left on the model


@pytest.mark.parametrize("most", [1, 2, 5, 9])
def test_windows_are_split_with_their_positions(most: int) -> None:
    model = Recorder()
    x, position = torch.arange(20.0).view(5, 1, 4), torch.arange(5) * 4
    output = ModelRunner(ModelCall(model, 3000.0), most)(x, position)
    assert torch.equal(output[:, 0], x)
    assert torch.equal(torch.cat([arguments["position"] for arguments in model.calls]), position)
    sizes = [len(arguments["cutoff_hz"]) for arguments in model.calls]
    assert sizes == [len(arguments["position"]) for arguments in model.calls]
    assert max(sizes) == min(most, 5)


def test_a_pipeline_gives_each_model_what_it_asks_for() -> None:
    upsampler = build("spectral_bwe", make_config("spectral_bwe", BWE))
    sampling = Sampling(steps=1)
    separator, extended, drawn = Pipeline(
        (halves(8000), upsampler, Recorder()), 48000, Options(), sampling=sampling
    ).chain(44100)
    assert (separator.cutoff_hz, separator.sampling) == (None, None)
    assert extended.cutoff_hz == pytest.approx(0.945 * 4000)
    assert extended.sampling is None
    assert drawn.cutoff_hz is not None
    assert drawn.sampling is sampling


def test_a_cutoff_per_item_and_one_for_all_agree_on_the_default() -> None:
    """A sixth of the rate."""
    model = build("spectral_bwe", make_config("spectral_bwe", BWE)).eval()
    x = 0.1 * torch.randn(2, 1, model.spec.window, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model(x), model(x, cutoff_hz=torch.tensor([8000.0, 8000.0])))
        assert not torch.equal(model(x), model(x, cutoff_hz=torch.tensor([8000.0, 7000.0])))
