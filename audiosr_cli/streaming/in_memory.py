"""Process one recording and keep the output in memory: reader → stages → output gate → array."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.arrays import ArrayReader
from audiosr_cli.audio.formats import OutputFormat
from audiosr_cli.audio.read import AudioReader
from audiosr_cli.audio.write import Gate
from audiosr_cli.errors import SampleError
from audiosr_cli.models.runner import Runnable
from audiosr_cli.models.speaker_encoder import SpeakerEncoder
from audiosr_cli.runtime.threads import thread_pool
from audiosr_cli.streaming.labelling import Labelling
from audiosr_cli.streaming.options import Options, Samples
from audiosr_cli.streaming.recording import ProgressCallback, check_damage, read_blocks
from audiosr_cli.streaming.report import Report, complete_report
from audiosr_cli.streaming.restoring import stages_for
from audiosr_cli.streaming.stages import stream, stream_with_residual


def process_array(
    audio: NDArray[np.floating],
    sample_rate: int,
    models: Sequence[Runnable | None],
    out_rate: int,
    options: Options,
    speaker_encoder: SpeakerEncoder | None = None,
    residual: bool = False,
) -> Samples:
    """Process a signal (T,) or (C, T) at ``sample_rate`` Hz as ``process_in_memory`` does, without a report."""
    reader = ArrayReader(audio, sample_rate)
    return process_in_memory(reader, models, out_rate, options, None, speaker_encoder, residual)[0]


def process_in_memory(
    reader: AudioReader | ArrayReader,
    models: Sequence[Runnable | None],
    out_rate: int,
    options: Options,
    progress: ProgressCallback | None = None,
    speaker_encoder: SpeakerEncoder | None = None,
    residual: bool = False,
    labelling: Labelling | None = None,
) -> tuple[Samples, Report]:
    """Process an open recording and keep the output in memory.

    Args:
        reader: The recording.
        models: In the order of processing; without any the recording is resampled.
        out_rate: Sample rate of the output in Hz.
        options: How the recording is processed. ``clip`` "warn" keeps samples beyond full scale and counts them.
        progress: Called with the number of frames read so far.
        speaker_encoder: Helps to keep the speakers of a separator on their tracks.
        residual: Whether to append what remains of the input when all sources are subtracted. The rates must agree.
        labelling: Finds the turns, for the report.

    Returns:
        The output (S, C, T') float32, and the report.

    Raises:
        AudioSRError: If the recording cannot be read or its samples cannot be processed.
    """
    started = time.monotonic()
    labelling = labelling or Labelling(None, reader.name, (), out_rate)
    channels = options.count_channels(reader.channels, reader.name)
    report = Report(reader.name, [], rate_in=reader.sample_rate, rate_out=out_rate, channels=channels)
    with thread_pool(options.threads) as executor:
        stages = stages_for(models, reader.sample_rate, out_rate, channels, options, speaker_encoder, executor)
        outputs = stages[-1].rows // channels + residual
        blocks = read_blocks(reader, report, options, progress)
        processed = (stream_with_residual if residual else stream)(blocks, stages)
        audio, energy = _collect(processed, outputs, report, labelling)
    check_damage(reader, options)
    report.turns = labelling.finish()
    energy = _mute(audio, labelling, report, energy)
    over = _apply_clip_policy(audio, report, options)
    complete_report(report, reader, stages, energy * report.gain**2, outputs - residual)
    if over:
        report.clipped = over
        report.warnings.append(
            f"{report.input}: {over} output samples exceed full scale and would clip in a PCM file; use clip='rescale'"
        )
    report.elapsed_s = time.monotonic() - started
    return audio, report


def _collect(
    blocks: Iterable[Samples], outputs: int, report: Report, labelling: Labelling
) -> tuple[Samples, NDArray[np.float64]]:
    """Join ``blocks`` (S * C, T) to (S, C, T); also return the energy (S,). Raises SampleError."""
    gate = Gate(OutputFormat("wav", "FLOAT", report.rate_out, report.channels), "warn", report.input)
    energy, pieces = np.zeros(outputs), [np.zeros((outputs * report.channels, 0), np.float32)]
    for block in blocks:
        gate.measure(block)
        labelling.push(block, outputs)
        report.frames_out += block.shape[1]
        energy += np.square(block.reshape(outputs, -1), dtype=np.float64).sum(1)
        pieces.append(block)
    return np.concatenate(pieces, axis=1).reshape(outputs, report.channels, report.frames_out), energy


def _mute(audio: Samples, labelling: Labelling, report: Report, energy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mute outputs (S, C, T) that are gated, in place; return the energy of each output."""
    for i, output in enumerate(audio):
        gains = labelling.gains(report.turns, i)
        if gains is not None:
            output *= gains(0, output.shape[1])
            energy[i] = np.square(output, dtype=np.float64).sum()
    return energy


def _apply_clip_policy(audio: Samples, report: Report, options: Options) -> int:
    """Scale down in place, or refuse, samples of ``audio`` (S, C, T) beyond full scale.

    Returns:
        The number of samples that stay beyond full scale.

    Raises:
        SampleError: If samples exceed full scale and ``options.clip`` is "error".
    """
    peak = float(max(audio.max(initial=0.0), -audio.min(initial=0.0)))
    if peak <= 1:
        return 0
    if options.clip == "rescale":
        report.gain = 1 / peak
        audio *= np.float32(report.gain)
        return 0
    over = np.abs(audio) > 1
    if options.clip == "error":
        at_s = int(np.argmax(over.any(axis=(0, 1)))) / report.rate_out
        raise SampleError(f"{report.input}: the output exceeds full scale at {at_s:.3f} s; use clip='rescale'")
    return int(np.count_nonzero(over))
