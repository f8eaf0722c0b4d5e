"""Models as stages of a stream: resampler → windows → model → order → resampler, blocks in and blocks out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor

import numpy as np
import torch
from torch import Tensor

from audiosr_cli.audio.resample import Resampler, resampled_length
from audiosr_cli.errors import InputError, ModelError
from audiosr_cli.models.runner import ModelRunner, Runnable
from audiosr_cli.models.speaker_encoder import SpeakerEncoder
from audiosr_cli.runtime.device import computes_bf16
from audiosr_cli.streaming.options import Options, Samples
from audiosr_cli.streaming.speakers import Embed, Tracker
from audiosr_cli.streaming.tracking_config import TRACKING
from audiosr_cli.streaming.windows import Engine


class Stage:
    """One model with its resamplers: blocks (C, T) at ``in_rate`` to (S * C, T') at ``out_rate``, streamed.

    Sources lie behind one another, each with its channels. ``model`` None only resamples; ``tracker`` puts the
    sources of a model in order; ``executor`` is where windows are computed.
    """

    def __init__(
        self,
        model: Runnable | None,
        in_rate: int,
        out_rate: int,
        channels: int,
        options: Options,
        embed: Embed | None = None,
        executor: Executor | None = None,
    ) -> None:
        self.in_rate, self.out_rate, self.channels = in_rate, out_rate, channels
        self.model_rate = model.spec.in_rate if model else in_rate
        self.rows = channels * (model.spec.sources if model else 1)
        parts = model is not None and model.spec.sources > 1 and model.spec.inputs == 1
        if model and model.spec.sources > TRACKING.max_sources:
            raise ModelError(
                f"{model.spec.name} separates {model.spec.sources} speakers, but at most {TRACKING.max_sources} can be "
                "tracked; use a model with fewer"
            )
        self.tracker = Tracker(model.spec.channels == 1, embed) if model and parts else None
        self.hop_s = model.spec.hop / model.spec.in_rate if model else 0.0
        self.runner: ModelRunner | None = None
        self._engine = self._make_engine(model, channels, options, executor) if model else None
        between = model.spec.out_rate if model else in_rate
        self._before = Resampler(in_rate, self.model_rate, channels)
        self._after = Resampler(between, out_rate, self.rows)

    def _make_engine(self, model: Runnable, channels: int, options: Options, executor: Executor | None) -> Engine:
        if model.spec.channels not in (1, channels):
            raise InputError(f"{model.spec.name} takes {model.spec.channels} channels, the recording has {channels}")

        here = model.device.type
        bf16 = options.bf16 and (here == options.device or computes_bf16(here))  # it may have had to go to the CPU
        self.runner = ModelRunner(model, options.batch, bf16)
        executor = executor if here == "cpu" else None  # CUDA has threads of its own
        ahead = -(-options.threads // (channels // model.spec.channels)) if executor is not None else 0
        return Engine(model.spec, self.runner, channels, options.batch, self.tracker, executor, ahead)

    def push(self, block: Samples, last: bool = False) -> Samples:
        """What ``block`` completes; ``last`` brings out the rest."""
        block = self._at_model_rate(block, last)
        if self._engine is not None:
            made = self._engine.push(torch.from_numpy(block))
            if last:
                made = torch.cat([made, self._engine.flush()], dim=-1)
            block = made.flatten(0, 1).numpy()
        return self._after.push(block, last)

    def _at_model_rate(self, block: Samples, last: bool) -> Samples:
        """What the model hears of ``block``, if not later."""
        return self._before.push(block, last)


class GuidedStage(Stage):
    """A model that hears the recording and what ``parting`` makes of the same blocks, estimates at the model's rate.

    What comes out is as long as the shorter of the two.
    """

    def __init__(
        self, model: Runnable, parting: Stage, out_rate: int, options: Options, executor: Executor | None = None
    ) -> None:
        if (model.spec.sources * parting.channels, model.spec.in_rate) != (parting.rows, parting.out_rate):
            raise ModelError(f"{model.spec.name} does not go with what it is to restore")
        super().__init__(model, parting.in_rate, out_rate, parting.channels, options, executor=executor)
        self.model_rate = min(self.model_rate, parting.model_rate)
        self.tracker, self.hop_s = parting.tracker, parting.hop_s
        self._parting = parting
        self._waiting = [np.zeros((rows, 0), np.float32) for rows in (parting.channels, parting.rows)]

    def _at_model_rate(self, block: Samples, last: bool) -> Samples:
        """The recording with its estimates behind it, as far as both are there."""
        came = (super()._at_model_rate(block, last), self._parting.push(block, last))
        held = [np.concatenate(pair, axis=1) for pair in zip(self._waiting, came, strict=True)]
        ready = min(part.shape[1] for part in held)
        self._waiting = [part[:, ready:] for part in held]
        return np.concatenate([part[:, :ready] for part in held])


def stream(blocks: Iterable[Samples], stages: Sequence[Stage]) -> Iterator[Samples]:
    """Blocks (C, T) through all ``stages``, the output of one being the input of the next.

    In all, exactly ``round(frames * out_rate / in_rate)`` frames come out, with lag 0 and the input's level.
    Rounding the length at every rate in between may lose a few samples, so zeros follow the last sample,
    as every resampler takes for granted, and the output is cut to its length.
    """
    in_rate, out_rate = stages[0].in_rate, stages[-1].out_rate
    frames_in = frames_out = 0
    for block in blocks:
        frames_in += block.shape[1]
        for stage in stages:
            block = stage.push(block)
        frames_out += block.shape[1]
        yield block
    lowest = min(min(stage.model_rate, stage.out_rate) for stage in stages)
    spare = 2 * len(stages) * (in_rate // lowest + 1) if frames_in else 0
    block = np.zeros((stages[0].channels, spare), np.float32)
    for stage in stages:
        block = stage.push(block, last=True)
    yield block[:, : resampled_length(frames_in, in_rate, out_rate) - frames_out]


def make_stages(
    models: Sequence[Runnable | None],
    in_rate: int,
    out_rate: int,
    channels: int,
    options: Options,
    speaker_encoder: SpeakerEncoder | None = None,
    executor: Executor | None = None,
) -> list[Stage]:
    """A chain of models as stages; between two of them the sound has the second one's input rate.

    Without any it only resamples. ``speaker_encoder`` helps to keep the order of the speakers of a separator. A model
    that takes the mixture and estimates forms one stage with the model before it.
    """
    stages, rate = list[Stage](), in_rate
    models = models or [None]
    for i, model in enumerate(models):
        after = models[i + 1] if i + 1 < len(models) else None
        target = out_rate if after is None else after.spec.in_rate
        if model is not None and model.spec.inputs > 1:
            stages.append(GuidedStage(model, stages.pop(), target, options, executor))
        else:
            embed = embedder(speaker_encoder, model.spec.out_rate if model else 0)
            stages.append(Stage(model, rate, target, channels, options, embed, executor))
        rate, channels = target, stages[-1].rows
    return stages


def embedder(speaker_encoder: SpeakerEncoder | None, rate: int) -> Embed | None:
    """``speaker_encoder`` for waves at ``rate`` Hz; none below the rate that it is for."""
    if speaker_encoder is None or rate < speaker_encoder.spec.in_rate:
        return None

    def embed(waves: Tensor) -> Tensor:
        with torch.inference_mode():
            return speaker_encoder.embed(waves, rate)

    return embed


def stream_with_residual(blocks: Iterable[Samples], stages: Sequence[Stage]) -> Iterator[Samples]:
    """As ``stream``, with what the mixture has beyond the sum of its sources as a last one: (S * C + C, T').

    The rate must not change on the way.
    """
    assert stages[0].in_rate == stages[-1].out_rate
    pending = deque[Samples]()

    def kept() -> Iterator[Samples]:
        for block in blocks:
            pending.append(block)
            yield block

    channels = stages[0].channels
    for made in stream(kept(), stages):
        mix = _take(pending, made.shape[1], channels)
        yield np.concatenate([made, mix - made.reshape(len(made) // channels, *mix.shape).sum(0)])


def _take(pending: deque[Samples], frames: int, channels: int) -> Samples:
    """The first ``frames`` of what is ``pending``, which loses them."""
    taken = [np.zeros((channels, 0), np.float32)]
    while frames:
        block = pending.popleft()
        if block.shape[1] > frames:
            pending.appendleft(block[:, frames:])
        taken.append(block[:, :frames])
        frames -= taken[-1].shape[1]
    return np.concatenate(taken, axis=1)
