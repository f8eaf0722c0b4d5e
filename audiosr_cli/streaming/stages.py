"""Models as stages of a stream: resampler → windows → model → speaker order → resampler."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor

import numpy as np
import torch
from torch import Tensor

from audiosr_cli.audio.resample import Resampler, resampled_length
from audiosr_cli.dsp.hum import InterferenceFilter
from audiosr_cli.errors import InputError, ModelError
from audiosr_cli.models.runner import ModelRunner, Runnable
from audiosr_cli.models.speaker_encoder import SpeakerEncoder
from audiosr_cli.runtime.device import computes_bf16
from audiosr_cli.runtime.device_names import device_type
from audiosr_cli.streaming.channel_order import ChannelOrder
from audiosr_cli.streaming.options import Options, Samples
from audiosr_cli.streaming.speakers import Embed, Tracker
from audiosr_cli.streaming.tracking_config import TRACKING
from audiosr_cli.streaming.windows import Engine, skipping


class Stage:
    """Stream blocks (C, T) at ``in_rate`` through one model, with resamplers before and after it.

    The output is (S * C, T') at ``out_rate``: the C channels of the first source, then those of the second, and so on.

    Args:
        model: None only resamples.
        in_rate: Hz.
        out_rate: Hz.
        channels: Channels C of the input.
        options: How the recording is processed.
        embed: Speaker encoder for waveforms at the model's output rate, if any.
        executor: Computes the windows; by default the calling thread.
        outputs: Sources S of the output, the model's first ones; None leaves out only the rest, see ``ModelSpec.rest``.
        is_wanted: Windows whose output is needed, see `skipping`; None for all.

    Attributes:
        model_rate: The model's input rate in Hz.
        rows: S * C.
        speakers: Sources of the model that hold speech.
        tracker: Puts the sources of a separator in order; None for other models.
        filter: Keeps DC, rumble and hum from a separator; None for other models, and if the options say so.
        hop_s: Seconds from one window to the next.
        runner: Runs the model; None without a model.

    Raises:
        ModelError: If the model has more sources than can be tracked.
        InputError: If the model takes another number of channels.
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
        outputs: int | None = None,
        is_wanted: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.in_rate, self.out_rate, self.channels = in_rate, out_rate, channels
        self.model_rate = model.spec.in_rate if model else in_rate
        self.speakers, sources = (model.spec.speakers, model.spec.sources) if model else (1, 1)
        self.rows = channels * (outputs or self.speakers)
        separates = model is not None and sources > 1 and model.spec.inputs == 1
        if model and sources > TRACKING.max_sources:
            raise ModelError(
                f"{model.spec.name} separates {sources} speakers, but at most {TRACKING.max_sources} can be "
                "tracked; use a model with fewer"
            )
        self.tracker: Tracker | ChannelOrder | None = None
        if model and separates and self.speakers > 1:
            by_channel = options.voices_by_channel and (self.speakers, channels) == (2, 2)
            self.tracker = ChannelOrder() if by_channel else Tracker(model.spec.channels == 1, embed)
        self.hop_s = model.spec.hop / model.spec.in_rate if model else 0.0
        self.filter = InterferenceFilter(self.model_rate, channels) if separates and options.hum != "keep" else None
        self._shared = Sharing(channels, self.speakers) if self.filter and options.hum == "share" else None
        self.runner: ModelRunner | None = None
        self._engine = self._make_engine(model, channels, options, executor, is_wanted) if model else None
        model_out_rate = model.spec.out_rate if model else in_rate
        self._before = Resampler(in_rate, self.model_rate, channels)
        self._after = Resampler(model_out_rate, out_rate, self.rows)

    @property
    def warnings(self) -> list[str]:
        """What had to be changed for lack of memory."""
        return self.runner.warnings if self.runner else []

    def _make_engine(
        self,
        model: Runnable,
        channels: int,
        options: Options,
        executor: Executor | None,
        is_wanted: Callable[[Tensor], Tensor] | None,
    ) -> Engine:
        if model.spec.channels not in (1, channels):
            raise InputError(
                f"{model.spec.name} takes {model.spec.channels} channels, but the recording has {channels}; "
                "use another model"
            )
        device = model.device.type
        # For lack of CUDA memory the model may have moved to a CPU, where bfloat16 may be slow.
        bf16 = options.bf16 and (device == device_type(options.device) or computes_bf16(device))
        self.runner = ModelRunner(model, options.batch, bf16)
        executor = executor if device == "cpu" else None  # CUDA needs no threads
        # A model of one channel turns each window into as many signals as there are channels.
        ahead = -(-options.threads // (channels // model.spec.channels)) if executor is not None else 0
        spec, forward = (model.spec, self.runner) if is_wanted is None else skipping(model.spec, self.runner, is_wanted)
        return Engine(spec, forward, channels, options.batch, self.tracker, executor, ahead)

    def push(self, block: Samples, last: bool = False) -> Samples:
        """Process a block.

        Args:
            block: (C, T) float32.
            last: Whether this is the last block: all remaining output is returned.

        Returns:
            The output that is ready, (S * C, T').
        """
        block = self._model_input(block, last)
        if self._engine is not None:
            output = self._engine.push(torch.from_numpy(block))
            if last:
                output = torch.cat([output, self._engine.flush()], dim=-1)
            block = output.flatten(0, 1)[: self.rows].numpy()
        if self._shared is not None:
            block = self._shared.add_to(block)
        return self._after.push(block, last)

    def _model_input(self, block: Samples, last: bool) -> Samples:
        """Return the model's input that is ready after ``block``."""
        return self._filtered(self._before.push(block, last), last)

    def _filtered(self, block: Samples, last: bool) -> Samples:
        """Return the filter's output that is ready after ``block``; what it removes is shared if the options say so."""
        if self.filter is None:
            return block
        block, removed = self.filter.push(block, last)
        if self._shared is not None:
            self._shared.push(removed)
        return block


class Sharing:
    """What was removed from a separator's input, in equal shares for its speakers.

    Args:
        channels: Channels C of the input.
        speakers: Speakers, the first ones of the separator's sources.
    """

    def __init__(self, channels: int, speakers: int) -> None:
        self._pending, self._speakers = np.zeros((channels, 0), np.float32), speakers

    def push(self, removed: Samples) -> None:
        """Append what was removed, (C, T)."""
        self._pending = np.concatenate([self._pending, removed], axis=1)

    def add_to(self, block: Samples) -> Samples:
        """Return the next outputs (S * C, T), those of speakers with their shares added."""
        frames = block.shape[1]
        shares = np.tile(self._pending[:, :frames] / np.float32(self._speakers), (self._speakers, 1))
        self._pending = self._pending[:, frames:]
        return np.concatenate([block[: len(shares)] + shares, block[len(shares) :]])


class GuidedStage(Stage):
    """Stream a recording and the sources that a separator estimates from it through a restorer.

    The sources include the rest, if the separator has one; the output does not.

    Args:
        model: The restorer; its input is the recording followed by the estimates.
        separator: The stage that makes the estimates, at the restorer's input rate.
        out_rate: Hz.
        options: How the recording is processed.
        executor: Computes the windows; by default the calling thread.

    Raises:
        ModelError: If the separator's sources or rate are not those that the restorer takes.
    """

    def __init__(
        self, model: Runnable, separator: Stage, out_rate: int, options: Options, executor: Executor | None = None
    ) -> None:
        if (model.spec.sources * separator.channels, model.spec.in_rate) != (separator.rows, separator.out_rate):
            raise ModelError(
                f"{model.spec.name} restores {model.spec.sources} sources at {model.spec.in_rate} Hz, but the "
                f"separator returns {separator.rows // separator.channels} at {separator.out_rate} Hz"
            )
        channels, speakers = separator.channels, separator.speakers
        super().__init__(model, separator.in_rate, out_rate, channels, options, executor=executor, outputs=speakers)
        self.model_rate = min(self.model_rate, separator.model_rate)
        self.tracker, self.hop_s, self.filter = separator.tracker, separator.hop_s, separator.filter
        self._separator = separator
        self._pending = [np.zeros((rows, 0), np.float32) for rows in (separator.channels, separator.rows)]

    def _model_input(self, block: Samples, last: bool) -> Samples:
        """Return the recording followed by the estimates, as far as both are ready."""
        new = (self._before.push(block, last), self._separator.push(block, last))
        signals = [np.concatenate(pair, axis=1) for pair in zip(self._pending, new, strict=True)]
        ready = min(signal.shape[1] for signal in signals)
        self._pending = [signal[:, ready:] for signal in signals]
        return np.concatenate([signal[:, :ready] for signal in signals])


def stream(blocks: Iterable[Samples], stages: Sequence[Stage]) -> Iterator[Samples]:
    """Send blocks through all stages, the output of one being the input of the next.

    Args:
        blocks: (C, T) float32 at the first stage's input rate.
        stages: At least one.

    Yields:
        Blocks (S * C, T') at the last stage's output rate: in total ``round(frames * out_rate / in_rate)`` frames,
        without delay or change of level.
    """
    in_rate, out_rate = stages[0].in_rate, stages[-1].out_rate
    frames_in = frames_out = 0
    for block in blocks:
        frames_in += block.shape[1]
        for stage in stages:
            block = stage.push(block)
        frames_out += block.shape[1]
        yield block
    # Each stage rounds its length and may so lose a sample at its own rate. Zeros after the last sample make up for
    # them, and the output is cut to its length.
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
    """Turn a chain of models into stages; between two models the signal has the second one's input rate.

    A restorer, which takes a mixture and estimates of its sources, forms one stage with the separator before it.

    Args:
        models: In the order of processing; without any, one stage resamples.
        in_rate: Hz.
        out_rate: Hz.
        channels: Channels of the recording.
        options: How the recording is processed.
        speaker_encoder: Helps to keep the speakers of a separator on their tracks.
        executor: Computes the windows; by default the calling thread.

    Returns:
        The stages, for `stream`.

    Raises:
        ModelError: If models do not fit each other, or a separator has too many sources.
        InputError: If a model takes another number of channels.
    """
    stages, rate = list[Stage](), in_rate
    models = models or [None]
    for i, model in enumerate(models):
        following = models[i + 1] if i + 1 < len(models) else None
        target = out_rate if following is None else following.spec.in_rate
        if model is not None and model.spec.inputs > 1:
            stages.append(GuidedStage(model, stages.pop(), target, options, executor))
        else:
            embed = embedder(speaker_encoder, model.spec.out_rate if model else 0)
            guides = model is not None and following is not None and following.spec.inputs > 1
            outputs = model.spec.sources if model and guides else None
            stages.append(Stage(model, rate, target, channels, options, embed, executor, outputs))
        rate, channels = target, stages[-1].rows
    return stages


def embedder(speaker_encoder: SpeakerEncoder | None, rate: int) -> Embed | None:
    """Return ``speaker_encoder`` for waveforms at ``rate`` Hz, or None if that is below its own rate."""
    if speaker_encoder is None or rate < speaker_encoder.spec.in_rate:
        return None

    def embed(waves: Tensor) -> Tensor:
        with torch.inference_mode():
            return speaker_encoder.embed(waves, rate)

    return embed


def stream_with_residual(blocks: Iterable[Samples], stages: Sequence[Stage]) -> Iterator[Samples]:
    """Do the same as `stream`, and append the residual: the input minus the sum of all sources.

    Args:
        blocks: (C, T) float32.
        stages: Whose output rate must be their input rate.

    Yields:
        Blocks (S * C + C, T').
    """
    assert stages[0].in_rate == stages[-1].out_rate
    pending = deque[Samples]()

    def copied() -> Iterator[Samples]:
        for block in blocks:
            pending.append(block)
            yield block

    channels = stages[0].channels
    for output in stream(copied(), stages):
        mixture = _take(pending, output.shape[1], channels)
        total = output.reshape(len(output) // channels, *mixture.shape).sum(0)
        yield np.concatenate([output, mixture - total])


def _take(pending: deque[Samples], frames: int, channels: int) -> Samples:
    """Remove the first ``frames`` frames from the blocks in ``pending``, and return them (C, T)."""
    pieces = [np.zeros((channels, 0), np.float32)]
    while frames:
        block = pending.popleft()
        if block.shape[1] > frames:
            pending.appendleft(block[:, frames:])
        pieces.append(block[:, :frames])
        frames -= pieces[-1].shape[1]
    return np.concatenate(pieces, axis=1)
