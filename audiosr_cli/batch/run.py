"""Process many recordings: output policy, events on the way, and one outcome for each recording."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from audiosr_cli.audio.read import AudioReader
from audiosr_cli.batch.inputs import Item
from audiosr_cli.batch.naming import Naming
from audiosr_cli.errors import AudioSRError, OutputError
from audiosr_cli.files.atomic import file_of, sweep
from audiosr_cli.files.fingerprint import Fingerprint, absolute, fingerprint
from audiosr_cli.runtime.memory import explain_out_of_memory
from audiosr_cli.streaming.pipeline import Pipeline
from audiosr_cli.streaming.report import Report

Existing = Literal["fail", "skip", "overwrite"]
Status = Literal["done", "failed", "skipped"]


@dataclass(frozen=True)
class OutputPlan:
    """Where the outputs of a batch go, in which format, and what may be replaced.

    Attributes:
        naming: Names of the outputs.
        existing: What to do if an output exists.
        subtype: Sample format of the outputs; None follows the input.
        bitrate: Bit/s of lossy outputs; None for the default of their format.
        fingerprints: Whether to hash inputs and outputs, for a manifest.
        forecasts: Whether to estimate how long slow recordings take.
        own_outputs: Absolute paths that may be replaced whatever ``existing`` says.
        input_inodes: Device and inode of every input; these files are never replaced.
        keep_time: Whether outputs get the modification time of their recording.
    """

    naming: Naming
    existing: Existing = "fail"
    subtype: str | None = None
    bitrate: int | None = None
    fingerprints: bool = False
    forecasts: bool = False
    own_outputs: frozenset[str] = frozenset()
    input_inodes: frozenset[tuple[int, int]] = frozenset()
    keep_time: bool = False

    def protecting(self, items: Iterable[Item]) -> OutputPlan:
        """Return a copy that never replaces ``items``."""
        inodes = {_inode(Path(item.source)) for item in items if item.source != "-"}
        return replace(self, input_inodes=self.input_inodes | {inode for inode in inodes if inode is not None})

    def targets(self, item: Item, outputs: Sequence[str], rate: int) -> list[str | Path]:
        """List the paths of ``outputs`` of ``item``.

        Args:
            item: The recording.
            outputs: Names of the outputs, such as ``speaker1``.
            rate: Sample rate of the outputs in Hz.

        Returns:
            One path for each output; an empty list if the recording is to be skipped.

        Raises:
            OutputError: If an output must not be written.
        """
        targets = self.naming.targets(item, outputs, rate)
        paths = [Path(target) for target in targets if target != "-"]
        for path in paths:
            if _inode(path) in self.input_inodes:
                raise OutputError(f"{path}: is an input of this call; choose another name or folder")
            self.naming.check_links(path)
        existing = [path for path in paths if os.path.lexists(path) and (path.is_file() or not path.exists())]
        protected = [path for path in existing if absolute(path) not in self.own_outputs]
        if protected and self.existing == "fail":
            raise OutputError(f"{protected[0]}: already exists; use --overwrite or --skip")
        if protected and len(existing) == len(targets) and self.existing == "skip":
            return []
        for path in existing:
            self.naming.check_link(path)
        return targets

    def possible_targets(self, item: Item, alternatives: Sequence[Sequence[str]], rate: int) -> list[str | Path]:
        """List the paths that outputs of ``item`` may get, if it is one of several ``alternatives`` which it has.

        Args:
            item: The recording.
            alternatives: Names of the outputs, of each alternative.
            rate: Sample rate of the outputs in Hz.

        Returns:
            The paths; an empty list if the recording is to be skipped in any case.

        Raises:
            OutputError: If the outputs of no alternative may be written.
        """
        targets, errors = dict[str | Path, None](), list[OutputError]()
        for outputs in alternatives:
            try:
                targets |= dict.fromkeys(self.targets(item, outputs, rate))
            except OutputError as error:
                errors.append(error)
        if len(errors) == len(alternatives):
            raise errors[0]
        return list(targets)

    def must_be_new(self, targets: Iterable[str | Path]) -> frozenset[str | Path]:
        """Return those of ``targets`` that must still not exist when they are written."""
        return frozenset(name for name in targets if self.existing == "fail" and absolute(name) not in self.own_outputs)


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


@dataclass(frozen=True)
class CountingProgress:
    """The speakers of a recording are being counted, before work on it begins.

    Attributes:
        item: The recording.
        seconds: Seconds of it that have been analysed.
        total_s: Seconds that will be analysed; None if that is unknown.
    """

    item: Item
    seconds: float
    total_s: float | None


@dataclass(frozen=True)
class RecordingStarted:
    """Work on a recording begins.

    Attributes:
        item: The recording.
        targets: Paths of its outputs, or ``-``.
        frames: Samples to read according to its header; None if it does not say how long it is.
        sample_rate: In Hz.
        forecast_s: Estimated processing time; None if it is short or unknown.
    """

    item: Item
    targets: list[str | Path]
    frames: int | None
    sample_rate: int
    forecast_s: float | None = None


@dataclass(frozen=True)
class RecordingProgress:
    """So many ``frames`` (samples of one channel) of a recording have been read."""

    item: Item
    frames: int


@dataclass(frozen=True)
class BatchNotice:
    """A message about the batch as a whole."""

    message: str


@dataclass(frozen=True)
class Outcome:
    """Result of one recording: a report, an error, or neither if it was skipped.

    Attributes:
        item: The recording.
        report: What was done.
        error: What went wrong.
        input_fingerprint: Of the input, if the plan asks for fingerprints.
        output_fingerprints: Of every output file, if the plan asks for fingerprints.
    """

    item: Item
    report: Report | None = None
    error: AudioSRError | None = None
    input_fingerprint: Fingerprint | None = None
    output_fingerprints: list[Fingerprint] = field(default_factory=list)

    @property
    def status(self) -> Status:
        """Summarise the outcome."""
        return "failed" if self.error else "done" if self.report else "skipped"


Event = CountingProgress | RecordingStarted | RecordingProgress | BatchNotice
EventHandler = Callable[[Event], None]


def run(
    items: Sequence[Item], pipeline: Pipeline, plan: OutputPlan, on_event: EventHandler | None = None
) -> Generator[Outcome, None, None]:
    """Process ``items`` one after the other and yield their outcomes; an error does not stop the batch."""
    for item in items:
        yield process_item(item, pipeline, plan, on_event)


def process_item(item: Item, pipeline: Pipeline, plan: OutputPlan, on_event: EventHandler | None = None) -> Outcome:
    """Process one recording; an error that a user can meet becomes its outcome."""
    return _catch_errors(item, lambda: _process(item, pipeline, plan, on_event or (lambda _: None)))


def dry_run(item: Item, pipeline: Pipeline, plan: OutputPlan) -> tuple[Outcome, list[str | Path]]:
    """Predict the outcome of one recording from its header, and where its outputs may go; write nothing."""
    targets: list[str | Path] = []

    def check() -> Outcome:
        rate = pipeline.rate
        if item.source != "-" and Path(item.source).is_file():
            with AudioReader(item.source, pipeline.options.audio_stream) as reader:
                container = plan.naming.output_container
                rate = pipeline.output_format(reader, container, plan.subtype, plan.bitrate).sample_rate
        elif item.source != "-" and not Path(item.source).exists():
            AudioReader(item.source)
        targets.extend(plan.possible_targets(item, pipeline.alternatives, rate or 0))
        return Outcome(item)

    return _catch_errors(item, check), targets


def remove_leftovers(items: Sequence[Item], naming: Naming, outputs: Sequence[str], rate: int = 0) -> None:
    """Remove temporary files that killed runs left in the output folders of ``items``."""
    targets = [target for item in items for target in naming.targets(item, outputs, rate) if target != "-"]
    for folder in {file_of(Path(target)).parent for target in targets}:
        sweep(folder)


def _catch_errors(item: Item, process: Callable[[], Outcome]) -> Outcome:
    try:
        with explain_out_of_memory(item.source):
            return process()
    except BrokenPipeError:
        raise
    except AudioSRError as error:
        return Outcome(item, error=_without_traceback(error))
    except OSError as error:  # of the operating system, not translated anywhere below
        where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        return Outcome(item, error=OutputError(f"{item.source}: {error.strerror or error}{where}"))


def _without_traceback(error: AudioSRError) -> AudioSRError:
    """Return ``error`` without its causes and traceback, which would keep readers and writers alive."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _process(item: Item, pipeline: Pipeline, plan: OutputPlan, on_event: EventHandler) -> Outcome:
    with AudioReader(item.source, pipeline.options.audio_stream) as reader:
        rate, alternatives = pipeline.rate or reader.sample_rate, pipeline.alternatives
        if len(alternatives) > 1 and not plan.possible_targets(item, alternatives, rate):
            return Outcome(item)
        pipeline = pipeline.select(reader, lambda *seconds: on_event(CountingProgress(item, *seconds)))
        targets = plan.targets(item, pipeline.files, rate)
        if not targets:
            return Outcome(item)
        pipeline.output_format(reader, plan.naming.output_container, plan.subtype, plan.bitrate)  # or an error
        _create_folders(targets)
        input_fingerprint = fingerprint(reader.path) if plan.fingerprints and reader.path else None
        forecast_s = pipeline.forecast(reader) if plan.forecasts else None
        frames = pipeline.options.count_frames(reader.frames, reader.sample_rate)
        on_event(RecordingStarted(item, targets, frames, reader.sample_rate, forecast_s))
        report = pipeline.file(
            reader,
            targets,
            plan.naming.output_container,
            plan.subtype,
            lambda frames: on_event(RecordingProgress(item, frames)),
            plan.must_be_new(targets),
            plan.bitrate,
        )
        if plan.keep_time:
            report.notes += _copy_time(reader, targets)
    paths = [Path(target) for target in targets if target != "-"] if plan.fingerprints else []
    fingerprints = [fingerprint(path) for path in paths if path.is_file()]
    return Outcome(item, report, input_fingerprint=input_fingerprint, output_fingerprints=fingerprints)


def _copy_time(reader: AudioReader, targets: Sequence[str | Path]) -> list[str]:
    """Give the outputs the modification time of the recording; return a note if it has none, or they take none."""
    if reader.path is None:
        return [f"{reader.name}: has no modification time to keep"]
    status = reader.path.stat()
    try:
        for target in targets:
            if target != "-":
                os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    except OSError as error:  # of the file system; the outputs are complete
        return [f"{reader.name}: the modification time of its outputs cannot be set: {error.strerror}"]
    return []


def _create_folders(targets: Sequence[str | Path]) -> None:
    for path in (Path(target) for target in targets if target != "-"):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{path.parent}: cannot be created: {error.strerror}") from error
