"""A stage that restores stretches of a recording, each above its own cutoff, and passes the rest.

One stage for each cutoff gets the whole signal, so that a stretch has real context on both sides, but its network runs
only where a stretch is. What the stages return is mixed, sample by sample, with the resampled input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiosr_cli.models.runner import ModelCall, Runnable
from audiosr_cli.models.speaker_encoder import SpeakerEncoder
from audiosr_cli.streaming.options import Options, Samples
from audiosr_cli.streaming.stages import Stage, make_stages
from audiosr_cli.streaming.stretches import FADE_S, Stretch

# Seconds on each side of a stretch that are restored, too: the resampler's filter reaches so far.
_MARGIN_S = 0.05


@dataclass(frozen=True)
class Restored:
    """A channel's part of the output that is restored.

    Args:
        channel: Counted from 0.
        start_s: Where its fade-in begins, in seconds; minus infinity for the beginning.
        end_s: Where its fade-out ends; infinite for the end.
    """

    channel: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class StretchedCall(ModelCall):
    """A model, with the arguments of each stretch of a recording.

    Args:
        parts: For each cutoff the model with its arguments, and what it restores.
    """

    parts: tuple[tuple[ModelCall, tuple[Restored, ...]], ...] = ()

    @cached_property
    def _begins(self) -> set[tuple[int, float]]:
        return {(span.channel, max(0.0, span.start_s)) for _, spans in self.parts for span in spans}

    def restores(self, stretch: Stretch) -> bool:
        """Return whether a stretch of the recording is restored."""
        return ((stretch.channel or 1) - 1, stretch.start_s) in self._begins


def stretched_call(stretches: Sequence[Stretch], calls: Sequence[ModelCall | None], channels: int) -> StretchedCall:
    """Plan the restoration of a recording.

    Args:
        stretches: Of the recording, in the order of channels and times.
        calls: The model with its arguments for each stretch; None for those that need none. At least one is not None.
        channels: Channels of the recording.
    """
    parts = dict[float | None, tuple[ModelCall, list[Restored]]]()
    for channel in range(channels):
        own = [pair for pair in zip(stretches, calls, strict=True) if pair[0].channel in (None, channel + 1)]
        for before, (stretch, call), after in zip([None, *own], own, [*own[1:], None], strict=False):
            if call is None:
                continue
            start_s = stretch.start_s if before else -math.inf
            end_s = stretch.end_s + (FADE_S if after and after[1] else 0.0) if after else math.inf
            parts.setdefault(call.cutoff_hz, (call, []))[1].append(Restored(channel, start_s, end_s))
    first = next(iter(parts.values()))[0]
    return StretchedCall(
        first.model, None, first.sampling, first.starts, tuple((call, tuple(spans)) for call, spans in parts.values())
    )


class StretchStage(Stage):
    """Stream a recording through the models of its stretches.

    Args:
        call: The models.
        in_rate: Hz.
        out_rate: Hz.
        channels: Channels C of the input.
        options: How the recording is processed.
        executor: Computes the windows; by default the calling thread.

    Raises:
        InputError: If the model takes another number of channels.
    """

    def __init__(
        self,
        call: StretchedCall,
        in_rate: int,
        out_rate: int,
        channels: int,
        options: Options,
        executor: Executor | None = None,
    ) -> None:
        super().__init__(None, in_rate, out_rate, channels, options)
        self._parts = [_Part(part, spans, in_rate, out_rate, channels, options, executor) for part, spans in call.parts]
        self.model_rate = min(part.stage.model_rate for part in self._parts)
        self.hop_s = self._parts[0].stage.hop_s
        self._pending = np.zeros((channels, 0), np.float32)
        self._done = 0

    @property
    def warnings(self) -> list[str]:
        """What had to be changed for lack of memory."""
        return list(dict.fromkeys(line for part in self._parts for line in part.stage.warnings))

    def push(self, block: Samples, last: bool = False) -> Samples:
        """Process a block, see ``Stage``."""
        self._pending = np.concatenate([self._pending, super().push(block, last)], axis=1)
        for part in self._parts:
            part.push(block, last)
        ready = min(self._pending.shape[1], *(part.ready for part in self._parts))
        plain, self._pending = self._pending[:, :ready], self._pending[:, ready:]
        output = plain.copy()
        for part in self._parts:
            part.mix(output, plain, self._done)
        self._done += ready
        return output


class _Part:
    """One model of a ``StretchStage``, with the channels that it restores."""

    def __init__(
        self,
        call: ModelCall,
        spans: Sequence[Restored],
        in_rate: int,
        out_rate: int,
        channels: int,
        options: Options,
        executor: Executor | None,
    ) -> None:
        every = call.spec.channels > 1  # such a model needs all channels
        self._channels = list(range(channels)) if every else sorted({span.channel for span in spans})
        spec, wanted = call.spec, _intervals(spans, call.spec.in_rate, _MARGIN_S)

        def is_wanted(position: Tensor) -> Tensor:
            """Return for each window that begins at ``position`` (B,) whether its core is in a stretch."""
            start = position.unsqueeze(1) + spec.context
            return ((start < wanted[1]) & (start + spec.window - 2 * spec.context > wanted[0])).any(1)

        self.stage = Stage(
            call, in_rate, out_rate, len(self._channels), options, executor=executor, is_wanted=is_wanted
        )
        self._fades = {
            channel: _Fades([span for span in spans if span.channel == channel], out_rate)
            for channel in {span.channel for span in spans}
        }
        self._pending = np.zeros((len(self._channels), 0), np.float32)

    @property
    def ready(self) -> int:
        """Samples of the output that are ready to be mixed."""
        return self._pending.shape[1]

    def push(self, block: Samples, last: bool) -> None:
        """Process a block (C, T) of all channels."""
        self._pending = np.concatenate([self._pending, self.stage.push(block[self._channels], last)], axis=1)

    def mix(self, output: Samples, plain: Samples, at: int) -> None:
        """Crossfade ``output`` (C, T), which begins at sample ``at``, from ``plain`` (C, T) to what was restored."""
        frames = output.shape[1]
        restored, self._pending = self._pending[:, :frames], self._pending[:, frames:]
        for channel, fades in self._fades.items():
            weight, row = fades.weight(at, frames), restored[self._channels.index(channel)]
            output[channel] += weight * (row - plain[channel])
            np.copyto(output[channel], row, where=weight == 1)


class _Fades:
    """By how much a channel is restored, for each sample."""

    def __init__(self, spans: Sequence[Restored], rate: int) -> None:
        self._start, self._end = (edges.astype(np.float64) for edges in _intervals(spans, rate, 0.0).numpy())
        self._length = round(FADE_S * rate)

    def weight(self, at: int, frames: int) -> NDArray[np.float32]:
        """Return the weights of ``frames`` samples from ``at`` on."""
        weight = np.zeros(frames, np.float32)
        time = np.arange(at, at + frames) + 0.5
        for i in np.flatnonzero((self._start < at + frames) & (self._end > at)):
            rise, fall = (time - self._start[i]) / self._length, (self._end[i] - time) / self._length
            weight = np.maximum(weight, np.clip(np.minimum(rise, fall), 0, 1).astype(np.float32))
        return weight


def _intervals(spans: Sequence[Restored], rate: int, margin_s: float) -> Tensor:
    """Return the first and last samples of ``spans`` at ``rate`` Hz, (2, N)."""
    times = [(span.start_s - margin_s, span.end_s + margin_s) for span in spans]
    edges = [[round(max(-1e12, min(1e12, second * rate))) for second in pair] for pair in times]
    return torch.tensor(edges).T


def stages_for(
    models: Sequence[Runnable | None],
    in_rate: int,
    out_rate: int,
    channels: int,
    options: Options,
    speaker_encoder: SpeakerEncoder | None = None,
    executor: Executor | None = None,
) -> list[Stage]:
    """Do the same as `make_stages`, also for a ``StretchedCall``, which is the only model then."""
    if models and isinstance(models[0], StretchedCall):
        return [StretchStage(models[0], in_rate, out_rate, channels, options, executor)]
    return make_stages(models, in_rate, out_rate, channels, options, speaker_encoder, executor)
