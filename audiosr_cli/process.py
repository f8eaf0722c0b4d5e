"""The way of one recording: reader → resampler → windows → model → order → resampler → gate → writers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiosr_cli.audio.read import BLOCK, AudioReader
from audiosr_cli.audio.resample import Resampler, resampled_length
from audiosr_cli.audio.wav import check_shape
from audiosr_cli.audio.write import AudioWriter, ClipPolicy, OutputFormat
from audiosr_cli.errors import InputError, UsageError
from audiosr_cli.models import Model
from audiosr_cli.tracking import Tracker
from audiosr_cli.windows import Align, Engine

Samples = NDArray[np.float32]
Progress = Callable[[int], None]  # frames read so far


@dataclass(frozen=True)
class Options:
    """How a recording is processed, whatever is done to it. ``batch`` windows go through a model at once."""

    device: str = "cpu"
    batch: int = 1
    clip: ClipPolicy = "warn"


@dataclass
class Report:
    """What became of one recording; ``frames_*`` count samples of one channel, ``elapsed_s`` is wall time."""

    input: str
    outputs: list[str]
    frames_in: int = 0
    frames_out: int = 0
    rate_in: int = 0
    rate_out: int = 0
    channels: int = 0
    clipped: int = 0
    gain: float = 1.0
    elapsed_s: float = 0.0
    warnings: list[str] = field(default_factory=list)


class Stage:
    """One model with its resamplers: blocks (C, T) at ``in_rate`` to (S * C, T') at ``out_rate``, streamed.

    Sources lie behind one another, each with its channels. ``model`` None only resamples.
    """

    def __init__(self, model: Model | None, in_rate: int, out_rate: int, channels: int, options: Options) -> None:
        self.in_rate, self.out_rate, self.channels = in_rate, out_rate, channels
        self.model_rate = model.spec.in_rate if model else in_rate
        self.rows = channels * (model.spec.sources if model else 1)
        self._engine = self._make_engine(model, channels, options) if model else None
        between = model.spec.out_rate if model else in_rate
        self._before = Resampler(in_rate, self.model_rate, channels)
        self._after = Resampler(between, out_rate, self.rows)

    @staticmethod
    def _make_engine(model: Model, channels: int, options: Options) -> Engine:
        if model.spec.channels not in (1, channels):
            raise InputError(f"{model.spec.name} takes {model.spec.channels} channels, the recording has {channels}")

        def forward(x: Tensor) -> Tensor:
            with torch.inference_mode():
                made: Tensor = model(x.to(options.device))
                return made.cpu()

        align: Align | None = Tracker(model.spec.channels == 1) if model.spec.sources > 1 else None
        return Engine(model.spec, forward, channels, options.batch, align)

    def push(self, block: Samples, last: bool = False) -> Samples:
        """What ``block`` completes; ``last`` brings out the rest."""
        block = self._before.push(block, last)
        if self._engine is not None:
            made = self._engine.push(torch.from_numpy(block))
            if last:
                made = torch.cat([made, self._engine.flush()], dim=-1)
            block = made.flatten(0, 1).numpy()
        return self._after.push(block, last)


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
    models: Sequence[Model | None], in_rate: int, out_rate: int, channels: int, options: Options
) -> list[Stage]:
    """A chain of models as stages; between two of them the sound has the second one's input rate."""
    stages, rate = list[Stage](), in_rate
    for i, model in enumerate(models):
        after = models[i + 1] if i + 1 < len(models) else None
        target = out_rate if after is None else after.spec.in_rate
        stages.append(Stage(model, rate, target, channels, options))
        rate, channels = target, stages[-1].rows
    return stages


def process_array(
    audio: NDArray[np.floating], sample_rate: int, models: Sequence[Model | None], out_rate: int, options: Options
) -> Samples:
    """A signal (T,) or (C, T) at ``sample_rate`` through ``models``; returns (S, C, T') float32 at ``out_rate``."""
    if audio.ndim not in (1, 2) or not np.issubdtype(audio.dtype, np.floating):
        raise UsageError(f"audio is {audio.dtype} {audio.shape}; floats (time,) or (channels, time) are wanted")
    wave = np.ascontiguousarray(np.atleast_2d(audio), np.float32)
    check_shape(sample_rate, len(wave), "the array")
    _check_finite(wave, 0, sample_rate, "the array")
    stages = make_stages(models, sample_rate, out_rate, len(wave), options)
    pieces = (wave[:, i : i + BLOCK] for i in range(0, wave.shape[1], BLOCK))
    made = np.concatenate([np.zeros((stages[-1].rows, 0), np.float32), *stream(pieces, stages)], axis=1)
    return made.reshape(stages[-1].rows // len(wave), len(wave), made.shape[1])  # (S, C, T)


def process_file(
    targets: Sequence[str | Path],
    reader: AudioReader,
    models: Sequence[Model | None],
    form: OutputFormat,
    options: Options,
    progress: Progress | None = None,
) -> Report:
    """An open recording through ``models`` into ``targets``, one a source, in constant memory.

    All targets appear together at the end, or none does. Raises AudioSRError.
    """
    begun = time.monotonic()
    report = Report(reader.name, [str(target) for target in targets], rate_in=reader.sample_rate)
    report.rate_out, report.channels = form.sample_rate, reader.channels
    stages = make_stages(models, reader.sample_rate, form.sample_rate, reader.channels, options)
    assert stages[-1].rows == len(targets) * reader.channels
    with ExitStack() as stack:
        writers = [stack.enter_context(AudioWriter(target, form, options.clip)) for target in targets]
        for block in stream(_counted(reader, report, progress), stages):
            report.frames_out += block.shape[1]
            for writer, part in zip(writers, np.split(block, len(writers)), strict=True):
                writer.write(part)
        if any(writer.gate.rescales for writer in writers):
            report.gain = 1 / max(1.0, *(writer.gate.peak for writer in writers))
        for writer in writers:
            writer.finish(report.gain)
        for writer in writers:
            writer.commit()
    report.clipped = sum(writer.gate.clipped for writer in writers)
    report.warnings = reader.warnings + _level_warnings(report)
    report.elapsed_s = time.monotonic() - begun
    return report


def _counted(reader: AudioReader, report: Report, progress: Progress | None) -> Iterator[Samples]:
    for block in reader.blocks():
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
