"""streaming/voice_windows.py: which samples of a signal the windows of its sources hold."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from conftest import noise
from torch import Tensor

from audiosr_cli.contract import ModelSpec
from audiosr_cli.streaming.counting_config import COUNTING
from audiosr_cli.streaming.voice_windows import VoiceWindows
from audiosr_cli.streaming.windows import Engine

RATE = 8000
SPEC = ModelSpec("halves", "separate", RATE, 1, 2, 1, window=36000, context=1000, hop=20000)


def halves(x: Tensor) -> Tensor:
    return 0.5 * x[:, None, :, 1000:-1000].expand(-1, 2, -1, -1)


class Recorder:
    """Keeps the windows that it gets."""

    def __init__(self) -> None:
        self.waves = list[Tensor]()

    def embed(self, waves: Tensor, sample_rate: int) -> Tensor:
        self.waves.append(waves)
        return torch.ones(len(waves), 1)


@pytest.mark.parametrize("size", [100, 70000])
def test_noise_is_asked_for_by_the_samples_that_a_window_holds(size: int) -> None:
    signal, recorder, parts = torch.from_numpy(noise(60000)), Recorder(), list[range]()

    def is_noise(part: range) -> bool:
        parts.append(part)
        return False

    windows = VoiceWindows(cast("Any", recorder), RATE, SPEC.hop, COUNTING, is_noise)
    engine = Engine(SPEC, halves, align=windows)
    for start in range(0, 60000, size):
        engine.push(signal[:, start : start + size])
    engine.flush()
    padded = torch.cat([signal[0], torch.zeros(20000)])
    assert parts[0].start == 0
    assert parts[-1].stop > 60000 - 8192
    for part, waves in zip(parts, recorder.waves, strict=True):
        torch.testing.assert_close(waves, 0.5 * padded[part.start : part.stop].expand(2, -1))


def test_without_windows_nobody_speaks() -> None:
    windows = VoiceWindows(None, RATE, SPEC.hop, COUNTING)
    assert windows.overlap(2, 0.25) == 0
    assert len(windows.speech().embeddings) == 0
