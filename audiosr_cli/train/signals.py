"""Signals that stop a run after the current step, so that its state can be saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

from audiosr_cli.runtime.signals import termination_signals


class Interrupts:
    """A context that catches SIGINT, SIGTERM and SIGHUP; a second signal interrupts immediately."""

    def __init__(self) -> None:
        self.signal_number = 0  # 0: none so far
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # other threads cannot catch signals
            caught = (signal.SIGINT, *termination_signals())
            self._before = {number: signal.signal(number, self._note) for number in caught}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.signal_number:
            self.end()
        self.signal_number = number

    def end(self) -> None:
        """Exit as the caught signal would have, if there was one."""
        if self.signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal_number:
            raise SystemExit(128 + self.signal_number)
