"""Who speaks when, found while a recording is processed, and written beside its outputs."""

from __future__ import annotations

from collections.abc import Container, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from audiosr_cli.audio.write import GainCurve
from audiosr_cli.conversation.activity import ActivityMeter
from audiosr_cli.conversation.labels import Conversation, LabelFormat, file_names
from audiosr_cli.conversation.muting import Muting
from audiosr_cli.conversation.turns import Turn, TurnConfig, find_turns
from audiosr_cli.conversation.writer import LabelWriter
from audiosr_cli.streaming.options import Samples


@dataclass(frozen=True)
class Labels:
    """What is found and written of who speaks when.

    Attributes:
        formats: Of the label files; without any, turns are only in the report.
        config: How turns are found.
        audio: Whether the speakers' audio is written, too.
        gate: Whether tracks are muted where their speakers do not speak.
    """

    formats: tuple[LabelFormat, ...] = ()
    config: TurnConfig = field(default_factory=TurnConfig)
    audio: bool = True
    gate: bool = False

    def files(self, outputs: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names of all files of a recording whose audio has the names ``outputs``."""
        return (*(outputs if self.audio else ()), *file_names(self.formats))


class Labelling:
    """Find the turns of one recording, and write its label files; a context manager.

    Args:
        labels: What is wanted; None for nothing.
        name: Of the recording; a path loses its folders and its suffix.
        speakers: Names of the first outputs, which are those of speakers.
        sample_rate: Of the outputs in Hz.
        targets: Of the label files.
        exclusive: Targets that must not exist. Other existing files are replaced.
    """

    def __init__(
        self,
        labels: Labels | None,
        name: str,
        speakers: tuple[str, ...],
        sample_rate: int,
        targets: Sequence[str | Path] = (),
        exclusive: Container[str | Path] = (),
    ) -> None:
        self.labels, self.speakers, self.name = labels, speakers, Path(name).stem
        self.formats = labels.formats if labels is not None else ()
        self.gates = labels is not None and labels.gate
        self._writers = [
            LabelWriter(target, label_format, target in exclusive)
            for target, label_format in zip(targets, self.formats if targets else (), strict=True)
        ]
        self._files, self._meter = ExitStack(), ActivityMeter(sample_rate, len(speakers))

    def __enter__(self) -> Self:
        for writer in self._writers:
            self._files.enter_context(writer)
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def push(self, block: Samples, outputs: int) -> None:
        """Add a block (S * C, T) of all ``outputs``, of which the first ones are speakers."""
        if self.labels is not None:
            self._meter.push(block[: len(block) // outputs * len(self.speakers)])

    def finish(self) -> list[Turn]:
        """Find the turns, and write them to the disk; none if nothing is wanted."""
        if self.labels is None:
            return []
        duration_s = self._meter.samples / self._meter.sample_rate
        found = find_turns(self._meter.levels(), self.speakers, self.labels.config)
        turns = [replace(turn, end_s=min(turn.end_s, duration_s)) for turn in found]  # the last frame may be shorter
        conversation = Conversation(self.name, duration_s, self.speakers, tuple(turns))
        for writer in self._writers:
            writer.finish(conversation)
        return turns

    def notes(self, name: str, turns: Sequence[Turn]) -> list[str]:
        """Say how often and how long each speaker speaks in the recording called ``name``, if labels are written."""
        if not self.formats:
            return []
        spoken = []
        for speaker in self.speakers:
            lengths = [turn.end_s - turn.start_s for turn in turns if turn.speaker == speaker]
            plural = "" if len(lengths) == 1 else "s"
            spoken.append(f"{speaker} {len(lengths)} turn{plural}, {sum(lengths):.0f} s")
        return [f"{name}: {'; '.join(spoken)}"]

    def gains(self, turns: Sequence[Turn], output: int) -> GainCurve | None:
        """Return the gain over time of an output that is gated, by its number; None for others."""
        if not self.gates or output >= len(self.speakers):
            return None
        own = (turn for turn in turns if turn.speaker == self.speakers[output])
        return Muting(own, self._meter.sample_rate).gains

    def commit(self) -> None:
        """Give the label files their names."""
        for writer in self._writers:
            writer.commit()
