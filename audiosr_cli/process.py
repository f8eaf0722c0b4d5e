"""The way of one recording: reader → resampler → windows → model → order → resampler → gate → writers."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiosr_cli.audio.read import BLOCK, AudioReader
from audiosr_cli.audio.resample import Resampler, resampled_length
from audiosr_cli.audio.wav import check_shape
from audiosr_cli.audio.write import AudioWriter, ClipPolicy, OutputFormat
from audiosr_cli.errors import InputError, ModelError, UsageError
from audiosr_cli.models import Model
from audiosr_cli.models.voice import Voice as VoiceModel
from audiosr_cli.tracking import MOST_SOURCES, Tracker, Voice
from audiosr_cli.windows import Engine

Samples = NDArray[np.float32]
Progress = Callable[[int], None]  # frames read so far
Channels = Literal["each", "mix"] | int  # every channel by itself, their mean, or one of them, counted from 1

_HARDLY_DB = 20.0  # a track so far below the loudest one is hardly anybody's
_UNSURE = 0.75  # probability of the order of speakers below which the report warns


@dataclass(frozen=True)
class Options:
    """How a recording is processed, whatever is done to it. ``batch`` windows go through a model at once."""

    device: str = "cpu"
    batch: int = 1
    clip: ClipPolicy = "warn"
    channels: Channels = "each"

    def count(self, channels: int, name: str) -> int:
        """How many of ``channels`` are processed. Raises UsageError where the one wanted is not there."""
        if isinstance(self.channels, int) and self.channels > channels:
            raise UsageError(f"--channels {self.channels}: {name} has {channels}")
        return channels if self.channels == "each" else 1

    def pick(self, block: Samples) -> Samples:
        """The channels of ``block`` (C, T) that are processed."""
        if self.channels == "each":
            return block
        if self.channels == "mix":
            mixed: Samples = block.mean(0, keepdims=True, dtype=np.float32)
            return mixed
        return block[self.channels - 1 : self.channels]


@dataclass
class Report:
    """What became of one recording; ``frames_*`` count samples of one channel, ``elapsed_s`` is wall time.

    ``channels`` are those processed, ``levels_db`` each output's RMS (dBFS, None for silence). ``confidence`` holds,
    for every ``confidence_hop_s`` of the recording, the probability that the speakers are on their tracks.
    """

    input: str
    outputs: list[str]
    frames_in: int = 0
    frames_out: int = 0
    rate_in: int = 0
    rate_out: int = 0
    channels: int = 0
    clipped: int = 0
    gain: float = 1.0
    levels_db: list[float | None] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    confidence_hop_s: float = 0.0
    elapsed_s: float = 0.0
    warnings: list[str] = field(default_factory=list)


class Stage:
    """One model with its resamplers: blocks (C, T) at ``in_rate`` to (S * C, T') at ``out_rate``, streamed.

    Sources lie behind one another, each with its channels. ``model`` None only resamples; ``tracker`` puts the
    sources of a model in order.
    """

    def __init__(
        self,
        model: Model | None,
        in_rate: int,
        out_rate: int,
        channels: int,
        options: Options,
        voice: Voice | None = None,
    ) -> None:
        self.in_rate, self.out_rate, self.channels = in_rate, out_rate, channels
        self.model_rate = model.spec.in_rate if model else in_rate
        self.rows = channels * (model.spec.sources if model else 1)
        parts = model is not None and model.spec.sources > 1 and model.spec.inputs == 1
        if model and model.spec.sources > MOST_SOURCES:
            raise ModelError(f"{model.spec.name} parts {model.spec.sources} speakers; {MOST_SOURCES} can be tracked")
        self.tracker = Tracker(model.spec.channels == 1, voice) if model and parts else None
        self.hop_s = model.spec.hop / model.spec.in_rate if model else 0.0
        self._engine = self._make_engine(model, channels, options) if model else None
        between = model.spec.out_rate if model else in_rate
        self._before = Resampler(in_rate, self.model_rate, channels)
        self._after = Resampler(between, out_rate, self.rows)

    def _make_engine(self, model: Model, channels: int, options: Options) -> Engine:
        if model.spec.channels not in (1, channels):
            raise InputError(f"{model.spec.name} takes {model.spec.channels} channels, the recording has {channels}")

        def forward(x: Tensor) -> Tensor:
            with torch.inference_mode():
                made: Tensor = model(x.to(options.device))
                return made.cpu()

        return Engine(model.spec, forward, channels, options.batch, self.tracker)

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

    def __init__(self, model: Model, parting: Stage, out_rate: int, options: Options) -> None:
        if (model.spec.sources * parting.channels, model.spec.in_rate) != (parting.rows, parting.out_rate):
            raise ModelError(f"{model.spec.name} does not go with what it is to restore")
        super().__init__(model, parting.in_rate, out_rate, parting.channels, options)
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
    models: Sequence[Model | None],
    in_rate: int,
    out_rate: int,
    channels: int,
    options: Options,
    voice: VoiceModel | None = None,
) -> list[Stage]:
    """A chain of models as stages; between two of them the sound has the second one's input rate.

    ``voice`` tells speakers apart where a model parts them. A model that hears the mixture beside estimates
    makes one stage with the one before it.
    """
    stages, rate = list[Stage](), in_rate
    for i, model in enumerate(models):
        after = models[i + 1] if i + 1 < len(models) else None
        target = out_rate if after is None else after.spec.in_rate
        if model is not None and model.spec.inputs > 1:
            stages.append(GuidedStage(model, stages.pop(), target, options))
        else:
            heard = listener(voice, model.spec.out_rate if model else 0)
            stages.append(Stage(model, rate, target, channels, options, heard))
        rate, channels = target, stages[-1].rows
    return stages


def listener(voice: VoiceModel | None, rate: int) -> Voice | None:
    """``voice`` for waves at ``rate`` Hz; none below the rate that it is for."""
    if voice is None or rate < voice.spec.in_rate:
        return None

    def hear(waves: Tensor) -> Tensor:
        with torch.inference_mode():
            return voice.embed(waves, rate)

    return hear


def with_residual(blocks: Iterable[Samples], stages: Sequence[Stage]) -> Iterator[Samples]:
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


def process_array(
    audio: NDArray[np.floating],
    sample_rate: int,
    models: Sequence[Model | None],
    out_rate: int,
    options: Options,
    voice: VoiceModel | None = None,
    residual: bool = False,
) -> Samples:
    """A signal (T,) or (C, T) at ``sample_rate`` through ``models``; returns (S, C', T') float32 at ``out_rate``.

    With ``residual`` the last of S is what the signal has beyond the sum of its sources.
    """
    if audio.ndim not in (1, 2) or not np.issubdtype(audio.dtype, np.floating):
        raise UsageError(f"audio is {audio.dtype} {audio.shape}; floats (time,) or (channels, time) are wanted")
    wave = np.ascontiguousarray(np.atleast_2d(audio), np.float32)
    check_shape(sample_rate, len(wave), "the array")
    options.count(len(wave), "the array")
    wave = options.pick(wave)
    _check_finite(wave, 0, sample_rate, "the array")
    stages = make_stages(models, sample_rate, out_rate, len(wave), options, voice)
    pieces = (wave[:, i : i + BLOCK] for i in range(0, wave.shape[1], BLOCK))
    rows = stages[-1].rows + residual * len(wave)
    streamed = (with_residual if residual else stream)(pieces, stages)
    made = np.concatenate([np.zeros((rows, 0), np.float32), *streamed], axis=1)
    return made.reshape(rows // len(wave), len(wave), made.shape[1])  # (S, C, T)


def process_file(
    targets: Sequence[str | Path],
    reader: AudioReader,
    models: Sequence[Model | None],
    form: OutputFormat,
    options: Options,
    progress: Progress | None = None,
    voice: VoiceModel | None = None,
    residual: bool = False,
) -> Report:
    """An open recording through ``models`` into ``targets``, one a source, in constant memory.

    With ``residual`` the last target gets what the input has beyond the sum of its sources. All targets appear
    together at the end, or none does. Raises AudioSRError.
    """
    begun = time.monotonic()
    report = Report(reader.name, [str(target) for target in targets], rate_in=reader.sample_rate)
    report.rate_out, report.channels = form.sample_rate, form.channels
    stages = make_stages(models, reader.sample_rate, form.sample_rate, form.channels, options, voice)
    assert stages[-1].rows == (len(targets) - residual) * form.channels
    energy = np.zeros(len(targets))
    blocks = _counted(reader, report, options, progress)
    with ExitStack() as stack:
        writers = [stack.enter_context(AudioWriter(target, form, options.clip)) for target in targets]
        for block in (with_residual if residual else stream)(blocks, stages):
            report.frames_out += block.shape[1]
            for i, (writer, part) in enumerate(zip(writers, np.split(block, len(writers)), strict=True)):
                energy[i] += float(np.vdot(part, part))
                writer.write(part)
        if any(writer.gate.rescales for writer in writers):
            report.gain = 1 / max(1.0, *(writer.gate.peak for writer in writers))
        for writer in writers:
            writer.finish(report.gain)
        for writer in writers:
            writer.commit()
    report.clipped = sum(writer.gate.clipped for writer in writers)
    _tell_tracks(report, stages, energy)
    speakers = len(targets) - residual
    report.warnings = reader.warnings + _level_warnings(report) + _speaker_warnings(report, speakers)
    report.elapsed_s = time.monotonic() - begun
    return report


def _tell_tracks(report: Report, stages: Sequence[Stage], energy: NDArray[np.float64]) -> None:
    """Enter the outputs' levels, of their ``energy``, and the confidence of their order."""
    samples = max(report.frames_out * report.channels, 1)
    report.levels_db = [10 * math.log10(e / samples) if e else None for e in energy.tolist()]
    for stage in stages:
        if stage.tracker is not None:
            report.confidence, report.confidence_hop_s = stage.tracker.confidence, stage.hop_s


def _counted(reader: AudioReader, report: Report, options: Options, progress: Progress | None) -> Iterator[Samples]:
    for block in map(options.pick, reader.blocks()):
        _check_finite(block, report.frames_in, reader.sample_rate, reader.name)
        report.frames_in += block.shape[1]
        if progress is not None:
            progress(report.frames_in)
        yield block


def _check_finite(block: Samples, first: int, sample_rate: int, name: str) -> None:
    finite = np.isfinite(block).all(axis=0)
    if not finite.all():
        at = first + int(np.argmin(finite))
        raise InputError(f"{name}: sample {at} ({at / sample_rate:.3f} s) is not a finite number")


def _level_warnings(report: Report) -> list[str]:
    lines = []
    if report.clipped:
        lines.append(f"{report.input}: {report.clipped} samples clipped; use --clip rescale or --subtype float")
    if report.gain < 1:
        lines.append(
            f"{report.input}: all outputs turned down by {-20 * np.log10(report.gain):.1f} dB to stay in range"
        )
    return lines


def _speaker_warnings(report: Report, speakers: int) -> list[str]:
    """What the tracks say of how many speak, and of the order they are in."""
    levels = [-math.inf if level is None else level for level in report.levels_db[:speakers]]
    lines = [
        f"{report.input}: hardly anything is on the track of speaker {i + 1} ({level - max(levels):.0f} dB)"
        "; do fewer people speak?"
        for i, level in enumerate(levels)
        if max(levels) > -math.inf and level < max(levels) - _HARDLY_DB
    ]
    unsure = [i for i, sure in enumerate(report.confidence) if sure < _UNSURE]
    if unsure and speakers > 1:
        at = ", ".join(f"{i * report.confidence_hop_s:.0f} s" for i in unsure[:5])
        more = ", ..." if len(unsure) > 5 else ""
        lines.append(f"{report.input}: who is who is uncertain at {at}{more} (of {len(report.confidence)} stretches)")
    return lines
