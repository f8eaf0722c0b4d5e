"""A chain of models, and which of them a recording needs."""

from __future__ import annotations

import math
import os
from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.arrays import ArrayReader
from audiosr_cli.audio.formats import OutputFormat, choose_format, container_of
from audiosr_cli.audio.read import AudioReader
from audiosr_cli.dsp.channels import ChannelMeter
from audiosr_cli.errors import UsageError
from audiosr_cli.models import Model
from audiosr_cli.models.diffusion import Sampling
from audiosr_cli.models.runner import ModelCall
from audiosr_cli.models.speaker_encoder import SpeakerEncoder
from audiosr_cli.runtime.memory import explain_out_of_memory
from audiosr_cli.streaming.bandwidth_report import add_bandwidth, bandwidth_warnings
from audiosr_cli.streaming.chain import choose_models, model_call
from audiosr_cli.streaming.count_report import add_count
from audiosr_cli.streaming.counting import SpeakerCount
from audiosr_cli.streaming.describe import describe, output_names
from audiosr_cli.streaming.forecast import predict_seconds
from audiosr_cli.streaming.in_memory import process_in_memory
from audiosr_cli.streaming.labelling import Labelling, Labels
from audiosr_cli.streaming.options import Options, Quality, Samples
from audiosr_cli.streaming.recording import CountingCallback, ProgressCallback, process_file
from audiosr_cli.streaming.report import Report
from audiosr_cli.streaming.restoring import stretched_call
from audiosr_cli.streaming.stretches import UNKNOWN, Bandwidth, measure_bandwidth

Source = str | os.PathLike[str]

# Seconds at the start of a pipe from which its cutoff is detected. Set by hand, November 2026.
_PIPE_CUTOFF_S = 30.0
# Seconds at the start of a recording from which is decided whether each of two channels holds a voice of its own.
_CHANNELS_S = 30.0


@dataclass(frozen=True)
class Pipeline:
    """A chain of loaded models with options, ready to process recordings.

    Args:
        models: In the order of processing. If the first one is an upsampler, it restores what lies above the cutoff of
            a recording.
        rate: Sample rate of the output in Hz; None for that of the input.
        options: How recordings are processed.
        speaker_encoder: Helps to keep the speakers of a separator on their tracks.
        residual: Whether what remains of the input when all sources are subtracted is another output. The rate must be
            the input's.
        cutoff_hz: Cutoff of all recordings in Hz; None detects that of each.
        sampling: How a diffusion model draws; None for its default.
        command: Name of the command, for the outputs' provenance.
        quality: With "best", separators are averaged over windows that start half a hop of their frames apart.
        count: The number of speakers, if it was counted for the recording that is processed.
        labels: What is written of who speaks when, if anything.
    """

    models: tuple[Model, ...]
    rate: int | None
    options: Options
    speaker_encoder: SpeakerEncoder | None = None
    residual: bool = False
    cutoff_hz: float | None = None
    sampling: Sampling | None = None
    command: str = ""
    quality: Quality = "standard"
    count: SpeakerCount | None = None
    labels: Labels | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all files of a recording: audio, and labels such as ``turns.rttm``."""
        return self.outputs if self.labels is None else self.labels.files(self.outputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs of a recording. One output of a separator is all speech, of any number of people."""
        separators = [model.spec.speakers for model in self.models if model.spec.task == "separate"]
        return output_names(math.prod(separators), separators == [1], self.residual)

    @property
    def checkpoints(self) -> dict[str, str]:
        """The SHA-256 of the checkpoint of each model, by the model's name."""
        loaded = (*self.models, *([self.speaker_encoder] if self.speaker_encoder is not None else []))
        return {model.spec.name: model.sha256 for model in loaded}

    @property
    def uses_cutoff(self) -> bool:
        """Whether processing depends on the cutoff of a recording."""
        return bool(self.models) and self.models[0].spec.task == "upsample"

    def find_bandwidth(self, blocks: Iterable[Samples], sample_rate: int) -> Bandwidth:
        """Detect the bandwidth of a signal in blocks (C, T) at ``sample_rate`` Hz, unless ``cutoff_hz`` sets it."""
        if self.cutoff_hz is not None:
            return Bandwidth(min(self.cutoff_hz, sample_rate / 2))
        return measure_bandwidth(map(self.options.pick_channels, blocks), sample_rate)

    def chain(self, sample_rate: int, cutoff_hz: float | None = None) -> tuple[ModelCall, ...]:
        """Choose the models that a recording needs, see ``choose_models``."""
        return choose_models(self.models, self.rate, sample_rate, cutoff_hz, self._call)

    def chain_for(self, reader: AudioReader | ArrayReader, bandwidth: Bandwidth) -> tuple[ModelCall, ...]:
        """Choose the models that an open recording needs in each of its stretches."""
        if len(self.models) != 1 or not bandwidth.stretches:
            return self.chain(reader.sample_rate, bandwidth.cutoff_hz)
        chains = [self.chain(reader.sample_rate, stretch.cutoff_hz) for stretch in bandwidth.stretches]
        calls = [chain[0] if chain else None for chain in chains]
        channels = self.options.count_channels(reader.channels, reader.name)
        return (stretched_call(bandwidth.stretches, calls, channels),) if any(calls) else ()

    def _call(self, model: Model, cutoff_hz: float | None = None) -> ModelCall:
        return model_call(model, cutoff_hz, self.quality == "best", self.sampling)

    @property
    def alternatives(self) -> tuple[tuple[str, ...], ...]:
        """The names of the files for each number of speakers that is possible: one, unless they are counted."""
        return (self.files,)

    def select(
        self,
        reader: AudioReader | ArrayReader,  # noqa: ARG002 - for pipelines that count
        progress: CountingCallback | None = None,  # noqa: ARG002
    ) -> Pipeline:
        """Return the pipeline for an open recording: this one, unless it has to count the speakers."""
        return self

    def array(self, audio: NDArray[np.floating], sample_rate: int) -> Samples:
        """Process a signal in memory.

        Args:
            audio: Floats (T,) or (C, T).
            sample_rate: Hz.

        Returns:
            (S, C', T') float32, one of S for each output.

        Raises:
            AudioSRError: If the signal cannot be processed.
        """
        return self.in_memory(ArrayReader(audio, sample_rate))[0]

    def in_memory(
        self, reader: AudioReader | ArrayReader, progress: ProgressCallback | None = None
    ) -> tuple[Samples, Report]:
        """Process an open recording and keep the output in memory.

        Args:
            reader: The recording.
            progress: Called with the number of frames read so far.

        Returns:
            The output (S, C', T') float32, one of S for each of ``outputs``, and the report.

        Raises:
            AudioSRError: If the recording cannot be read or processed.
        """
        rate = self.output_format(reader, subtype="FLOAT").sample_rate
        reader.trim(self.options.start_s, self.options.end_s)
        with explain_out_of_memory(reader.name):
            blocks = reader.peek(math.inf, math.inf)
            bandwidth = self.find_bandwidth(blocks, reader.sample_rate) if self.uses_cutoff else UNKNOWN
            models = self.chain_for(reader, bandwidth)
            options = self.options_for(reader, models)
            audio, report = process_in_memory(
                reader,
                models,
                rate,
                options,
                progress,
                self.speaker_encoder,
                self.residual,
                self._labelling(reader, rate),
            )
        self._complete(report, models, bandwidth, options)
        return audio, report

    def file_bandwidth(self, reader: AudioReader) -> Bandwidth:
        """Detect the bandwidth of an open recording: of a file from all of it, of a pipe from 30 s or 64 MiB."""
        if reader.path is None or self.cutoff_hz is not None:
            return self.find_bandwidth(reader.peek(_PIPE_CUTOFF_S), reader.sample_rate).continued()
        with AudioReader(reader.path, reader.audio_stream) as again:
            again.trim(self.options.start_s, self.options.end_s)
            return self.find_bandwidth(again.blocks(), again.sample_rate)

    def options_for(self, reader: AudioReader | ArrayReader, models: Sequence[ModelCall]) -> Options:
        """Return the options for an open recording, with what depends on it."""
        separates = any(model.spec.speakers == 2 and model.spec.inputs == 1 for model in models)
        if not separates or reader.channels != 2 or self.options.channels != "each":
            return self.options
        meter = ChannelMeter(reader.sample_rate)
        for block in reader.peek(_CHANNELS_S):
            meter.push(block)
        return replace(self.options, voices_by_channel=meter.hold_separate_voices())

    def forecast(self, reader: AudioReader) -> float | None:
        """Predict how many seconds an open recording will take, from one window of a diffusion model.

        Returns:
            None without a diffusion model, for a pipe, and for a few windows, which are done within seconds.
        """
        model = next((model for model in self.models if model.spec.uses_position), None)
        frames = self.options.count_frames(reader.frames, reader.sample_rate)
        if model is None or frames is None:
            return None
        channels = self.options.count_channels(reader.channels, reader.name)
        return predict_seconds(self._call(model), channels * frames / reader.sample_rate, self.options)

    def write(self, source: Source, targets: Sequence[str | Path]) -> Report:
        """Process a recording into files.

        Args:
            source: The recording; ``-`` is standard input.
            targets: One for each of ``files``. The suffix of the first one sets the format, wav by default.

        Returns:
            The report.

        Raises:
            AudioSRError: If the recording cannot be read, processed or written.
        """
        if len(targets) != len(self.files):
            raise UsageError(f"{len(targets)} targets for {len(self.files)} outputs; give one for each output")
        with AudioReader(source, self.options.audio_stream) as reader:
            return self.file(reader, targets, container_of(Path(targets[0])) or "wav")

    def output_format(
        self,
        reader: AudioReader | ArrayReader,
        container: str = "wav",
        subtype: str | None = None,
        bitrate: int | None = None,
    ) -> OutputFormat:
        """Choose the format of the outputs of an open recording.

        Args:
            reader: The recording.
            container: The file format, such as "flac".
            subtype: The sample type, such as "PCM_24"; by default the input's, or the nearest to it.
            bitrate: Bit/s of a lossy format; None for its default.

        Returns:
            The format.

        Raises:
            UsageError: If the recording cannot be processed at this rate or with these channels.
            OutputError: If the file format cannot hold the outputs, or has no such bitrate.
        """
        rate = self.rate or reader.sample_rate
        if self.uses_cutoff and rate < reader.sample_rate:
            raise UsageError(
                f"--rate {rate} is below the {reader.sample_rate} Hz of {reader.name}; to downsample use --model none"
            )
        channels = self.options.count_channels(reader.channels, reader.name)
        return choose_format(container, subtype, reader.subtype, rate, channels, bitrate, reader.name)

    def file(
        self,
        reader: AudioReader,
        targets: Sequence[str | Path],
        container: str = "wav",
        subtype: str | None = None,
        progress: ProgressCallback | None = None,
        exclusive: Container[str | Path] = (),
        bitrate: int | None = None,
    ) -> Report:
        """Process an open recording into files.

        Args:
            reader: The recording.
            targets: One for each of ``files``; ``-`` is standard output.
            container: The file format, such as "flac".
            subtype: The sample type, such as "PCM_24"; by default the input's, or the nearest to it.
            progress: Called with the number of frames read so far.
            exclusive: Targets that must not exist. Other existing files are replaced.
            bitrate: Bit/s of lossy outputs; None for the default of their format.

        Returns:
            The report.

        Raises:
            AudioSRError: If the recording cannot be read, processed or written.
        """
        output_format = self.output_format(reader, container, subtype, bitrate)
        reader.trim(self.options.start_s, self.options.end_s)
        with explain_out_of_memory(reader.name):
            bandwidth = self.file_bandwidth(reader) if self.uses_cutoff else UNKNOWN
            models = self.chain_for(reader, bandwidth)
            metadata, notes = describe(
                reader, output_format, self.options, self.outputs, self.command, models, self._settings()
            )
            options = self.options_for(reader, models)
            arguments = (output_format, options, progress, self.speaker_encoder, self.residual, exclusive, metadata)
            labelling = self._labelling(reader, output_format.sample_rate, targets, exclusive)
            report = process_file(targets, reader, models, *arguments, labelling)
        self._complete(report, models, bandwidth, options)
        report.notes += notes
        return report

    def _labelling(
        self,
        reader: AudioReader | ArrayReader,
        sample_rate: int,
        targets: Sequence[str | Path] = (),
        exclusive: Container[str | Path] = (),
    ) -> Labelling:
        """Return what finds and writes the turns of a recording, as far as anybody asks for them."""
        speakers = self.outputs[: len(self.outputs) - self.residual]
        files = targets[len(targets) - len(self.labels.formats) :] if self.labels is not None else ()
        return Labelling(self.labels, reader.name, speakers, sample_rate, files, exclusive)

    def _settings(self) -> dict[str, Any]:
        """Return the command's own settings, for provenance; None for those that nobody has set."""
        sampling = None if self.sampling is None else asdict(self.sampling)
        quality = None if self.quality == "standard" else self.quality
        chosen = {"quality": quality, "residual": self.residual or None}
        return {"rate": self.rate, "cutoff_hz": self.cutoff_hz, "sampling": sampling} | chosen

    def _complete(self, report: Report, models: Sequence[ModelCall], bandwidth: Bandwidth, options: Options) -> None:
        """Add to ``report`` what only the pipeline knows."""
        add_count(report, self.count)
        if options.voices_by_channel:
            report.notes.append(
                f"{report.input}: each channel holds one speaker; speaker1 is that of channel 1 (see --channels)"
            )
        if self.uses_cutoff:
            add_bandwidth(report, bandwidth, models)
        report.warnings += bandwidth_warnings(report.input, report.rate_in, self.rate, self.uses_cutoff, models)
