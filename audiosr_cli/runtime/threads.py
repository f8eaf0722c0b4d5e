"""Threads that compute several windows in parallel, each window in a single thread.

The operators of small networks gain little from threads of their own, and windows need not wait for each other.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch


class SerialExecutor(Executor):
    """Run each call at once, in the calling thread."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return a future that is done. Raises what ``function`` raises."""
        future = Future[Any]()
        future.set_result(function(*args, **kwargs))
        return future


@contextmanager
def thread_pool(threads: int) -> Iterator[Executor]:
    """Open a pool of threads; a single one is the calling thread.

    Meanwhile torch's operators use one thread in the whole process, so results do not depend on ``threads``. The
    calling thread and those of the pool flush subnormal numbers (see `subnormals_flushed`). After an error, calls that
    have not started are dropped, and those in progress are waited for, except after Ctrl-C.

    Args:
        threads: Number of threads, at least 1.

    Yields:
        The executor.
    """
    with _operators.single_threaded(), subnormals_flushed():
        pool = ThreadPoolExecutor(threads, "window", _prepare_thread) if threads > 1 else SerialExecutor()
        try:
            yield pool
        except Exception:
            pool.shutdown(wait=True, cancel_futures=True)  # running calls hold memory that the next recording needs
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _prepare_thread() -> None:
    """Set up a new thread of a pool: both settings of torch are per thread."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def flushes_subnormals() -> bool:
    """Return whether this thread treats subnormal numbers (below 1e-308, in float32 below 1e-38) as zero."""
    return sys.float_info.min / 2 == 0


@contextmanager
def subnormals_flushed() -> Iterator[None]:
    """Treat subnormal numbers as zero in this thread, as long as the context lasts.

    Many processors compute them in microcode, up to a hundred times slower, so a recording that fades out to 1e-38 of
    full scale would take many times as long as others. Processors that cannot flush them are left as they are.
    """
    before = flushes_subnormals()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


class _Operators:
    """The number of threads of torch's operators: 1 while any call computes, afterwards what it was before the first.

    Calls may overlap: one that starts during another must not take the other's 1 for the number to restore.
    """

    def __init__(self) -> None:
        self._lock, self._users, self._before = Lock(), 0, 1

    @contextmanager
    def single_threaded(self) -> Iterator[None]:
        """Use one thread for operators, as long as the context lasts."""
        with self._lock:
            if not self._users:
                self._before = torch.get_num_threads()
            self._users += 1
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(self._before)
            with self._lock:
                self._users -= 1


_operators = _Operators()
