"""Tracks follow channels where each channel holds a voice."""

from __future__ import annotations

import numpy as np
import torch
from conftest import halves

from audiosr_cli.audio.arrays import ArrayReader
from audiosr_cli.streaming.channel_order import ChannelOrder
from audiosr_cli.streaming.options import Options
from audiosr_cli.streaming.pipeline import Pipeline


def voices(seconds: int = 4, rate: int = 8000) -> torch.Tensor:
    """Two noises (2, T) whose levels change independently."""
    generator = torch.Generator().manual_seed(0)
    levels = 10 ** (-1.5 * torch.rand(2, seconds * 10, generator=generator))
    return levels.repeat_interleave(rate // 10, 1) * torch.randn(2, seconds * rate, generator=generator)


def test_each_voice_gets_the_track_of_its_channel() -> None:
    first, second = voices()
    order = ChannelOrder()
    for swap_left in (False, True):
        for swap_right in (False, True):
            left = torch.stack([first, 0.05 * second])
            right = torch.stack([0.05 * first, second])
            core = torch.stack([left.flip(0) if swap_left else left, right.flip(0) if swap_right else right], 1)
            output = order(None, core)
            assert torch.equal(output[0], torch.stack([first, 0.05 * first]))
            assert torch.equal(output[1], torch.stack([0.05 * second, second]))
    assert order.confidence == [1.0] * 4


def test_leakage_alone_is_not_taken_for_the_voice_of_its_channel() -> None:
    """The second speaker is silent, so the loudest source of channel 2 is the first one's leakage."""
    first, second = voices()
    core = torch.stack([torch.stack([first, 0.05 * first]), torch.stack([0.001 * second, 0.001 * second])])
    output = ChannelOrder()(None, core)
    assert torch.equal(output[0], torch.stack([first, 0.05 * first]))


def test_silence_has_an_order() -> None:
    assert torch.equal(ChannelOrder()(None, torch.zeros(2, 2, 100)), torch.zeros(2, 2, 100))


def test_pipeline_finds_calls_and_says_so() -> None:
    call = np.ascontiguousarray(voices(20).numpy() * 0.1, np.float32)
    pipeline = Pipeline((halves(),), None, Options())
    output, report = pipeline.in_memory(ArrayReader(call, 8000))
    assert output.shape == (2, 2, 160_000)
    assert any("each channel holds one speaker" in note for note in report.notes)
    stereo = np.stack([call[0], 0.5 * call[0]])
    assert not pipeline.in_memory(ArrayReader(stereo, 8000))[1].notes
