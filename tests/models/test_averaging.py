"""models/averaging.py: estimates of windows that start at different places, in one order, on top of each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import halves, noise
from small_models import SPECTRAL
from torch import Tensor, nn

from audiosr_cli.contract import ModelSpec
from audiosr_cli.errors import UsageError
from audiosr_cli.models import Model, build, make_config
from audiosr_cli.models.averaging import averaged_spec, in_order_of, starts_within_hop
from audiosr_cli.models.runner import ModelCall
from audiosr_cli.streaming.in_memory import process_array
from audiosr_cli.streaming.options import Options

RATE, WINDOW, CONTEXT, HOP = 8000, 320, 32, 200


class Stub(Model):
    """Return what ``sources_of`` makes of the window (B, 1, T), without its context."""

    def __init__(self, sources_of: Callable[[Tensor], Tensor], sources: int = 2) -> None:
        spec = ModelSpec("stub", "separate", RATE, 1, sources, 1, WINDOW, CONTEXT, HOP)
        super().__init__(SimpleNamespace(spec=spec, hop_length=16))
        self.weight = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.sources_of = sources_of

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-1] == self.spec.window
        return self.sources_of(x)[..., CONTEXT:-CONTEXT]


def spectral() -> Model:
    torch.manual_seed(0)
    return build("spectral_unet", make_config("spectral_unet", SPECTRAL)).eval().requires_grad_(False)


def test_starts_are_spread_over_one_hop_of_the_frames() -> None:
    assert starts_within_hop(256, 2) == [0, 128]
    assert starts_within_hop(256, 4) == [0, 64, 128, 192]
    assert starts_within_hop(256, 1) == [0]


def test_frames_are_those_of_the_config_or_16_ms() -> None:
    assert spectral().frame_hop == SPECTRAL["hop_length"]
    model = build("conv_tasnet", make_config("conv_tasnet", {"stride": 8}))
    assert model.frame_hop == 8
    model.config = SimpleNamespace(spec=model.spec)
    assert model.frame_hop == round(0.016 * model.spec.in_rate)


def test_common_windows_have_the_context_of_both() -> None:
    spec = averaged_spec(Stub(lambda x: x).spec, [0, 8])
    assert (spec.window, spec.context, spec.hop, spec.core) == (WINDOW + 8, CONTEXT + 8, HOP, 248)


def test_windows_without_common_output_are_an_error() -> None:
    spec = ModelSpec("tiny", "separate", RATE, 1, 2, 1, 100, 46, 8)
    assert averaged_spec(spec, [0, 7]).core == 1
    with pytest.raises(UsageError, match=r"^tiny: .* windows 8 samples apart, as one yields only 8; .* --quality best"):
        averaged_spec(spec, [0, 8])


@pytest.mark.parametrize("starts", [2, 4])
def test_the_output_is_the_mean_of_all_windows_at_the_same_samples(starts: int) -> None:
    """A source that grows with the place in the window tells by how much each of them was shifted."""
    ramp = torch.arange(WINDOW).float()
    call = ModelCall(Stub(lambda x: torch.stack([x, ramp.expand_as(x)], 1)), starts=starts)
    x = torch.randn(3, 1, call.spec.window, generator=torch.Generator().manual_seed(0))
    output, first = call(x), call.spec.context
    assert output.shape == (3, 2, 1, call.spec.core)
    torch.testing.assert_close(output[:, 0], x[..., first : first + call.spec.core])
    places = torch.arange(first, first + call.spec.core) - sum(starts_within_hop(16, starts)) / starts
    torch.testing.assert_close(output[:, 1], places.expand(3, 1, -1))


def test_sources_of_later_windows_are_put_in_the_order_of_the_first() -> None:
    """The first window of an item has them in one order, the second in another."""
    calls = []

    def sources_of(x: Tensor) -> Tensor:
        calls.append(x)
        parts = torch.stack([x.clamp_min(0), x.clamp_max(0), 0.1 * x], 1)
        return parts if len(calls) == 1 else parts[:, [1, 2, 0]]

    call = ModelCall(Stub(sources_of, 3), starts=2)
    x = torch.randn(2, 1, call.spec.window, generator=torch.Generator().manual_seed(0))
    inner = x[..., call.spec.context : -call.spec.context]
    torch.testing.assert_close(call(x), torch.stack([inner.clamp_min(0), inner.clamp_max(0), 0.1 * inner], 1))


def test_speech_and_the_rest_stay_in_their_order() -> None:
    """A first estimate of speech that is mostly noise would otherwise pull the next ones out of their places."""
    calls = list[int]()

    def sources_of(x: Tensor) -> Tensor:
        calls.append(len(calls))
        share = 0.9 if len(calls) % 2 else 0.2
        rest = torch.roll(x, 5, -1)
        return torch.stack([share * x + (1 - share) * rest, (1 - share) * x + share * rest], 1)

    model = Stub(sources_of)
    model.spec = replace(model.spec, rest=True)
    call = ModelCall(model, starts=2)
    wave = torch.from_numpy(noise(call.spec.window)).unsqueeze(0)
    context = call.spec.context
    expected = 0.55 * wave + 0.45 * torch.roll(wave, 5, -1)
    torch.testing.assert_close(call(wave)[:, 0], expected[..., context:-context])


def test_order_is_decided_for_each_item_and_silence_stays() -> None:
    waves = torch.randn(3, 2, 1, 50, generator=torch.Generator().manual_seed(0))
    reference, estimate = waves.clone(), waves.clone()
    estimate[1] = estimate[1].flip(0)
    reference[2] = estimate[2] = 0
    torch.testing.assert_close(in_order_of(reference, estimate), reference)
    loud = torch.stack([torch.ones(1, 5), torch.zeros(1, 5)])[None]
    torch.testing.assert_close(in_order_of(0 * loud, loud), loud)


def test_opposite_polarity_is_no_match() -> None:
    """Their sum would cancel."""
    wave = torch.randn(1, 1, 50, generator=torch.Generator().manual_seed(0))
    reference = torch.stack([wave, 0.5 * wave], 1)
    estimate = torch.stack([-wave, wave], 1)
    torch.testing.assert_close(in_order_of(reference, estimate), estimate.flip(1))


@pytest.mark.parametrize("frames", [0, 1, 7, 255, 256, 257, 3001])
def test_lengths_stay_exact_and_nothing_is_late(frames: int) -> None:
    wave = noise(frames, 2)
    output = process_array(wave, RATE, [ModelCall(halves(RATE), starts=2)], RATE, Options())
    np.testing.assert_allclose(output, np.stack([wave, wave]) / 2, atol=1e-6)


@pytest.mark.parametrize("sources", [2, 3])
def test_neither_batch_nor_threads_change_the_output(sources: int) -> None:
    torch.manual_seed(0)
    model = build("spectral_unet", make_config("spectral_unet", SPECTRAL | {"sources": sources})).eval()
    call, wave = ModelCall(model.requires_grad_(False), starts=2), noise(3001)
    expected = process_array(wave, RATE, [call], RATE, Options())
    assert expected.shape == (sources, 1, 3001)
    np.testing.assert_allclose(expected.sum(0), wave, atol=1e-5)  # as each window sums to the mixture
    np.testing.assert_allclose(process_array(wave, RATE, [call], RATE, Options(batch=3)), expected, atol=1e-5)
    np.testing.assert_array_equal(process_array(wave, RATE, [call], RATE, Options(threads=3)), expected)
    once = process_array(wave, RATE, [ModelCall(model)], RATE, Options())
    assert np.abs(once - expected).max() > 1e-3  # the second pass counts
