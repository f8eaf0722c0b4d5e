"""A pipeline for each number of speakers, of which every recording gets the one that fits it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NoReturn

from audiosr_cli.audio.arrays import ArrayReader
from audiosr_cli.audio.read import AudioReader
from audiosr_cli.errors import UsageError
from audiosr_cli.runtime.memory import explain_out_of_memory
from audiosr_cli.streaming.counter import SpeakerCounter
from audiosr_cli.streaming.counting import SpeakerCount
from audiosr_cli.streaming.excerpts import open_excerpt
from audiosr_cli.streaming.options import Samples
from audiosr_cli.streaming.pipeline import Pipeline
from audiosr_cli.streaming.recording import CountingCallback, ProgressCallback
from audiosr_cli.streaming.report import Report


@dataclass(frozen=True, eq=False)
class UnloadedPipeline:
    """A pipeline whose models are loaded when the first recording needs them.

    Args:
        outputs: The names of its outputs.
        checkpoints: The SHA-256 of the checkpoint of each model, by the model's name.
        build: Loads the models. It is called once.
    """

    outputs: tuple[str, ...]
    checkpoints: dict[str, str]
    build: Callable[[], Pipeline]

    @cached_property
    def loaded(self) -> Pipeline:
        """The pipeline, with its models. Raises ModelError if one cannot be loaded."""
        return self.build()


@dataclass(frozen=True)
class AutoPipeline(Pipeline):
    """Counts the speakers of each recording, and processes it with the pipeline for so many.

    Args:
        by_count: The pipelines for 1, 2, … speakers, loaded or not.
        counter: Counts the speakers.
    """

    by_count: tuple[Pipeline | UnloadedPipeline, ...] = ()
    counter: SpeakerCounter = field(kw_only=True)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of all outputs that a recording may have, whatever the number of its speakers."""
        names = dict.fromkeys(name for pipeline in self.by_count for name in pipeline.outputs)
        return tuple(sorted(names, key=lambda name: name == "residual"))

    @property
    def alternatives(self) -> tuple[tuple[str, ...], ...]:
        """The names of the files for each number of speakers."""
        outputs = (pipeline.outputs for pipeline in self.by_count)
        return tuple(names if self.labels is None else self.labels.files(names) for names in outputs)

    @property
    def checkpoints(self) -> dict[str, str]:
        """The SHA-256 of the checkpoint of each model that may be used, by the model's name."""
        checkpoints = {model.spec.name: model.sha256 for model in self.counter.models}
        for pipeline in self.by_count:
            checkpoints |= pipeline.checkpoints
        return checkpoints

    def select(self, reader: AudioReader | ArrayReader, progress: CountingCallback | None = None) -> Pipeline:
        """Count the speakers of an open recording, and return the pipeline for so many.

        Args:
            reader: The recording.
            progress: Called with the seconds analysed so far, and those to analyse; None if that is unknown.

        Raises:
            AudioSRError: If the recording cannot be read, or a model cannot be loaded.
        """
        reader.trim(self.options.start_s, self.options.end_s)
        with explain_out_of_memory(reader.name):
            count = self._count(reader, self.counter, progress)
        chosen = self.by_count[count.speakers - 1]
        pipeline = chosen.loaded if isinstance(chosen, UnloadedPipeline) else chosen
        if pipeline.uses_cutoff and (pipeline.rate or 0) <= reader.sample_rate:
            pipeline = replace(pipeline, models=())  # nothing to separate or restore, but maybe to resample
        return replace(pipeline, command=self.command, count=count)

    def _count(
        self, reader: AudioReader | ArrayReader, counter: SpeakerCounter, progress: CountingCallback | None
    ) -> SpeakerCount:
        """Count the speakers of a file from parts of it, those of a pipe from its beginning, which is kept."""
        config, rate = counter.config, reader.sample_rate
        frames = self.options.count_frames(reader.frames, rate)
        with open_excerpt(reader, self.options, config.max_seconds, config.part_seconds, config.pipe_seconds) as (
            blocks,
            chosen,
        ):
            if progress is not None:
                total = None if frames is None else min(frames, sum(map(len, chosen)))
                blocks = _follow(blocks, rate, total, progress)
            count = counter.count(blocks, rate, self.options)
        return replace(count, where=_where(count.analysed_s, chosen, frames))

    def in_memory(
        self, reader: AudioReader | ArrayReader, progress: ProgressCallback | None = None
    ) -> tuple[Samples, Report]:
        """Count the speakers of an open recording and process it, see ``Pipeline.in_memory``."""
        return self.select(reader).in_memory(reader, progress)

    def file(self, *_: Any, **__: Any) -> NoReturn:
        """Raise UsageError: the number of targets depends on the recording."""
        raise UsageError("the number of outputs depends on the recording; use the pipeline that select() returns")


def _follow(
    blocks: Iterator[Samples], sample_rate: int, frames: int | None, progress: CountingCallback
) -> Iterator[Samples]:
    """Yield ``blocks`` (C, T), of ``frames`` in all, and call ``progress`` before each with the seconds so far."""
    done, total_s = 0, None if frames is None else frames / sample_rate
    for block in blocks:
        progress(done / sample_rate, total_s)
        yield block
        done += block.shape[1]


def _where(analysed_s: float, chosen: Sequence[range], frames: int | None) -> str:
    """Say in which part of a recording its speakers were counted, if not in all of it."""
    if len(chosen) > 1:
        return f"{analysed_s:.0f} s of it"
    return f"its first {analysed_s:.0f} s" if frames is None or frames > len(chosen[0]) else ""
