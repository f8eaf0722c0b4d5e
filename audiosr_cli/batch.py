"""The way of many recordings: which files, which names, what to do with those that exist, who failed."""

from __future__ import annotations

import os
import string
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from audiosr_cli.audio.read import SUFFIXES, AudioReader
from audiosr_cli.audio.write import FORMATS, container_of
from audiosr_cli.errors import AudioSRError, InputError, OutputError, UsageError
from audiosr_cli.pipeline import Pipeline
from audiosr_cli.process import Progress, Report

FIELDS = ("stem", "speaker", "rate", "ext")
Existing = Literal["fail", "skip", "overwrite"]


@dataclass(frozen=True)
class Item:
    """One recording of a batch: where it is (``-``: standard input), and its folder below the one given."""

    source: str
    below: Path = Path()


@dataclass(frozen=True)
class Naming:
    """Where outputs go. ``output`` is a folder, a file (one input only), ``-`` or None for the current folder.

    ``template`` has the fields {stem}, {speaker} (speaker1, speaker2 … residual), {rate} and {ext}. Raises UsageError
    where it would lead out of the folder.
    """

    output: str | None
    template: str
    container: str | None = None

    def __post_init__(self) -> None:
        try:
            if unknown := [name for name in self.fields if name not in FIELDS]:
                raise UsageError(f"--template: unknown field {{{unknown[0]}}}; known: {', '.join(FIELDS)}")
            self.template.format(stem="a", speaker="b", rate=8000, ext="wav")
        except (ValueError, KeyError, IndexError) as error:
            raise UsageError(f"--template {self.template!r}: {error}") from error
        path = Path(self.template)
        if path.is_absolute() or ".." in path.parts:
            raise UsageError(f"--template {self.template!r}: must stay inside the output folder")
        if self._asked is not None and self._asked not in FORMATS:
            raise UsageError(f"--format {self.container}: known are {', '.join(FORMATS)}")
        if self._asked and self._told and self._asked != self._told:
            raise UsageError(f"--format {self.container}: the output's name says {self._told}")

    @property
    def fields(self) -> list[str]:
        """The fields that the template uses."""
        return [name for _, name, _, _ in string.Formatter().parse(self.template) if name is not None]

    @property
    def to_file(self) -> bool:
        """Whether ``output`` names one file (or pipe, or device) rather than a folder."""
        path = Path(self.output or ".")
        special = path.exists() and not path.is_dir() and not path.is_file()
        return self.output not in (None, "-") and (special or (container_of(path) is not None and not path.is_dir()))

    @property
    def chosen_container(self) -> str:
        """The output format: asked for, or told by the file's suffix, else wav."""
        return self._asked or self._told or "wav"

    @property
    def _asked(self) -> str | None:
        return None if self.container is None else self.container.lower()

    @property
    def _told(self) -> str | None:
        """What the suffix of the file, or of the template, says."""
        return container_of(Path(self.output)) if self.output and self.to_file else container_of(Path(self.template))

    def targets(self, item: Item, outputs: Sequence[str], rate: int) -> list[str | Path]:
        """One path for each of ``outputs``. A file given for several lends its stem to the template."""
        if self.output == "-":
            return ["-"]
        if self.output is not None and self.to_file:
            given = Path(self.output)
            if len(outputs) == 1:
                return [given]
            folder, stem = given.parent, given.stem
        else:
            folder = Path(self.output or ".") / item.below
            stem = "stdin" if item.source == "-" else Path(item.source).stem
        values = {"stem": stem, "rate": rate, "ext": self.chosen_container}
        return [folder / self.template.format(**values, speaker=name) for name in outputs]


@dataclass(frozen=True)
class Outcome:
    """What became of one item: a report, an error, or neither where it was skipped."""

    item: Item
    report: Report | None = None
    error: AudioSRError | None = None


def collect(inputs: Sequence[str]) -> list[Item]:
    """The recordings that ``inputs`` name: files as they are, folders walked for audio files, ``-`` once.

    Raises UsageError on ``-`` given twice or with a terminal behind it, InputError on an empty folder.
    """
    items: list[Item] = []
    for name in inputs:
        path = Path(name)
        try:
            is_folder = path.is_dir()
        except OSError:  # told when it is opened
            is_folder = False
        if name == "-":
            if sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty():
                raise UsageError("'-' reads audio from standard input, which is a terminal here; pipe a file into it")
            items.append(Item("-"))
        elif is_folder:
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            if not found:
                raise InputError(f"{name}: no audio files in this folder")
            items += [Item(str(file), file.parent.relative_to(path)) for file in found]
        else:
            items.append(Item(name))
    if sum(item.source == "-" for item in items) > 1:
        raise UsageError("'-' can be given once only")
    return items


def check(items: Sequence[Item], naming: Naming, outputs: Sequence[str]) -> None:
    """Find what cannot go well before any work is done. Raises UsageError."""
    if naming.output == "-":
        if len(items) > 1 or len(outputs) > 1:
            raise UsageError(f"-o - takes one output; this call makes {len(items) * len(outputs)}")
        if sys.stdout is None or sys.stdout.closed:
            raise UsageError("-o - writes audio to standard output, which is closed")
        if sys.stdout.isatty():
            raise UsageError("-o - writes audio to standard output, which is a terminal here; redirect it")
    if naming.to_file and len(items) > 1:
        raise UsageError(f"-o {naming.output} is one file for {len(items)} inputs; give a folder")
    folder = Path(naming.output or ".")
    if naming.output not in (None, "-") and not naming.to_file and folder.exists() and not folder.is_dir():
        raise UsageError(f"-o {naming.output}: exists and is not a folder")
    if len(outputs) > 1 and "speaker" not in naming.fields:
        raise UsageError(f"--template {naming.template!r}: {len(outputs)} outputs an input need the field {{speaker}}")
    taken: dict[str, str] = {}
    for item in items if naming.output != "-" else []:
        for target in map(str, naming.targets(item, outputs, 0)):
            if target in taken:
                raise UsageError(f"{taken[target]} and {item.source} would both become {target}; use --template or -o")
            taken[target] = item.source


def run(
    items: Iterable[Item],
    pipeline: Pipeline,
    naming: Naming,
    existing: Existing = "fail",
    subtype: str | None = None,
    progress: Callable[[Item, AudioReader], Progress | None] | None = None,
) -> Iterator[Outcome]:
    """Work through ``items``; an error of one is its outcome, and the next one's turn comes."""
    items = list(items)
    inputs = {Path(item.source).resolve() for item in items if item.source != "-"}
    for item in items:
        try:
            yield Outcome(item, report=_one(item, inputs, pipeline, naming, existing, subtype, progress))
        except BrokenPipeError:
            raise
        except AudioSRError as error:
            yield Outcome(item, error=error)
        except OSError as error:  # what the operating system refused where no better words were found
            where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
            yield Outcome(item, error=OutputError(f"{item.source}: {error.strerror}{where}"))


def _one(
    item: Item,
    inputs: set[Path],
    pipeline: Pipeline,
    naming: Naming,
    existing: Existing,
    subtype: str | None,
    progress: Callable[[Item, AudioReader], Progress | None] | None,
) -> Report | None:
    with AudioReader(item.source) as reader:
        targets = naming.targets(item, pipeline.outputs, pipeline.rate or reader.sample_rate)
        paths = [Path(target) for target in targets if target != "-"]
        for path in paths:
            if path.resolve() in inputs or (item.source != "-" and path.exists() and path.samefile(item.source)):
                raise OutputError(f"{path}: is an input of this call; choose another name or folder")
        there = [path for path in paths if path.is_file()]
        if there and existing == "fail":
            raise OutputError(f"{there[0]}: exists already; use --overwrite or --skip")
        if len(there) == len(targets) and existing == "skip":
            return None
        for path in paths:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"{path.parent}: cannot be made: {error.strerror}") from error
        step = progress(item, reader) if progress else None
        return pipeline.file(reader, targets, naming.chosen_container, subtype, step)
