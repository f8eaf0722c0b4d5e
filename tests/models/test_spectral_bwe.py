"""SpectralBWE: the input below the cutoff, levels, and a cutoff for each item."""

from __future__ import annotations

import torch
from small_models import TOLERANCE, make, signal

from audiosr_cli.dsp.spectra import low_pass, stft
from audiosr_cli.models import Model
from audiosr_cli.models.runner import ModelCall


def bwe(**values: float) -> Model:
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
