"""The order of a window's sources where each of two channels holds a voice of its own, as in a recorded call.

The speaker of a channel gets the track of that number, in both channels: where the other voice leaks into a channel,
the leakage goes to the other track. This needs no memory, so no mistake lasts longer than a window.
"""

from __future__ import annotations

import torch
from torch import Tensor

from audiosr_cli.streaming.tracking_config import TRACKING

_FRAMES = 80  # levels in a window
_RANGE_DB = 40.0  # below the loudest frame, where noise decides the level
# A channel whose levels correlate with those of the other one by more than the first, and lie below them by more than
# the second on average, holds nothing but leakage. Set by hand, November 2026.
_FOLLOWS = 0.8
_LEAKAGE_DB = 8.0
# A source that is louder by so much is its channel's voice as surely as one whose levels are wholly those of the
# channel, while the other source's are wholly those of the other channel. Set by hand, November 2026.
_LOUDER_DB = 20.0


class ChannelOrder:
    """Put the sources of each window onto the tracks of their channels; for two sources and two channels.

    Attributes:
        confidence: 1 for each window.
    """

    def __init__(self) -> None:
        self.confidence: list[float] = []

    def __call__(self, tail: Tensor | None, core: Tensor) -> Tensor:  # noqa: ARG002 - as of every order
        """Order the sources of one window.

        Args:
            tail: Not used.
            core: (2, 2, T), sources by channels.

        Returns:
            (2, 2, T), tracks by channels.
        """
        self.confidence.append(1.0)
        output = torch.empty_like(core)
        mixture = _levels(core.sum(0))  # (2, frames)
        for channel in range(2):
            voice = _voice(core[:, channel], mixture[channel], mixture[1 - channel])
            output[channel, channel] = core[voice, channel]
            output[1 - channel, channel] = core[1 - voice, channel]
        return output


def _voice(sources: Tensor, own: Tensor, other: Tensor) -> int:
    """Return which of the ``sources`` (2, T) of a channel is its voice, from the levels of both channels."""
    power_db = 10 * torch.log10(sources.square().mean(-1) + TRACKING.silence_power)
    louder = int(power_db.argmax())
    if _correlation(own, other) > _FOLLOWS and own.mean() < other.mean() - _LEAKAGE_DB:
        return 1 - louder
    levels = _levels(sources)
    fit = torch.stack([_correlation(level, own) - _correlation(level, other) for level in levels])
    return int((fit + (power_db / _LOUDER_DB).clamp(-10, 10)).argmax())


def _levels(waves: Tensor) -> Tensor:
    """Return levels in dB (N, frames) of waves (N, T), at most 40 dB below the loudest of each."""
    frames = min(_FRAMES, waves.shape[-1])
    used = waves[:, : waves.shape[-1] // frames * frames].reshape(len(waves), frames, -1)
    levels = 10 * torch.log10(used.square().mean(-1) + TRACKING.silence_power)
    return torch.maximum(levels, levels.amax(-1, keepdim=True) - _RANGE_DB)


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return the correlation coefficient of two series (frames,), 0 if one of them is constant."""
    first, second = first - first.mean(), second - second.mean()
    correlation: Tensor = (first @ second) / (first.norm() * second.norm()).clamp_min(1e-9)
    return correlation
