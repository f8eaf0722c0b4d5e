"""Lines on standard output and standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from audiosr_cli.errors import OutputError


def print_message(text: str) -> None:
    """Print one line to standard error; control characters, which a file name may contain, are escaped."""
    line = "".join(repr(letter)[1:-1] if letter < " " or letter == "\x7f" else letter for letter in text)
    print(f"audiosr: {line}", file=sys.stderr)


def print_output(text: str) -> None:
    """Print lines to standard output, unbuffered. Raises OutputError if it cannot be written."""
    with writing_standard_output():
        print(text, flush=True)


@contextmanager
def writing_standard_output() -> Iterator[None]:
    """Translate errors of standard output to OutputError, except for a pipe that nobody reads."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output: {error.strerror or error}") from error
