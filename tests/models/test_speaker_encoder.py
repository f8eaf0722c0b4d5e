"""models/speaker_encoder.py: unit vectors at any rate, level, length and for silence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import noise
from torch import Tensor

from audiosr_cli.checkpoints.store import load_model
from audiosr_cli.models import build, make_config
from audiosr_cli.models.speaker_encoder import SpeakerEncoder


def bundled() -> SpeakerEncoder:
    model = load_model("speaker_encoder")
    assert isinstance(model, SpeakerEncoder)
    return model


def buzz(hz: float, rate: int, seconds: float = 2.0) -> Tensor:
    """A pulse train with a formant, (T,): much the same at every rate."""
    time = torch.arange(round(seconds * rate)) / rate
    partials = torch.arange(1, int(3800 / hz))
    weight = 1 / (1 + ((partials * hz - 5 * hz) / 300) ** 2)
    return 0.1 * (weight[:, None] * torch.sin(2 * torch.pi * hz * partials[:, None] * time)).sum(0)


def test_vectors_have_length_one_and_silence_none() -> None:
    waves = torch.stack([buzz(120, 8000), torch.zeros(16000)])
    with torch.no_grad():
        vectors = bundled().embed(waves, 8000)
    assert vectors.norm(dim=1).tolist() == pytest.approx([1, 0], abs=1e-5)


@pytest.mark.parametrize("length", [1, 10, 100, 1000])
def test_any_length(length: int) -> None:
    with torch.no_grad():
        assert bundled().embed(buzz(120, 8000)[None, :length], 8000).isfinite().all()


def test_level_does_not_matter_and_rate_hardly() -> None:
    model = bundled()
    with torch.no_grad():
        vector = model.embed(buzz(120, 8000)[None], 8000)
        assert float((vector * model.embed(buzz(120, 8000)[None] * 0.01, 8000)).sum()) > 0.999
        for rate in (16000, 44100):
            other = model.embed(buzz(120, rate)[None], rate)
            assert float((vector * other).sum()) > 0.9


LARGER = {"width": 8, "size": 4, "residual": True, "pooled": 12, "attention": 6}


def test_attention_sees_speech_only() -> None:
    """What is far below the loudest frames changes neither the statistics nor the attention of a network."""
    torch.manual_seed(0)
    model = build("speaker_encoder", make_config("speaker_encoder", LARGER | {"dilations": (1,)})).eval()
    speech = buzz(120, 8000)
    quiet = [torch.cat([speech, 1e-3 * torch.from_numpy(noise(8000, seed=seed)[0])])[None, None] for seed in (1, 2)]
    with torch.no_grad():
        torch.testing.assert_close(model(quiet[0]), model(quiet[1]), atol=0.02, rtol=0)


@pytest.mark.parametrize("values", [{"width": 8, "size": 4}, LARGER], ids=["plain", "larger"])
def test_gradients_reach_every_parameter(values: dict[str, Any]) -> None:
    model = build("speaker_encoder", make_config("speaker_encoder", values))
    vectors = model(torch.randn(4, 1, 16000))
    (vectors * torch.randn(4, 4)).sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name
