"""Process one recording: reader → stages → output gate → writers."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.arrays import ArrayReader
from audiosr_cli.audio.encoders.remux import has_video
from audiosr_cli.audio.formats import VIDEO_CONTAINERS, OutputFormat
from audiosr_cli.audio.metadata.types import Metadata
from audiosr_cli.audio.read import AudioReader
from audiosr_cli.audio.trim import frame_range
from audiosr_cli.audio.write import AudioWriter
from audiosr_cli.errors import InputError, UsageError
from audiosr_cli.models.runner import Runnable
from audiosr_cli.models.speaker_encoder import SpeakerEncoder
from audiosr_cli.runtime.threads import thread_pool
from audiosr_cli.streaming.labelling import Labelling
from audiosr_cli.streaming.options import Options, Samples
from audiosr_cli.streaming.report import Report, complete_report
from audiosr_cli.streaming.restoring import stages_for
from audiosr_cli.streaming.stages import stream, stream_with_residual

ProgressCallback = Callable[[int], None]  # frames read so far
CountingCallback = Callable[[float, float | None], None]  # seconds analysed so far, seconds to analyse if known

# How far below its channels (dB) a mix may be before the report says that they cancel. Independent channels are 3 dB
# apart from it, and speech that reaches two microphones differently a few more. Set by hand, November 2026.
_CANCELLED_DB = 15.0


def process_file(
    targets: Sequence[str | Path],
    reader: AudioReader,
    models: Sequence[Runnable | None],
    output_format: OutputFormat,
    options: Options,
    progress: ProgressCallback | None = None,
    speaker_encoder: SpeakerEncoder | None = None,
    residual: bool = False,
    exclusive: Container[str | Path] = (),
    metadata: Sequence[Metadata] = (),
    labelling: Labelling | None = None,
) -> Report:
    """Process an open recording into files, in constant memory.

    The outputs get their names when all of them are complete and on the disk; an error before that leaves none.

    Args:
        targets: One for each output, then one for each label file; ``-`` is standard output.
        reader: The recording.
        models: In the order of processing; without any the recording is resampled.
        output_format: The format of all outputs.
        options: How the recording is processed.
        progress: Called with the number of frames read so far.
        speaker_encoder: Helps to keep the speakers of a separator on their tracks.
        residual: Whether the last target gets what remains of the input when all sources are subtracted.
        exclusive: Targets that must not exist. Other existing files are replaced.
        metadata: Of each output; none by default.
        labelling: Finds the turns and writes the label files, if that is wanted.

    Returns:
        The report.

    Raises:
        AudioSRError: If the recording cannot be read, processed or written.
    """
    started = time.monotonic()
    labelling = labelling or Labelling(None, reader.name, (), output_format.sample_rate)
    written = len(targets) - len(labelling.formats)  # audio, all of it or none
    names = [str(target) for target in targets]
    report = Report(reader.name, names[:written], rate_in=reader.sample_rate, labels=names[written:])
    report.rate_out, report.channels = output_format.sample_rate, output_format.channels
    source = _video_of(reader, output_format, options)
    with ExitStack() as stack:
        executor = stack.enter_context(thread_pool(options.threads))
        stages = stages_for(
            models, report.rate_in, report.rate_out, report.channels, options, speaker_encoder, executor
        )
        sources = stages[-1].rows // report.channels
        assert written in (0, sources + residual)
        blocks = read_blocks(reader, report, options, progress)
        outputs = (stream_with_residual if residual else stream)(blocks, stages)
        arguments = (source, reader.audio_stream, labelling.gates)
        writers = [
            stack.enter_context(AudioWriter(target, output_format, options.clip, target in exclusive, tags, *arguments))
            for target, tags in zip(targets[:written], metadata or [Metadata()] * written, strict=False)
        ]
        stack.enter_context(labelling)
        energy = _write_blocks(outputs, writers, report, sources + residual, labelling)
        check_damage(reader, options)
        report.turns = labelling.finish()
        report.notes += labelling.notes(report.input, report.turns)
        energy = _finish(writers, report, labelling, energy)
        reader.check_unchanged()
        for writer in writers:
            writer.commit()
        labelling.commit()
        report.notes += _notes(writers, reader)
    complete_report(report, reader, stages, energy, sources)
    report.elapsed_s = time.monotonic() - started
    return report


def read_blocks(
    reader: AudioReader | ArrayReader, report: Report, options: Options, progress: ProgressCallback | None
) -> Iterator[Samples]:
    """Yield the channels that are processed, and count their frames.

    Args:
        reader: The recording.
        report: Gets the number of frames, and warnings.
        options: How the recording is processed.
        progress: Called with the number of frames read so far.

    Raises:
        InputError: If the recording cannot be read, or has samples that are not finite and the options forbid them.
    """
    energy = np.zeros(2)  # of the channels, mean, and of what is processed
    for channels in reader.blocks():
        block = options.pick_channels(channels)
        block = _check_finite(block, report, options)
        if options.channels == "mix":
            energy += [np.square(wave, dtype=np.float64).sum() / len(wave) for wave in (channels, block)]
        report.frames_in += block.shape[1]
        if progress is not None:
            progress(report.frames_in)
        yield block
    _check_end(report, reader, options)
    if energy[0] > 0 and energy[1] < energy[0] * 10 ** (-_CANCELLED_DB / 10):
        report.warnings.append(
            f"{report.input}: the channels cancel each other when they are mixed; use --channels each, or a number"
        )


def _check_end(report: Report, reader: AudioReader | ArrayReader, options: Options) -> None:
    """Note that a recording ends before the end of the part that is processed."""
    expected = options.count_frames(2**62, reader.sample_rate) or 0
    if options.end_s is not None and report.frames_in < expected:
        end_s = (options.start_s or 0.0) + report.frames_in / reader.sample_rate
        report.notes.append(f"{report.input}: ends at {end_s:.3f} s, before --end {options.end_s:g} s")


def check_damage(reader: AudioReader | ArrayReader, options: Options) -> None:
    """Raise InputError if a recording that has been read is damaged and the options are strict."""
    if options.strict and reader.warnings:
        raise InputError(f"{reader.warnings[0]}; without --strict this is a warning")


def _check_finite(block: Samples, report: Report, options: Options) -> Samples:
    """Return ``block`` with samples that are not finite set to zero if the options say so, else raise InputError."""
    finite = np.isfinite(block)
    if finite.all():
        return block
    if options.nonfinite == "zero":
        report.zeroed += int(np.count_nonzero(~finite))
        return np.where(finite, block, np.float32(0))
    first, _ = frame_range(options.start_s, None, report.rate_in)
    at = first + report.frames_in + int(np.argmin(finite.all(axis=0)))
    raise InputError(
        f"{report.input}: sample {at} ({at / report.rate_in:.3f} s) is not a finite number; see --nonfinite zero"
    )


def _write_blocks(
    blocks: Iterable[Samples],
    writers: Sequence[AudioWriter],
    report: Report,
    outputs: int,
    labelling: Labelling,
) -> NDArray[np.float64]:
    """Write ``blocks`` (S * C, T), one output to each writer if there are any, and return the energy of each output."""
    energy = np.zeros(outputs)
    for block in blocks:
        report.frames_out += block.shape[1]
        energy += np.square(block.reshape(outputs, -1), dtype=np.float64).sum(1)
        labelling.push(block, outputs)
        for writer, output in zip(writers, np.split(block, outputs), strict=False):
            writer.write(output)
    return energy


def _video_of(reader: AudioReader, output_format: OutputFormat, options: Options) -> Path | None:
    """Return the file whose video the outputs take along, None if there is none. Raises UsageError if it is cut."""
    if output_format.container not in VIDEO_CONTAINERS or reader.path is None or not has_video(reader.path):
        return None
    if options.start_s is not None or options.end_s is not None:
        raise UsageError(
            f"{reader.name}: --start and --end cut the sound only, as a video cannot be cut without encoding it again; "
            "use an audio format such as m4a"
        )
    return reader.path


def _notes(writers: Sequence[AudioWriter], reader: AudioReader) -> list[str]:
    """Return what the writers note, once for all outputs of a recording."""
    lines = [line.replace(f"{writer.name}: ", f"{reader.name}: ", 1) for writer in writers for line in writer.notes]
    if writers and reader.path is None and writers[0].output_format.container in VIDEO_CONTAINERS:
        lines.append(f"{reader.name}: only its sound is kept; to keep a video, give the path of its file")
    return list(dict.fromkeys(lines))


def _finish(
    writers: Sequence[AudioWriter], report: Report, labelling: Labelling, energy: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Finish all outputs with the same gain, and mute those that are gated; return the energy of each output."""
    if any(writer.gate.rescales for writer in writers):
        report.gain = 1 / max(1.0, *(writer.gate.peak for writer in writers))
    for i, writer in enumerate(writers):
        writer.finish(report.gain, labelling.gains(report.turns, i))
    report.clipped = sum(writer.gate.clipped for writer in writers)
    spooled = [writer.energy for writer in writers if writer.gate.spooled]
    return np.array(spooled) if spooled else energy * report.gain**2
