"""Models of speech and the rest in the stream: one output in a fixed order, without tracking."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import denoiser, noise, restorer, tone

from audiosr_cli.audio.arrays import ArrayReader
from audiosr_cli.streaming.in_memory import process_array
from audiosr_cli.streaming.options import Options
from audiosr_cli.streaming.pipeline import Pipeline
from audiosr_cli.streaming.stages import make_stages

OPTIONS = Options()


def test_the_order_is_fixed_whatever_the_windows_hold() -> None:
    """Where speech pauses the rest is louder, and a tracker would take it for the speaker."""
    model = denoiser()
    forward = model.forward

    def louder_rest(x: torch.Tensor) -> torch.Tensor:
        return forward(x) * torch.tensor([0.01, 4.0]).view(1, 2, 1, 1)

    wave = tone(8000, rate=8000)
    wave[:, 4000:] = noise(4000)
    model.forward = louder_rest  # type: ignore[method-assign]
    (stage,) = make_stages([model], 8000, 8000, 1, OPTIONS)
    assert stage.tracker is None
    np.testing.assert_allclose(process_array(wave, 8000, [model], 8000, OPTIONS)[0], 0.0075 * wave, atol=1e-6)


def test_every_channel_is_processed_by_itself() -> None:
    wave = np.concatenate([noise(5000), 0.3 * noise(5000), 0 * noise(5000)])
    output = process_array(wave, 8000, [denoiser()], 8000, OPTIONS)
    np.testing.assert_allclose(output, 0.75 * wave[None], atol=1e-6)


def test_channels_of_a_call_keep_their_places() -> None:
    """Each channel holds a voice of its own, but there is one track, so none is swapped."""
    levels = 10 ** (-1.5 * np.random.default_rng(0).random((2, 200)))
    call = (np.repeat(levels, 800, 1) * noise(160_000, 2)).astype(np.float32)
    output, report = Pipeline((denoiser(),), None, OPTIONS).in_memory(ArrayReader(call, 8000))
    assert not report.notes
    np.testing.assert_allclose(output[0], 0.75 * call, atol=1e-6)


@pytest.mark.parametrize("frames", [0, 1, 7, 4410, 30_001])
@pytest.mark.parametrize("models", [1, 2])
def test_exact_length(frames: int, models: int) -> None:
    chain = [denoiser(), restorer()][:models]
    assert process_array(noise(frames, 2), 11025, chain, 44100, OPTIONS).shape == (1, 2, 4 * frames)


def test_a_restorer_gets_the_rest_and_does_not_return_it() -> None:
    """Fresh, it gives speech as much of the mixture's high band as speech has of the low one."""
    wave = noise(16000, 2)
    speech = process_array(wave, 16000, [denoiser(), restorer()], 16000, OPTIONS)
    assert speech.shape == (1, 2, 16000)
    high = slice(5000, 7500)
    power = [np.square(np.abs(np.fft.rfft(x, axis=-1)[..., high])).sum() for x in (speech, wave)]
    assert power[0] / power[1] == pytest.approx(0.75**2, rel=0.3)


@pytest.mark.parametrize("models", [1, 2])
def test_shared_hum_goes_to_speech_alone(models: int) -> None:
    wave = noise(16000) + 0.2
    chain = [denoiser(), restorer()][:models]
    kept = process_array(wave, 16000, chain, 16000, Options(hum="share"))
    removed = process_array(wave, 16000, chain, 16000, Options(hum="remove"))
    assert removed.mean() == pytest.approx(0, abs=0.01)
    assert kept.mean() == pytest.approx(0.2, abs=0.02)
