"""Models in a row, and which of them a recording needs."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from audiosr_cli.audio.arrays import ArrayReader
from audiosr_cli.audio.read import AudioReader
from audiosr_cli.audio.write import OutputFormat, choose_format, container_of
from audiosr_cli.dsp.bandwidth import BandMeter
from audiosr_cli.errors import UsageError
from audiosr_cli.models import Model
from audiosr_cli.models.diffusion import Sampling
from audiosr_cli.models.runner import ModelCall, ModelRunner
from audiosr_cli.models.speaker_encoder import SpeakerEncoder
from audiosr_cli.runtime.memory import explain_out_of_memory
from audiosr_cli.runtime.threads import thread_pool
from audiosr_cli.streaming.in_memory import process_in_memory
from audiosr_cli.streaming.options import Options, Samples
from audiosr_cli.streaming.recording import ProgressCallback, Report, process_file

Source = str | os.PathLike[str]

_PASSED = 0.9  # of half its rate: where a resampled recording begins to fade out
_FADED = 0.945  # of half its rate: where it has lost 3 dB
_TOLD = 0.985  # of where content is found to end: models expect the point where 3 dB are lost
_FULL_HZ = 20000.0  # content up to here lacks nothing
_FEW_WINDOWS = 16
_AHEAD_S = 30.0  # of a pipe that are heard to find where its content ends


@dataclass(frozen=True)
class Pipeline:
    """Models in a row, ready to run: ``rate`` (Hz) is the output's, None for the input's own.

    ``speaker_encoder`` keeps speakers on their tracks. An upsampler that comes first restores what lies above
    ``cutoff_hz``, or above the detected cutoff; a diffusion model draws by ``sampling``. With ``residual``, for which
    the rate must be the input's, what the sources leave of it is an output, too.
    """

    models: tuple[Model, ...]
    rate: int | None
    options: Options
    speaker_encoder: SpeakerEncoder | None = None
    residual: bool = False
    cutoff_hz: float | None = None
    sampling: Sampling | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """What each output of a recording is called."""
        speakers = int(np.prod([model.spec.sources for model in self.models if model.spec.inputs == 1]))
        return (*(f"speaker{i + 1}" for i in range(speakers)), *(["residual"] if self.residual else []))

    @property
    def checkpoints(self) -> dict[str, str]:
        """The SHA-256 of every model's checkpoint, by the model's name."""
        loaded = (*self.models, *([self.speaker_encoder] if self.speaker_encoder is not None else []))
        return {model.spec.name: model.sha256 for model in loaded}

    @property
    def uses_cutoff(self) -> bool:
        """Whether what is done depends on where a recording's content ends."""
        return bool(self.models) and self.models[0].spec.task == "upsample"

    def find_cutoff(self, blocks: Iterable[Samples], sample_rate: int) -> float | None:
        """Where the content of ``blocks`` (C, T) ends, in Hz, or is said to; None where there is hardly any."""
        if self.cutoff_hz is not None:
            return min(self.cutoff_hz, sample_rate / 2)
        meter = BandMeter(sample_rate)
        for block in blocks:
            meter.push(self.options.pick_channels(block))
        return meter.cutoff()

    def chain(self, sample_rate: int, cutoff_hz: float | None = None) -> tuple[ModelCall, ...]:
        """The models, with arguments, that a recording at ``sample_rate`` Hz needs whose content ends at ``cutoff_hz``.

        Restorers only where it has highs, upsamplers that come first only where it has none and is not silent.
        """
        enough = any(model.spec.inputs > 1 for model in self.models) and (self.rate or 0) <= sample_rate
        full = min(_FULL_HZ, _PASSED * (self.rate or sample_rate) / 2)
        if self.uses_cutoff and (cutoff_hz is None or cutoff_hz >= full):
            return ()

        def needed(model: Model) -> bool:
            if model.spec.inputs > 1:
                return _PASSED * sample_rate / 2 > model.spec.cutoff_hz
            return not (enough and model.spec.task == "upsample")

        calls, cutoff = list[ModelCall](), min(_TOLD * (cutoff_hz or math.inf), _FADED * sample_rate / 2)
        for model in filter(needed, self.models):
            calls.append(self._call(model.fitted(sample_rate, model.spec.sources), cutoff))
            cutoff = min(cutoff, _FADED * calls[-1].spec.out_rate / 2)
        return tuple(calls)

    def _call(self, model: Model, cutoff_hz: float | None = None) -> ModelCall:
        """``model`` with what it needs of a recording whose content ends at ``cutoff_hz``."""
        spec = model.spec
        return ModelCall(model, cutoff_hz if spec.uses_cutoff else None, self.sampling if spec.uses_position else None)

    def array(self, audio: NDArray[np.floating], sample_rate: int) -> Samples:
        """A signal (T,) or (C, T) as (S, C', T') float32."""
        return self.in_memory(ArrayReader(audio, sample_rate))[0]

    def in_memory(
        self, reader: AudioReader | ArrayReader, progress: ProgressCallback | None = None
    ) -> tuple[Samples, Report]:
        """Process an open recording, and keep the output in memory.

        Args:
            reader: The recording.
            progress: Called with the number of frames read so far.

        Returns:
            The output (S, C', T') float32, one of S for each of ``outputs``, and the report.

        Raises:
            AudioSRError: If the recording cannot be read or processed.
        """
        rate = self.output_format(reader, subtype="FLOAT").sample_rate
        with explain_out_of_memory(reader.name):
            cutoff_hz = self.find_cutoff(reader.peek(math.inf), reader.sample_rate) if self.uses_cutoff else None
            models = self.chain(reader.sample_rate, cutoff_hz)
            audio, report = process_in_memory(
                reader, models, rate, self.options, progress, self.speaker_encoder, self.residual
            )
        self._complete(report, reader, models, cutoff_hz)
        return audio, report

    def file_cutoff(self, reader: AudioReader) -> float | None:
        """Where the content of an open recording ends; a file is heard whole, of a pipe the first 30 s."""
        if reader.path is None or self.cutoff_hz is not None:
            return self.find_cutoff(reader.peek(_AHEAD_S), reader.sample_rate)
        with AudioReader(reader.path) as again:
            return self.find_cutoff(again.blocks(), again.sample_rate)

    def forecast(self, reader: AudioReader) -> float | None:
        """Seconds that an open recording will take, by one window of a model that draws.

        None without such a model, and for a few windows, which are done as soon as told of.
        """
        drawing = next((model for model in self.models if model.spec.uses_position), None)
        if drawing is None or reader.frames is None:
            return None
        spec, seconds = drawing.spec, reader.frames / reader.sample_rate
        windows = self.options.count_channels(reader.channels, reader.name) * seconds * spec.in_rate / spec.hop
        if windows < _FEW_WINDOWS:
            return None
        draw, begun = ModelRunner(self._call(drawing), 1, self.options.bf16), time.monotonic()
        with thread_pool(1):
            draw(torch.zeros(1, 1, spec.window), torch.zeros(1, dtype=torch.long))
        return (time.monotonic() - begun) * windows / (self.options.threads if drawing.device.type == "cpu" else 1)

    def write(self, source: Source, targets: Sequence[str | Path]) -> Report:
        """A recording into ``targets``, one a source; the first one's suffix tells the format, wav otherwise."""
        if len(targets) != len(self.outputs):
            raise UsageError(f"{len(targets)} target(s) for {len(self.outputs)} outputs")
        with AudioReader(source) as reader:
            return self.file(reader, targets, container_of(Path(targets[0])) or "wav")

    def output_format(
        self, reader: AudioReader | ArrayReader, container: str = "wav", subtype: str | None = None
    ) -> OutputFormat:
        """What the outputs of an open recording are. Raises AudioSRError where its header tells that it cannot be."""
        rate = self.rate or reader.sample_rate
        if self.uses_cutoff and rate < reader.sample_rate:
            raise UsageError(
                f"--rate {rate}: {reader.name} is at {reader.sample_rate} Hz, models go up only; see --model none"
            )
        channels = self.options.count_channels(reader.channels, reader.name)
        return choose_format(container, subtype, reader.subtype, rate, channels)

    def file(
        self,
        reader: AudioReader,
        targets: Sequence[str | Path],
        container: str = "wav",
        subtype: str | None = None,
        progress: ProgressCallback | None = None,
        exclusive: Container[str | Path] = (),
    ) -> Report:
        """Process an open recording into ``targets``, one for each output."""
        form = self.output_format(reader, container, subtype)
        with explain_out_of_memory(reader.name):
            cutoff_hz = self.file_cutoff(reader) if self.uses_cutoff else None
            models = self.chain(reader.sample_rate, cutoff_hz)
            report = process_file(
                targets, reader, models, form, self.options, progress, self.speaker_encoder, self.residual, exclusive
            )
        self._complete(report, reader, models, cutoff_hz)
        return report

    def _complete(
        self,
        report: Report,
        reader: AudioReader | ArrayReader,
        models: Sequence[ModelCall],
        cutoff_hz: float | None,
    ) -> None:
        """Add to ``report`` what only the pipeline knows."""
        if self.uses_cutoff:
            report.cutoff_hz = cutoff_hz
            report.notes.append(_told(reader.name, cutoff_hz, models))
        report.warnings += self._lost(reader, models)

    def _lost(self, reader: AudioReader | ArrayReader, models: Sequence[ModelCall]) -> list[str]:
        """What of a recording's rate and band did not become what one might think."""
        lines = []
        kept = self.rate is not None and self.rate <= reader.sample_rate
        if kept and not (self.uses_cutoff and self.rate == reader.sample_rate):
            lines.append(f"{reader.name}: is at {reader.sample_rate} Hz already; its rate was not raised")
        guided = any(model.spec.inputs > 1 for model in models)
        rates = [model.spec.out_rate for model in models] or [reader.sample_rate]
        highest = rates[-1] if guided else min(rates)
        if (self.rate is not None or guided) and reader.sample_rate > highest:
            lines.append(f"{reader.name}: what lay above {highest // 2} Hz is gone; the model ends there")
        return lines


def _told(name: str, cutoff_hz: float | None, models: Sequence[ModelCall]) -> str:
    """What a person is told of where the content ends."""
    if cutoff_hz is None:
        return f"{name}: is silent; nothing to restore"
    return f"{name}: content ends at {cutoff_hz / 1000:.1f} kHz; {'restored above' if models else 'nothing to restore'}"
