"""Lines on standard output and standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from audiosr_cli.errors import OutputError


def say(text: str) -> None:
    """One line on standard error, whatever is in a file's name."""
    line = "".join(repr(letter)[1:-1] if letter < " " or letter == "\x7f" else letter for letter in text)
    print(f"audiosr: {line}", file=sys.stderr)


def put(text: str) -> None:
    """Lines on standard output, at once. Raises OutputError where it takes none."""
    with onto_standard_output():
        print(text, flush=True)


@contextmanager
def onto_standard_output() -> Iterator[None]:
    """What is refused there, but for a pipe without a reader, as an OutputError."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output: {error.strerror or error}") from error
