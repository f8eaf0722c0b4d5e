"""Errors of the operating system, as this package's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from audiosr_cli.errors import error_of_system
from audiosr_cli.runtime.memory import explain_out_of_memory


@contextmanager
def errors_of(name: str) -> Iterator[None]:
    """Turn what the operating system refuses, memory included, into AudioSRErrors, as the command does."""
    try:
        with explain_out_of_memory(name):
            yield
    except OSError as error:
        raise error_of_system(error) from error
