"""The way of one recording: reader → stages → gate → writers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.arrays import ArrayReader
from audiosr_cli.audio.read import BLOCK, AudioReader
from audiosr_cli.audio.wav import check_shape
from audiosr_cli.audio.write import AudioWriter, OutputFormat
from audiosr_cli.errors import InputError, UsageError
from audiosr_cli.models.runner import Runnable
from audiosr_cli.models.speaker_encoder import SpeakerEncoder
from audiosr_cli.runtime.threads import thread_pool
from audiosr_cli.streaming.options import Options, Samples
from audiosr_cli.streaming.stages import Stage, make_stages, stream, stream_with_residual

ProgressCallback = Callable[[int], None]  # frames read so far

_HARDLY_DB = 20.0  # a track so far below the loudest one is hardly anybody's
_UNSURE = 0.75  # probability of the order of speakers below which the report warns


@dataclass
class Report:
    """What became of one recording; ``frames_*`` count samples of one channel, ``elapsed_s`` is wall time.

    ``cutoff_hz`` is where the content was found, or said, to end, if that was asked. ``channels`` are those processed,
    ``zeroed`` samples were no finite numbers, ``levels_db`` each output's RMS (dBFS, None for silence). ``confidence``
    holds, for every ``confidence_hop_s`` of the recording, the probability that the speakers are on their tracks.
    """

    input: str
    outputs: list[str]
    frames_in: int = 0
    frames_out: int = 0
    rate_in: int = 0
    rate_out: int = 0
    channels: int = 0
    cutoff_hz: float | None = None
    zeroed: int = 0
    clipped: int = 0
    gain: float = 1.0
    levels_db: list[float | None] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    confidence_hop_s: float = 0.0
    elapsed_s: float = 0.0
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def process_array(
    audio: NDArray[np.floating],
    sample_rate: int,
    models: Sequence[Runnable | None],
    out_rate: int,
    options: Options,
    speaker_encoder: SpeakerEncoder | None = None,
    residual: bool = False,
) -> Samples:
    """A signal (T,) or (C, T) at ``sample_rate`` through ``models``; returns (S, C', T') float32 at ``out_rate``.

    With ``residual`` the last of S is what the signal has beyond the sum of its sources.
    """
    if audio.ndim not in (1, 2) or not np.issubdtype(audio.dtype, np.floating):
        raise UsageError(f"audio is {audio.dtype} {audio.shape}; floats (time,) or (channels, time) are wanted")
    wave = np.ascontiguousarray(np.atleast_2d(audio), np.float32)
    check_shape(sample_rate, len(wave), "the array")
    options.count_channels(len(wave), "the array")
    wave = options.pick_channels(wave)
    wave = _finite(wave, Report("the array", [], rate_in=sample_rate), options)
    pieces = (wave[:, i : i + BLOCK] for i in range(0, wave.shape[1], BLOCK))
    with thread_pool(options.threads) as executor:
        stages = make_stages(models, sample_rate, out_rate, len(wave), options, speaker_encoder, executor)
        rows = stages[-1].rows + residual * len(wave)
        streamed = (stream_with_residual if residual else stream)(pieces, stages)
        made = np.concatenate([np.zeros((rows, 0), np.float32), *streamed], axis=1)
    return made.reshape(rows // len(wave), len(wave), made.shape[1])  # (S, C, T)


def process_file(
    targets: Sequence[str | Path],
    reader: AudioReader,
    models: Sequence[Runnable | None],
    form: OutputFormat,
    options: Options,
    progress: ProgressCallback | None = None,
    speaker_encoder: SpeakerEncoder | None = None,
    residual: bool = False,
    exclusive: Container[str | Path] = (),
) -> Report:
    """An open recording through ``models`` into ``targets``, one a source, in constant memory.

    With ``residual`` the last target gets what the input has beyond the sum of its sources. When all are whole and on
    the disk they get their names, one right after the other; an error before that leaves none. Files that have these
    names already are replaced, but not those of ``exclusive`` targets. Raises AudioSRError.
    """
    begun = time.monotonic()
    report = Report(reader.name, [str(target) for target in targets], rate_in=reader.sample_rate)
    report.rate_out, report.channels = form.sample_rate, form.channels
    speakers = len(targets) - residual
    with ExitStack() as stack:
        executor = stack.enter_context(thread_pool(options.threads))
        stages = make_stages(
            models, reader.sample_rate, form.sample_rate, form.channels, options, speaker_encoder, executor
        )
        assert stages[-1].rows == speakers * form.channels
        made = (stream_with_residual if residual else stream)(_counted(reader, report, options, progress), stages)
        writers = [stack.enter_context(AudioWriter(name, form, options.clip, name in exclusive)) for name in targets]
        energy = _written(made, writers, report)
        if options.strict and reader.warnings:
            raise InputError(f"{reader.warnings[0]}; without --strict this is a warning")
        _finish(writers, report)
        reader.check_unchanged()
        for writer in writers:
            writer.commit()
    _tell_tracks(report, stages, energy)
    report.warnings = reader.warnings + _level_warnings(report) + _speaker_warnings(report, speakers)
    report.warnings += [line for stage in stages if stage.runner for line in stage.runner.warnings]
    report.elapsed_s = time.monotonic() - begun
    return report


def _written(blocks: Iterable[Samples], writers: Sequence[AudioWriter], report: Report) -> NDArray[np.float64]:
    """Write ``blocks`` (S * C, T), a source to each of ``writers``; and the energy of each."""
    energy = np.zeros(len(writers))
    for block in blocks:
        report.frames_out += block.shape[1]
        for i, (writer, part) in enumerate(zip(writers, np.split(block, len(writers)), strict=True)):
            energy[i] += float(np.square(part, dtype=np.float64).sum())
            writer.write(part)
    return energy


def _finish(writers: Sequence[AudioWriter], report: Report) -> None:
    """End all outputs, at the same gain."""
    if any(writer.gate.rescales for writer in writers):
        report.gain = 1 / max(1.0, *(writer.gate.peak for writer in writers))
    for writer in writers:
        writer.finish(report.gain)
    report.clipped = sum(writer.gate.clipped for writer in writers)


def _tell_tracks(report: Report, stages: Sequence[Stage], energy: NDArray[np.float64]) -> None:
    """Enter the outputs' levels, of their ``energy``, and the confidence of their order."""
    samples = max(report.frames_out * report.channels, 1)  # rounded below: how blocks fall depends on threads
    report.levels_db = [round(10 * math.log10(e / samples), 6) if e else None for e in energy.tolist()]
    for stage in stages:
        if stage.tracker is not None:
            report.confidence, report.confidence_hop_s = stage.tracker.confidence, stage.hop_s


def _counted(
    reader: AudioReader | ArrayReader, report: Report, options: Options, progress: ProgressCallback | None
) -> Iterator[Samples]:
    for block in map(options.pick_channels, reader.blocks()):
        block = _finite(block, report, options)
        report.frames_in += block.shape[1]
        if progress is not None:
            progress(report.frames_in)
        yield block


def _finite(block: Samples, report: Report, options: Options) -> Samples:
    """The next ``block`` of a recording, zero where it is no finite number, if that is asked for. Raises InputError."""
    finite = np.isfinite(block)
    if finite.all():
        return block
    if options.nonfinite == "zero":
        report.zeroed += int(np.count_nonzero(~finite))
        return np.where(finite, block, np.float32(0))
    at = report.frames_in + int(np.argmin(finite.all(axis=0)))
    raise InputError(
        f"{report.input}: sample {at} ({at / report.rate_in:.3f} s) is not a finite number; see --nonfinite zero"
    )


def _level_warnings(report: Report) -> list[str]:
    lines = []
    if report.zeroed:
        lines.append(f"{report.input}: {report.zeroed} samples were not finite numbers and are zero now")
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
