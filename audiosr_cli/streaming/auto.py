"""A pipeline for each number of speakers, of which every recording gets the one that fits it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from audiosr_cli.audio.arrays import ArrayReader
from audiosr_cli.audio.read import AudioReader
from audiosr_cli.errors import UsageError
from audiosr_cli.runtime.memory import explain_out_of_memory
from audiosr_cli.streaming.counter import SpeakerCounter, excerpt, parts
from audiosr_cli.streaming.counting import SpeakerCount
from audiosr_cli.streaming.options import Samples
from audiosr_cli.streaming.pipeline import Pipeline
from audiosr_cli.streaming.recording import ProgressCallback, Report


@dataclass(frozen=True)
class AutoPipeline(Pipeline):
    """Counts the speakers of each recording, and processes it with the pipeline for so many.

    Args:
        by_count: The pipelines for 1, 2, … speakers.
        counter: Counts the speakers.
    """

    by_count: tuple[Pipeline, ...] = ()
    counter: SpeakerCounter | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of all outputs that a recording may have, whatever the number of its speakers."""
        names = dict.fromkeys(name for pipeline in self.by_count for name in pipeline.outputs)
        return tuple(sorted(names, key=lambda name: name == "residual"))

    @property
    def alternatives(self) -> tuple[tuple[str, ...], ...]:
        """The names of the outputs for each number of speakers."""
        return tuple(pipeline.outputs for pipeline in self.by_count)

    @property
    def checkpoints(self) -> dict[str, str]:
        """The SHA-256 of the checkpoint of each model that may be used, by the model's name."""
        assert self.counter is not None
        checkpoints = {model.spec.name: model.sha256 for model in self.counter.models}
        for pipeline in self.by_count:
            checkpoints |= pipeline.checkpoints
        return checkpoints

    def select(self, reader: AudioReader | ArrayReader) -> Pipeline:
        """Count the speakers of an open recording, and return the pipeline for so many.

        Raises:
            AudioSRError: If the recording cannot be read.
        """
        assert self.counter is not None
        reader.trim(self.options.start_s, self.options.end_s)
        with explain_out_of_memory(reader.name):
            count = self._count(reader, self.counter)
        pipeline = self.by_count[count.speakers - 1]
        if pipeline.uses_cutoff and (pipeline.rate or 0) <= reader.sample_rate:
            pipeline = replace(pipeline, models=())  # nothing to separate or restore, but maybe to resample
        return replace(pipeline, command=self.command, count=count)

    def _count(self, reader: AudioReader | ArrayReader, counter: SpeakerCounter) -> SpeakerCount:
        """Count the speakers of a file from parts of it, those of a pipe from its beginning, which is kept."""
        config, rate = counter.config, reader.sample_rate
        if isinstance(reader, AudioReader) and reader.path is None:
            limit_s = config.pipe_seconds
            beginning = excerpt(reader.peek(limit_s), [range(math.ceil(limit_s * rate))])
            count = counter.count(beginning, rate, self.options)
            return count if count.analysed_s < limit_s else replace(count, where=f"its first {limit_s:g} s")
        chosen = parts(self.options.count_frames(reader.frames, rate), rate, config)
        if isinstance(reader, ArrayReader):
            count = counter.count(excerpt(reader.peek(math.inf), chosen), rate, self.options)
        else:
            assert reader.path is not None
            with AudioReader(reader.path, reader.audio_stream) as again:
                again.trim(self.options.start_s, self.options.end_s)
                count = counter.count(excerpt(again.blocks(), chosen), rate, self.options)
        limit_s = config.max_seconds
        return count if count.analysed_s < limit_s else replace(count, where=f"{limit_s:g} s of it")

    def in_memory(
        self, reader: AudioReader | ArrayReader, progress: ProgressCallback | None = None
    ) -> tuple[Samples, Report]:
        """Count the speakers of an open recording and process it, see ``Pipeline.in_memory``."""
        return self.select(reader).in_memory(reader, progress)

    def file(self, *_: Any, **__: Any) -> NoReturn:
        """Raise UsageError: the number of targets depends on the recording."""
        raise UsageError("the number of outputs depends on the recording; use the pipeline that select() returns")
