"""Signals that end a run after the step it is in, so that its state can be saved whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

_CAUGHT = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Catches SIGINT and SIGTERM while it is entered; a second signal interrupts at once."""

    def __init__(self) -> None:
        self.wanted = 0  # the signal's number
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # others cannot, and need not, catch
            self._before = {number: signal.signal(number, self._note) for number in _CAUGHT}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.wanted:
            self.end()
        self.wanted = number

    def end(self) -> None:
        """Leave as the signal would have made us leave, if there was one."""
        if self.wanted == signal.SIGINT:
            raise KeyboardInterrupt
        if self.wanted:
            raise SystemExit(128 + self.wanted)
