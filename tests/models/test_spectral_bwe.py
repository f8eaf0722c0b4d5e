"""SpectralBWE: the input below the cutoff, levels, and a cutoff for each item."""

from __future__ import annotations

import pytest
import torch
from small_models import TOLERANCE, make, signal

from audiosr_cli.dsp.spectra import low_pass, stft
from audiosr_cli.models import Model
from audiosr_cli.models.runner import ModelCall


def bwe(**values: float | str) -> Model:
    return make("spectral_bwe", {"hidden": 8, "blocks": 1, "margin": 12, "frames": 32} | values).eval()


def test_keeps_what_lies_below_the_cutoff() -> None:
    model = bwe()
    x = low_pass(signal(model, model.spec.window)[:, 0], torch.tensor([6200.0]), torch.tensor([0.02]), 48000)
    with torch.no_grad():
        output = ModelCall(model, 6000.0)(x.unsqueeze(1))[0, 0, 0]
    inside = x[0, model.spec.context : -model.spec.context]
    before, after = stft(torch.stack([inside, output]), 1024, 256)
    low, high = slice(0, round((6000 - 400) / 46.875)), slice(round(6500 / 46.875), None)
    assert (before - after)[low].abs().mean() < 1e-2 * before[low].abs().mean()
    assert after[high].abs().mean() > 10 * before[high].abs().mean()


def test_gain_in_is_gain_out_and_silence_stays_silent() -> None:
    model = bwe()
    x = signal(model, model.spec.window)
    with torch.no_grad():
        torch.testing.assert_close(model(-0.01 * x), -0.01 * model(x), rtol=0, atol=1e-6)
        assert not model(0 * x).any()


def test_each_item_has_its_own_cutoff() -> None:
    model, cutoffs = bwe(), torch.tensor([3000.0, 11000.0])
    x = signal(model, model.spec.window, 2)
    with torch.no_grad():
        both = model(x, cutoff_hz=cutoffs)
        for one, output, cutoff in zip(x, both, cutoffs, strict=True):
            alone = ModelCall(model, float(cutoff))(one[None])[0]
            torch.testing.assert_close(alone, output, rtol=0, atol=TOLERANCE)
    assert not torch.allclose(both[0], model(x)[0], atol=1e-2)


def levels(merge: str, content_hz: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Restore noise that falls by 50 dB at ``content_hz`` with a cutoff of 12 kHz: input and output (F,) in dB."""
    model = bwe(merge=merge)
    noise = signal(model, model.spec.window)[:, 0]
    x = 0.003 * noise + low_pass(noise, torch.tensor([content_hz]), torch.tensor([0.005]), 48000)
    with torch.no_grad():
        output = ModelCall(model, 12000.0)(x.unsqueeze(1))[0, 0]
    inside = x[:, model.spec.context : -model.spec.context]
    power = stft(torch.cat([inside, output]), 1024, 256)[..., 4:-4].abs().square().mean(-1)
    return tuple(10 * power.log10())


@pytest.mark.parametrize("merge", ["crossfade", "fill"])
def test_a_hole_below_the_cutoff_is_filled_by_the_merge_that_is_called_so(merge: str) -> None:
    before, after = levels(merge, 10900.0)
    hole, above = slice(round(11550 / 46.875), round(11700 / 46.875)), slice(round(12500 / 46.875), None)
    assert before[hole].max() < after[above].mean() - 15
    assert (after[hole].mean() > after[above].mean() - 10) == (merge == "fill")


def test_filling_adds_nothing_to_a_complete_spectrum() -> None:
    before, after = levels("fill", 12300.0)
    complete = slice(round(9000 / 46.875), round(11950 / 46.875))
    torch.testing.assert_close(after[complete], before[complete], rtol=0, atol=0.1)
