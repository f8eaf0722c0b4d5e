"""Lines on standard output and standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from audiosr_cli.errors import AudioSRError, OutputError


def print_message(text: str) -> None:
    """Print one line to standard error; control characters, which a file name may contain, are escaped."""
    print(f"audiosr: {_one_line(text)}", file=sys.stderr)


def print_error(error: AudioSRError) -> None:
    """Print an error to standard error: its message, and its hint on a line of its own if it has one."""
    print_message(str(error))
    if error.hint is not None:
        print(f"hint: {_one_line(error.hint)}", file=sys.stderr)


def _one_line(text: str) -> str:
    """Escape control characters."""
    return "".join(repr(letter)[1:-1] if letter < " " or letter == "\x7f" else letter for letter in text)


def print_output(text: str, end: str = "\n") -> None:
    """Print ``text`` and ``end`` to standard output, unbuffered. Raises OutputError if it cannot be written."""
    with writing_standard_output():
        print(text, end=end, flush=True)


@contextmanager
def writing_standard_output() -> Iterator[None]:
    """Translate errors of standard output to OutputError, except for a pipe that nobody reads."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output: {error.strerror or error}") from error
