"""The way of many recordings: what to do with outputs that exist, what happens meanwhile, who failed."""

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
from audiosr_cli.files.atomic import sweep
from audiosr_cli.files.fingerprint import Fingerprint, absolute, fingerprint
from audiosr_cli.runtime.memory import explain_out_of_memory
from audiosr_cli.streaming.pipeline import Pipeline
from audiosr_cli.streaming.recording import Report

Existing = Literal["fail", "skip", "overwrite"]
Status = Literal["done", "failed", "skipped"]


@dataclass(frozen=True)
class Plan:
    """What happens to every recording of a batch, beside the models.

    ``own`` are outputs (absolute) that may be replaced whatever ``existing`` says. With ``fingerprints`` files are
    hashed for a manifest, with ``foretells`` long waits are. ``inputs`` (device, inode) are never written onto.
    """

    naming: Naming
    existing: Existing = "fail"
    subtype: str | None = None
    fingerprints: bool = False
    foretells: bool = False
    own: frozenset[str] = frozenset()
    inputs: frozenset[tuple[int, int]] = frozenset()

    def guarding(self, items: Iterable[Item]) -> Plan:
        """The same, with ``items`` among the inputs."""
        found = {_inode(Path(item.source)) for item in items if item.source != "-"}
        return replace(self, inputs=self.inputs | {inode for inode in found if inode is not None})

    def targets(self, item: Item, outputs: Sequence[str], rate: int) -> list[str | Path]:
        """Where ``outputs`` of ``item`` go; nowhere where they are to be skipped. Raises OutputError."""
        targets = self.naming.targets(item, outputs, rate)
        paths = [Path(target) for target in targets if target != "-"]
        for path in paths:
            if _inode(path) in self.inputs:
                raise OutputError(f"{path}: is an input of this call; choose another name or folder")
            self.naming.check_links(path)
        there = [path for path in paths if os.path.lexists(path) and (path.is_file() or not path.exists())]
        kept = [path for path in there if absolute(path) not in self.own]
        if kept and self.existing == "fail":
            raise OutputError(f"{kept[0]}: exists already; use --overwrite or --skip")
        return [] if kept and len(there) == len(targets) and self.existing == "skip" else targets

    def fresh(self, targets: Iterable[str | Path]) -> frozenset[str | Path]:
        """Those of ``targets`` that nobody may have made meanwhile."""
        return frozenset(name for name in targets if self.existing == "fail" and absolute(name) not in self.own)


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        known = path.stat()
    except (OSError, ValueError):
        return None
    return known.st_dev, known.st_ino


@dataclass(frozen=True)
class Started:
    """Work on ``item`` begins; ``frames`` as its header promises, ``forecast_s`` where it will take long."""

    item: Item
    targets: list[str | Path]
    frames: int | None
    sample_rate: int
    forecast_s: float | None = None


@dataclass(frozen=True)
class Advanced:
    """So many ``frames`` of ``item`` have been read."""

    item: Item
    frames: int


@dataclass(frozen=True)
class Noted:
    """Something that is to be known of the batch as a whole."""

    line: str


@dataclass(frozen=True)
class Outcome:
    """What became of one item: a report, an error, or neither where it was skipped. Fingerprints if asked for."""

    item: Item
    report: Report | None = None
    error: AudioSRError | None = None
    source: Fingerprint | None = None
    made: list[Fingerprint] = field(default_factory=list)

    @property
    def status(self) -> Status:
        """In a word."""
        return "failed" if self.error else "done" if self.report else "skipped"


Event = Started | Advanced | Noted
Listener = Callable[[Event], None]


def run(
    items: Sequence[Item], pipeline: Pipeline, plan: Plan, listen: Listener | None = None
) -> Generator[Outcome, None, None]:
    """Work through ``items``; an error of one is its outcome, and the next one's turn comes."""
    for item in items:
        yield work(item, pipeline, plan, listen)


def work(item: Item, pipeline: Pipeline, plan: Plan, listen: Listener | None = None) -> Outcome:
    """One recording through ``pipeline``; errors that a user can meet are its outcome."""
    return _guarded(item, lambda: _one(item, pipeline, plan, listen or (lambda _: None)))


def rehearse(item: Item, pipeline: Pipeline, plan: Plan) -> tuple[Outcome, list[str | Path]]:
    """What ``work`` would come to, as far as the header tells, and where its outputs would go; writes nothing."""
    targets: list[str | Path] = []

    def look() -> Outcome:
        rate = pipeline.rate
        if item.source != "-" and Path(item.source).is_file():
            with AudioReader(item.source) as reader:
                rate = pipeline.output_format(reader, plan.naming.chosen_container, plan.subtype).sample_rate
        elif item.source != "-" and not Path(item.source).exists():
            AudioReader(item.source)
        targets.extend(plan.targets(item, pipeline.outputs, rate or 0))
        return Outcome(item)

    return _guarded(item, look), targets


def tidy(items: Sequence[Item], naming: Naming, outputs: Sequence[str], rate: int = 0) -> None:
    """Remove what killed runs left of their temporary files where outputs will be."""
    targets = [target for item in items for target in naming.targets(item, outputs, rate) if target != "-"]
    for folder in {Path(target).parent for target in targets}:
        sweep(folder)


def _guarded(item: Item, act: Callable[[], Outcome]) -> Outcome:
    try:
        with explain_out_of_memory(item.source):
            return act()
    except BrokenPipeError:
        raise
    except AudioSRError as error:
        return Outcome(item, error=_bare(error))
    except OSError as error:  # what the operating system refused where no better words were found
        where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        return Outcome(item, error=OutputError(f"{item.source}: {error.strerror or error}{where}"))


def _bare(error: AudioSRError) -> AudioSRError:
    """``error`` without what led to it, which holds on to whatever was at work there."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _one(item: Item, pipeline: Pipeline, plan: Plan, listen: Listener) -> Outcome:
    with AudioReader(item.source) as reader:
        targets = plan.targets(item, pipeline.outputs, pipeline.rate or reader.sample_rate)
        if not targets:
            return Outcome(item)
        _make_folders(targets)
        source = fingerprint(reader.path) if plan.fingerprints and reader.path else None
        forecast_s = pipeline.forecast(reader) if plan.foretells else None
        listen(Started(item, targets, reader.frames, reader.sample_rate, forecast_s))
        report = pipeline.file(
            reader,
            targets,
            plan.naming.chosen_container,
            plan.subtype,
            lambda frames: listen(Advanced(item, frames)),
            plan.fresh(targets),
        )
    files = [Path(target) for target in targets if target != "-"] if plan.fingerprints else []
    made = [fingerprint(path) for path in files if path.is_file()]
    return Outcome(item, report, source=source, made=made)


def _make_folders(targets: Sequence[str | Path]) -> None:
    for path in (Path(target) for target in targets if target != "-"):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{path.parent}: cannot be made: {error.strerror}") from error
