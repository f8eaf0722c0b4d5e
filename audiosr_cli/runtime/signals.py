"""Signals that end a command: it cleans up, and exits with 128 and the signal's number."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

_HANGUP = frozenset({signal.SIGHUP} if hasattr(signal, "SIGHUP") else ())  # not on Windows
FROM_TERMINAL = _HANGUP | {signal.SIGINT}  # these reach all processes of a command; the first one stops the others
_received: list[int] = []  # the termination signal that this process exits for


def termination_signals() -> list[signal.Signals]:
    """List SIGTERM, and SIGHUP unless it is ignored, as under nohup."""
    return [signal.SIGTERM, *(number for number in _HANGUP if signal.getsignal(number) != signal.SIG_IGN)]


def exit_on_termination() -> None:
    """Raise SystemExit when a termination signal arrives."""
    for number in termination_signals():
        signal.signal(number, _terminate)


def received() -> int | None:
    """Return the termination signal that has arrived, if one has."""
    return _received[0] if _received else None


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    _received.append(number)
    for known in termination_signals():
        signal.signal(known, signal.SIG_IGN)  # another one must not interrupt the clean-up
    raise SystemExit(128 + number)  # unwinds, so that temporary files are removed
