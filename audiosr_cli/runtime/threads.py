"""Threads that compute windows: several windows at once, each of them in a single thread.

The operators of small networks gain little from threads of their own, and windows do not wait for each other: see
CHANGELOG.md for figures.
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
    """Computes in the thread that asks, at once."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A future that is done. Raises what ``function`` raises."""
        future = Future[Any]()
        future.set_result(function(*args, **kwargs))
        return future


@contextmanager
def thread_pool(threads: int) -> Iterator[Executor]:
    """So many threads to compute in, a single one being the caller's.

    Meanwhile torch's operators have one thread, in the whole process: so samples are the same whatever ``threads`` is.
    The caller's thread and those of the pool flush subnormal numbers, see ``subnormals_flushed``.
    After an error what has begun is waited for, but after Ctrl-C and the like it is not; what has not is dropped.
    """
    with _operators.single_threaded(), subnormals_flushed():
        pool = ThreadPoolExecutor(threads, "window", _prepare_thread) if threads > 1 else SerialExecutor()
        try:
            yield pool
        except Exception:
            pool.shutdown(wait=True, cancel_futures=True)  # it holds memory that the next recording needs
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _prepare_thread() -> None:
    """Set up a new thread of a pool: torch has both settings for each thread by itself."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def flushes_subnormals() -> bool:
    """Return whether arithmetic of this thread takes subnormal numbers (below 1e-308, in float32 1e-38) as zero."""
    return sys.float_info.min / 2 == 0


@contextmanager
def subnormals_flushed() -> Iterator[None]:
    """Have this thread take subnormal numbers as zero, as long as the context lasts.

    Many processors compute them in microcode, up to a hundred times slower: a recording that fades out to 1e-38 of full
    scale, which nobody hears, would take many times as long as another one. Processors that cannot flush them are left
    as they are.
    """
    before = flushes_subnormals()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


class _Operators:
    """How many threads torch's operators have: one while a call computes, then as many as before the first of them.

    torch has a number for each thread, and one for threads to come: a call that begins beside another would take the
    other's 1 for what was before.
    """

    def __init__(self) -> None:
        self._lock, self._users, self._before = Lock(), 0, 1

    @contextmanager
    def single_threaded(self) -> Iterator[None]:
        """As long as the context lasts."""
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
