"""An upsampler for each kind of recordings, of which every recording gets the one that fits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from audiosr_cli.audio.arrays import ArrayReader
from audiosr_cli.audio.read import AudioReader
from audiosr_cli.contract import Kind
from audiosr_cli.models.audio_classifier import AudioClassifier
from audiosr_cli.models.runner import ModelCall
from audiosr_cli.runtime.memory import explain_out_of_memory
from audiosr_cli.streaming.auto import UnloadedPipeline
from audiosr_cli.streaming.kind import DetectedKind, add_kind, detect_kind
from audiosr_cli.streaming.options import Options, Samples
from audiosr_cli.streaming.pipeline import Pipeline
from audiosr_cli.streaming.recording import CountingCallback, ProgressCallback
from audiosr_cli.streaming.report import Report
from audiosr_cli.streaming.stretches import Bandwidth


@dataclass(frozen=True)
class KindPipeline(Pipeline):
    """Detects the kind of each recording, and processes it with the models for that.

    Its own ``models`` are those for speech.

    Args:
        by_kind: Pipelines for other kinds, which are loaded when the first recording needs them.
        classifier: Recognises the kinds.
        detected: What was detected for the recording that is processed.
    """

    by_kind: Mapping[Kind, UnloadedPipeline] = field(default_factory=dict)
    classifier: AudioClassifier = field(kw_only=True)
    detected: DetectedKind | None = None

    @property
    def checkpoints(self) -> dict[str, str]:
        """The SHA-256 of the checkpoint of each model that may be used, by the model's name."""
        checkpoints = super().checkpoints | {self.classifier.spec.name: self.classifier.sha256}
        for pipeline in self.by_kind.values():
            checkpoints |= pipeline.checkpoints
        return checkpoints

    def select(
        self,
        reader: AudioReader | ArrayReader,
        progress: CountingCallback | None = None,  # noqa: ARG002 - it takes no time to speak of
    ) -> Pipeline:
        """Detect the kind of an open recording, and return the pipeline for that.

        A pipe whose cutoff is known is not read ahead: it is taken for speech.

        Raises:
            AudioSRError: If the recording cannot be read, or a model cannot be loaded.
        """
        if isinstance(reader, AudioReader) and reader.path is None and self.cutoff_hz is not None:
            return Pipeline(**{own.name: getattr(self, own.name) for own in fields(Pipeline)})
        return self._detect(reader)

    def _detect(self, reader: AudioReader | ArrayReader) -> KindPipeline:
        reader.trim(self.options.start_s, self.options.end_s)
        with explain_out_of_memory(reader.name):
            detected = detect_kind(reader, self.classifier, self.options)
            other = self.by_kind.get(detected.kind)
            return replace(self, models=other.loaded.models if other else self.models, detected=detected)

    def in_memory(
        self, reader: AudioReader | ArrayReader, progress: ProgressCallback | None = None
    ) -> tuple[Samples, Report]:
        """Detect the kind of an open recording and process it, see ``Pipeline.in_memory``."""
        if self.detected is None:
            return self._detect(reader).in_memory(reader, progress)
        return super().in_memory(reader, progress)

    def file(self, reader: AudioReader, *arguments: Any, **options: Any) -> Report:
        """Detect the kind of an open recording and process it into files, see ``Pipeline.file``."""
        if self.detected is None:
            return self.select(reader).file(reader, *arguments, **options)
        return super().file(reader, *arguments, **options)

    def _complete(self, report: Report, models: Sequence[ModelCall], bandwidth: Bandwidth, options: Options) -> None:
        super()._complete(report, models, bandwidth, options)
        if self.detected is not None:
            add_kind(report, self.detected, restored=bool(models))
