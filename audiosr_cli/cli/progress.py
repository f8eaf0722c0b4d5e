"""What a batch reports while it runs: messages, JSON events, progress and a manifest."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiosr_cli.cli.console import print_error, print_message, print_output
from audiosr_cli.cli.listing import print_names

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from audiosr_cli.batch.inputs import Item
    from audiosr_cli.batch.manifest import Manifest
    from audiosr_cli.batch.run import (
        BatchNotice,
        CountingProgress,
        Event,
        Outcome,
        RecordingProgress,
        RecordingStarted,
    )
    from audiosr_cli.cli.options import Shared
    from audiosr_cli.streaming.pipeline import Pipeline

_SLOW_S = 60.0  # of estimated processing time, above which it is announced
_EVENT_INTERVAL_S = 0.5  # between two progress events of a recording
_LINE_INTERVAL_S = 5.0  # between two lines of progress


class Observer(AbstractContextManager["Observer"]):
    """Base class of everything that follows a batch; its methods do nothing."""

    def on_counting(self, event: CountingProgress) -> None:
        """Speakers are being counted."""

    def on_started(self, event: RecordingStarted) -> None:
        """Work on a recording begins."""

    def on_progress(self, event: RecordingProgress) -> None:
        """A part of a recording was read."""

    def on_notice(self, event: BatchNotice) -> None:
        """Something concerns the whole batch."""

    def on_outcome(self, outcome: Outcome) -> None:
        """A recording is done, failed or skipped."""

    def __exit__(self, *_: object) -> None:
        """The batch has ended."""


class ConsoleMessages(Observer):
    """Prints the names of outputs to standard output, and messages to standard error."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared

    def on_started(self, event: RecordingStarted) -> None:
        """Announce a recording that takes long."""
        if not self.shared.quiet and event.forecast_s is not None and event.forecast_s > _SLOW_S:
            minutes = event.forecast_s / 60
            print_message(f"{event.item.source}: will take about {minutes:.0f} minutes; fewer --steps are faster")

    def on_notice(self, event: BatchNotice) -> None:
        """Print the notice as a warning."""
        if not self.shared.quiet:
            print_message(f"warning: {event.message}")

    def on_outcome(self, outcome: Outcome) -> None:
        """Print the error, or notes and warnings, then the names of the outputs."""
        report = outcome.report
        if outcome.error is not None:
            print_error(outcome.error)
        elif report is None and not self.shared.quiet:
            print_message(f"{outcome.item.source}: skipped, because its outputs exist")
        if report is None:
            return
        for line in [] if self.shared.quiet else report.notes + [f"warning: {line}" for line in report.warnings]:
            print_message(line)
        files = report.outputs + report.labels
        if files != ["-"] and not self.shared.as_json:
            print_names(files, self.shared)
        if self.shared.verbose and not self.shared.quiet:
            seconds, elapsed = report.frames_in / report.rate_in, report.elapsed_s
            speed = seconds / max(elapsed, 1e-9)
            print_message(f"{report.input}: {seconds:.1f} s of audio in {elapsed:.1f} s ({speed:.1f} × real time)")


class JsonEvents(Observer):
    """Prints events as JSON objects, one a line.

    Args:
        everything: Whether to print all events to standard output, instead of progress only to standard error.
        progress: Whether to print progress.
    """

    def __init__(self, everything: bool, progress: bool = True) -> None:
        self.everything, self.progress = everything, progress
        self._running: dict[str, tuple[RecordingStarted, float]] = {}  # and the time of the last progress event
        self._counting: dict[str, float] = {}  # time of the last event

    def _print(self, event: str, source: str, **values: Any) -> None:
        line = json.dumps({"event": event, "input": source} | values)
        if self.everything:
            print_output(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def on_counting(self, event: CountingProgress) -> None:
        """Print how much has been analysed: when counting begins, and then at most twice a second."""
        source, now = event.item.source, time.monotonic()
        if self.progress and now - self._counting.get(source, -_EVENT_INTERVAL_S) >= _EVENT_INTERVAL_S:
            self._counting[source] = now
            fraction = event.seconds / event.total_s if event.total_s else None
            self._print("counting", source, seconds=event.seconds, fraction=fraction)

    def on_started(self, event: RecordingStarted) -> None:
        """Print the outputs, and the duration as the header states it."""
        self._running[event.item.source] = (event, time.monotonic())
        if self.everything:
            seconds = None if event.frames is None else event.frames / event.sample_rate
            self._print("start", event.item.source, outputs=list(map(str, event.targets)), seconds=seconds)

    def on_progress(self, event: RecordingProgress) -> None:
        """Print the seconds so far, at most twice a second."""
        start, last = self._running[event.item.source]
        if self.progress and time.monotonic() - last >= _EVENT_INTERVAL_S:
            self._running[event.item.source] = (start, time.monotonic())
            fraction = event.frames / start.frames if start.frames else None
            seconds = event.frames / start.sample_rate
            self._print("progress", event.item.source, seconds=seconds, fraction=fraction)

    def on_outcome(self, outcome: Outcome) -> None:
        """Print warnings, then the report or the error."""
        self._running.pop(outcome.item.source, None)
        self._counting.pop(outcome.item.source, None)
        if not self.everything:
            return
        report = outcome.report
        for line in report.warnings if report else []:
            self._print("warning", outcome.item.source, message=line)
        row: dict[str, Any] = asdict(report) if report else {"outputs": []}
        row |= {"error": str(outcome.error), "hint": outcome.error.hint} if outcome.error else {}
        row |= {"input": outcome.item.source, "status": outcome.status}
        self._print(outcome.status, outcome.item.source, **row)


class ProgressLines(Observer):
    """Prints a line to standard error every few seconds."""

    def __init__(self, count: int) -> None:
        self.count, self.finished, self._last = count, 0, time.monotonic()
        self._rates: dict[str, int] = {}

    def on_counting(self, event: CountingProgress) -> None:
        """Print how much of this recording has been analysed."""
        self._print(f"; {event.item.source}: counting speakers, {event.seconds:.0f} s")

    def on_started(self, event: RecordingStarted) -> None:
        """Remember the sample rate."""
        self._rates[event.item.source] = event.sample_rate

    def on_progress(self, event: RecordingProgress) -> None:
        """Print the position in this recording."""
        self._print(f"; {event.item.source}: {event.frames / self._rates[event.item.source]:.0f} s")

    def on_outcome(self, outcome: Outcome) -> None:
        """Count a finished recording."""
        self.finished += 1
        self._rates.pop(outcome.item.source, None)
        self._print("")

    def _print(self, details: str) -> None:
        if time.monotonic() - self._last >= _LINE_INTERVAL_S:
            self._last = time.monotonic()
            print_message(f"{self.finished} of {self.count} finished{details}")


class ProgressBars(Observer):
    """Shows a bar on standard error for each recording in work, and one for all if there are several."""

    def __init__(self, count: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[at]}"),
            TimeRemainingColumn(),
        )
        self._bar: Progress = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
        self._all = self._bar.add_task("all", total=count, at=f"0 of {count}") if count > 1 else None
        self._running: dict[str, tuple[TaskID, int]] = {}
        self.count, self.finished = count, 0

    def __enter__(self) -> ProgressBars:
        """Start drawing."""
        self._bar.start()
        return self

    def on_counting(self, event: CountingProgress) -> None:
        """Add or move a bar for the counting, in seconds."""
        if event.item.source not in self._running:
            self._add(event.item, event.total_s, 1, ": counting speakers")
        task, _ = self._running[event.item.source]
        self._bar.update(task, completed=event.seconds, at=f"{event.seconds:.0f} s")

    def on_started(self, event: RecordingStarted) -> None:
        """Add a bar, in place of that for the counting."""
        self._remove(event.item)
        self._add(event.item, event.frames, event.sample_rate)

    def _add(self, item: Item, total: float | None, sample_rate: int, what: str = "") -> None:
        name = item.source.rsplit("/", 1)[-1].replace("[", r"\[")
        self._running[item.source] = (self._bar.add_task(f"{name}{what}", total=total, at="0 s"), sample_rate)

    def _remove(self, item: Item) -> None:
        if item.source in self._running:
            self._bar.remove_task(self._running.pop(item.source)[0])

    def on_progress(self, event: RecordingProgress) -> None:
        """Move the bar."""
        task, rate = self._running[event.item.source]
        self._bar.update(task, completed=event.frames, at=f"{event.frames / rate:.0f} s")

    def on_outcome(self, outcome: Outcome) -> None:
        """Remove the bar."""
        self.finished += 1
        self._remove(outcome.item)
        if self._all is not None:
            self._bar.update(self._all, completed=self.finished, at=f"{self.finished} of {self.count}")

    def __exit__(self, *_: object) -> None:
        """Stop drawing, and restore the terminal."""
        self._bar.stop()


class ManifestObserver(Observer):
    """Appends what happens to a manifest."""

    def __init__(self, manifest: Manifest, pipeline: Pipeline) -> None:
        self.manifest, self.pipeline = manifest, pipeline

    def on_started(self, event: RecordingStarted) -> None:
        """Append the outputs before they are written."""
        self.manifest.write_started(event)

    def on_outcome(self, outcome: Outcome) -> None:
        """Append the outcome, unless the recording was skipped."""
        if outcome.status != "skipped":
            self.manifest.write_outcome(outcome, self.pipeline)


def dispatch_to(observers: Sequence[Observer]) -> Callable[[Event], None]:
    """Return a handler that passes events on to all ``observers``."""
    from audiosr_cli.batch.run import CountingProgress, RecordingProgress, RecordingStarted

    def on_event(event: Event) -> None:
        for observer in observers:
            if isinstance(event, CountingProgress):
                observer.on_counting(event)
            elif isinstance(event, RecordingStarted):
                observer.on_started(event)
            elif isinstance(event, RecordingProgress):
                observer.on_progress(event)
            else:
                observer.on_notice(event)

    return on_event


def make_observers(shared: Shared, count: int) -> list[Observer]:
    """Create the observers that the options ask for, for a batch of ``count`` recordings."""
    observers: list[Observer] = [ConsoleMessages(shared)]
    terminal = sys.stderr is not None and sys.stderr.isatty()
    if shared.as_json:
        observers.append(JsonEvents(everything=True, progress=shared.progress != "none" and not shared.quiet))
    if shared.quiet or sys.stderr is None:
        return observers
    if shared.progress == "json":
        observers.append(JsonEvents(everything=False))
    elif shared.progress == "plain":
        observers.append(ProgressLines(count))
    elif shared.progress == "auto" and terminal:
        observers.append(ProgressBars(count))
    return observers


def draw_spectrograms(outcome: Outcome, shared: Shared, target: Path) -> None:
    """Draw the spectrograms of what was processed and of its outputs into the PNG ``target``."""
    from audiosr_cli.audio.spectrogram import Panel, draw

    assert outcome.report is not None
    source = Path(outcome.item.source)
    panels = [] if outcome.item.source == "-" else [Panel(source.name, source, shared.start, shared.end)]
    draw([*panels, *(Panel(Path(name).name, Path(name)) for name in outcome.report.outputs)], target)
