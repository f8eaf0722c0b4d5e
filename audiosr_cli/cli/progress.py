"""How a batch is told of: lines, JSON events, a bar, a summary."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiosr_cli.cli.console import put, say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from audiosr_cli.batch.manifest import Manifest
    from audiosr_cli.batch.run import Advanced, Event, Noted, Outcome, Started
    from audiosr_cli.cli.options import Shared
    from audiosr_cli.streaming.pipeline import Pipeline

_LONG_S = 60.0  # of work that is foretold
_EVENT_S = 0.5  # between two events of one recording's progress
_LINE_S = 5.0  # between two lines of progress
_NAMED = 20  # failures in a summary


class Listener(AbstractContextManager["Listener"]):
    """Hears what happens in a batch; on its own it tells nobody."""

    def started(self, event: Started) -> None:
        """Work on a recording has begun."""

    def advanced(self, event: Advanced) -> None:
        """A part of it was read."""

    def noted(self, event: Noted) -> None:
        """Something about the whole."""

    def ended(self, outcome: Outcome) -> None:
        """It is done, failed or skipped."""

    def __exit__(self, *_: object) -> None:
        """Nothing more will come."""


class Talk(Listener):
    """Names of outputs on standard output, everything else that a person wants to know on standard error."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared

    def started(self, event: Started) -> None:
        """Say it where it will take long."""
        if not self.shared.quiet and event.forecast_s is not None and event.forecast_s > _LONG_S:
            minutes = event.forecast_s / 60
            say(f"{event.item.source}: will take about {minutes:.0f} minutes; fewer --steps are faster")

    def noted(self, event: Noted) -> None:
        """Say it."""
        if not self.shared.quiet:
            say(f"warning: {event.line}")

    def ended(self, outcome: Outcome) -> None:
        """Say what there is to say; names come last."""
        report = outcome.report
        if outcome.error is not None:
            say(str(outcome.error))
        elif report is None and not self.shared.quiet:
            say(f"{outcome.item.source}: skipped, its outputs exist")
        if report is None:
            return
        for line in [] if self.shared.quiet else report.notes + [f"warning: {line}" for line in report.warnings]:
            say(line)
        if report.outputs != ["-"] and not self.shared.as_json and not self.shared.quiet:
            put("\n".join(report.outputs))
        if self.shared.verbose and not self.shared.quiet:
            seconds = report.frames_in / report.rate_in
            speed = seconds / max(report.elapsed_s, 1e-9)
            say(f"{report.input}: {seconds:.1f} s of audio in {report.elapsed_s:.1f} s ({speed:.1f} × real time)")


class Events(Listener):
    """JSON objects, one a line: all of them on standard output (``whole``), or progress only on standard error."""

    def __init__(self, whole: bool, progress: bool = True) -> None:
        self.whole, self.progress = whole, progress
        self._running: dict[str, tuple[Started, float]] = {}

    def _put(self, event: str, source: str, **values: Any) -> None:
        line = json.dumps({"event": event, "input": source} | values)
        if self.whole:
            put(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def started(self, event: Started) -> None:
        """Which outputs are coming, and how long the recording says to be."""
        self._running[event.item.source] = (event, time.monotonic())
        if self.whole:
            seconds = None if event.frames is None else event.frames / event.sample_rate
            self._put("start", event.item.source, outputs=list(map(str, event.targets)), seconds=seconds)

    def advanced(self, event: Advanced) -> None:
        """Seconds so far, at most twice a second."""
        start, told = self._running[event.item.source]
        if self.progress and time.monotonic() - told >= _EVENT_S:
            self._running[event.item.source] = (start, time.monotonic())
            share = event.frames / start.frames if start.frames else None
            self._put("progress", event.item.source, seconds=event.frames / start.sample_rate, share=share)

    def ended(self, outcome: Outcome) -> None:
        """The report, or what went wrong."""
        self._running.pop(outcome.item.source, None)
        if not self.whole:
            return
        report = outcome.report
        for line in report.warnings if report else []:
            self._put("warning", outcome.item.source, message=line)
        row: dict[str, Any] = asdict(report) if report else {"outputs": []}
        row |= {"error": str(outcome.error)} if outcome.error else {}
        self._put(
            outcome.status, outcome.item.source, **(row | {"input": outcome.item.source, "status": outcome.status})
        )


class Lines(Listener):
    """A line on standard error every few seconds."""

    def __init__(self, count: int) -> None:
        self.count, self.finished, self._told = count, 0, time.monotonic()
        self._rates: dict[str, int] = {}

    def started(self, event: Started) -> None:
        """Nothing is told yet."""
        self._rates[event.item.source] = event.sample_rate

    def advanced(self, event: Advanced) -> None:
        """How far this one is."""
        self._say(f"; {event.item.source}: {event.frames / self._rates[event.item.source]:.0f} s")

    def ended(self, outcome: Outcome) -> None:
        """One more."""
        self.finished += 1
        self._rates.pop(outcome.item.source, None)
        self._say("")

    def _say(self, more: str) -> None:
        if time.monotonic() - self._told >= _LINE_S:
            self._told = time.monotonic()
            say(f"{self.finished} of {self.count} finished{more}")


class Bars(Listener):
    """A bar on standard error for each recording at work, and one for all where there are several."""

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

    def __enter__(self) -> Bars:
        """Take over the terminal."""
        self._bar.start()
        return self

    def started(self, event: Started) -> None:
        """A bar of its own."""
        name = event.item.source.rsplit("/", 1)[-1].replace("[", r"\[")
        task = self._bar.add_task(name, total=event.frames, at="0 s")
        self._running[event.item.source] = (task, event.sample_rate)

    def advanced(self, event: Advanced) -> None:
        """As far as it is."""
        task, rate = self._running[event.item.source]
        self._bar.update(task, completed=event.frames, at=f"{event.frames / rate:.0f} s")

    def ended(self, outcome: Outcome) -> None:
        """Its bar goes."""
        self.finished += 1
        if outcome.item.source in self._running:
            self._bar.remove_task(self._running.pop(outcome.item.source)[0])
        if self._all is not None:
            self._bar.update(self._all, completed=self.finished, at=f"{self.finished} of {self.count}")

    def __exit__(self, *_: object) -> None:
        """The terminal is as it was."""
        self._bar.stop()


class Summary(Listener):
    """Counts, for the exit code and the table at the end."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.failures: list[str] = []  # the first ones
        self._code = 0  # the least of all
        self.seconds, self._begun = 0.0, time.monotonic()

    def ended(self, outcome: Outcome) -> None:
        """Count it."""
        self.count[outcome.status] += 1
        if outcome.error is not None:
            self._code = min(self._code or outcome.error.exit_code, outcome.error.exit_code)
            if len(self.failures) < _NAMED:
                self.failures.append(str(outcome.error))
        if outcome.report is not None:
            self.seconds += outcome.report.frames_in / outcome.report.rate_in

    @property
    def exit_code(self) -> int:
        """0 where all went well, 3 where something did, otherwise what the errors say (1 as a rule)."""
        return self._code if self.count["failed"] == self.count.total() or not self._code else 3

    def tell(self, table: bool) -> None:
        """On standard error: a table, or a line where some failed."""
        if table:
            self._table()
        elif self.failures and self.count.total() > 1:
            say(f"{self.count['failed']} of {self.count.total()} recordings failed")

    def _table(self) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        elapsed = time.monotonic() - self._begun
        table = Table("done", "failed", "skipped", "audio s", "seconds", "× real time")
        counts = [str(self.count[status]) for status in ("done", "failed", "skipped")]
        table.add_row(*counts, f"{self.seconds:.1f}", f"{elapsed:.1f}", f"{self.seconds / max(elapsed, 1e-9):.1f}")
        console = Console(stderr=True)
        console.print(table)
        for line in self.failures:
            console.print(Text(f"failed: {line}"))
        if (more := self.count["failed"] - len(self.failures)) > 0:
            console.print(f"failed: {more} more")


class Kept(Listener):
    """A manifest that hears of everything."""

    def __init__(self, manifest: Manifest, pipeline: Pipeline) -> None:
        self.manifest, self.pipeline = manifest, pipeline

    def started(self, event: Started) -> None:
        """Before outputs are there."""
        self.manifest.begin(event)

    def ended(self, outcome: Outcome) -> None:
        """What was skipped has nothing new."""
        if outcome.status != "skipped":
            self.manifest.end(outcome, self.pipeline)


def to_all(parts: Sequence[Listener]) -> Callable[[Event], None]:
    """What passes events on to every one of ``parts``."""
    from audiosr_cli.batch.run import Advanced, Started

    def listen(event: Event) -> None:
        for part in parts:
            if isinstance(event, Started):
                part.started(event)
            elif isinstance(event, Advanced):
                part.advanced(event)
            else:
                part.noted(event)

    return listen


def tell_plan(outcome: Outcome, targets: list[str], shared: Shared) -> None:
    """What would become of a recording."""
    source, error = outcome.item.source, outcome.error
    if error is not None:
        say(str(error))
    if shared.as_json:
        event = "failed" if error else "planned" if targets else "skipped"
        row = {"event": event, "input": source, "outputs": targets}
        put(json.dumps(row | ({"error": str(error)} if error else {})))
    elif error is None and not targets:
        say(f"{source}: would be skipped, its outputs exist")
    for target in [] if shared.as_json else targets:
        put(f"{source} → {target}")


def listeners(shared: Shared, count: int) -> list[Listener]:
    """Who is to hear of a batch of ``count`` recordings."""
    made: list[Listener] = [Talk(shared)]
    terminal = sys.stderr is not None and sys.stderr.isatty()
    if shared.as_json:
        made.append(Events(whole=True, progress=shared.progress != "none" and not shared.quiet))
    if shared.quiet or sys.stderr is None:
        return made
    if shared.progress == "json":
        made.append(Events(whole=False))
    elif shared.progress == "plain":
        made.append(Lines(count))
    elif shared.progress == "auto" and terminal:
        made.append(Bars(count))
    return made


def has_table(shared: Shared, count: int) -> bool:
    """Whether a summary table ends the batch."""
    terminal = sys.stderr is not None and sys.stderr.isatty() and shared.progress == "auto"
    return count > 1 and not shared.quiet and (terminal or shared.progress == "plain")


def draw(outcome: Outcome, target: Path) -> None:
    """The spectrograms of a recording and of what it became."""
    from audiosr_cli.audio import spectrogram

    assert outcome.report is not None
    source = [] if outcome.item.source == "-" else [outcome.item.source]
    spectrogram.draw([(Path(name).name, Path(name)) for name in (*source, *outcome.report.outputs)], target)
