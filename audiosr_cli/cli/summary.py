"""What a batch ends with: the exit code, and a table or a line about failures."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from audiosr_cli.cli.console import print_message
from audiosr_cli.cli.progress import Observer

if TYPE_CHECKING:
    from audiosr_cli.batch.run import Outcome
    from audiosr_cli.cli.options import Shared

_MAX_FAILURES = 20  # listed in a summary


class Summary(Observer):
    """Counts outcomes, for the exit code and the table at the end."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.failures: list[str] = []  # the first ones
        self._lowest_code = 0  # of all errors
        self.seconds, self._begin = 0.0, time.monotonic()

    def on_outcome(self, outcome: Outcome) -> None:
        """Count it."""
        self.count[outcome.status] += 1
        if outcome.error is not None:
            code = outcome.error.exit_code
            self._lowest_code = min(self._lowest_code or code, code)
            if len(self.failures) < _MAX_FAILURES:
                self.failures.append(str(outcome.error))
        if outcome.report is not None:
            self.seconds += outcome.report.frames_in / outcome.report.rate_in

    @property
    def exit_code(self) -> int:
        """Return 0 if nothing failed, 3 if only some recordings failed, otherwise the lowest code of the errors."""
        return self._lowest_code if self.count["failed"] == self.count.total() or not self._lowest_code else 3

    def print(self, table: bool) -> None:
        """Print to standard error: a table, or one line if some recordings failed."""
        if table:
            self._print_table()
        elif self.failures and self.count.total() > 1:
            print_message(f"{self.count['failed']} of {self.count.total()} recordings failed")

    def _print_table(self) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        elapsed = time.monotonic() - self._begin
        table = Table("done", "failed", "skipped", "audio s", "seconds", "× real time")
        counts = [str(self.count[status]) for status in ("done", "failed", "skipped")]
        table.add_row(*counts, f"{self.seconds:.1f}", f"{elapsed:.1f}", f"{self.seconds / max(elapsed, 1e-9):.1f}")
        console = Console(stderr=True)
        console.print(table)
        for line in self.failures:
            console.print(Text(f"failed: {line}"))
        if (more := self.count["failed"] - len(self.failures)) > 0:
            console.print(f"failed: {more} more")


def has_table(shared: Shared, count: int) -> bool:
    """Check whether a summary table ends the batch."""
    terminal = sys.stderr is not None and sys.stderr.isatty() and shared.progress == "auto"
    return count > 1 and not shared.quiet and (terminal or shared.progress == "plain")
