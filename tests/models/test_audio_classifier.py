"""models/audio_classifier.py: logits for any length and level, and what the features leave out."""

from __future__ import annotations

import pytest
import torch
from conftest import noise, tone
from torch import Tensor

from audiosr_cli.models import build, make_config
from audiosr_cli.models.audio_classifier import AudioClassifier

SMALL = {"widths": [4, 6], "time_strides": [1, 2], "features": 5}


def small() -> AudioClassifier:
    torch.manual_seed(0)
    model = build("audio_classifier", make_config("audio_classifier", SMALL))
    assert isinstance(model, AudioClassifier)
    return model.eval().requires_grad_(False)


def wave(seconds: float = 2.0) -> Tensor:
    """A tone in noise, (1, 1, T)."""
    frames = round(seconds * 8000)
    return torch.from_numpy(tone(frames, 500, 8000) + noise(frames))[None]


@pytest.mark.parametrize("length", [1, 100, 511, 16000, 30001])
def test_every_length_has_one_logit_for_each_class(length: int) -> None:
    logits = small()(wave(4.0)[..., :length])
    assert logits.shape == (1, 3)
    assert logits.isfinite().all()


def test_silence_has_logits() -> None:
    assert small()(torch.zeros(2, 1, 16000)).isfinite().all()


@pytest.mark.parametrize("gain", [1e-3, 30.0])
def test_the_level_does_not_matter(gain: float) -> None:
    torch.testing.assert_close(small()(gain * wave()), small()(wave()), atol=1e-4, rtol=0)


def test_what_is_more_than_70_db_below_the_loudest_band_does_not_matter() -> None:
    clean = torch.from_numpy(tone(16000, 500, 8000))[None]
    features = [
        small().features(clean[:, 0] + torch.from_numpy(noise(16000, level=level))) for level in (0, 1e-6, 1e-2)
    ]
    torch.testing.assert_close(features[0], features[1], atol=1e-3, rtol=0)
    assert (features[0] - features[2]).abs().max() > 1


def test_recordings_in_a_batch_do_not_influence_each_other() -> None:
    model, other = small(), torch.from_numpy(noise(16000, level=1.0))[None]
    torch.testing.assert_close(model(torch.cat([wave(), other]))[:1], model(wave()), atol=1e-5, rtol=0)


def test_gradients_reach_every_parameter() -> None:
    model = small().train().requires_grad_(True)
    (model(torch.randn(4, 1, 16000)) * torch.randn(4, 3)).sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name
