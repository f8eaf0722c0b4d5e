"""Memory: how the C library reuses freed memory, and errors for too little of it."""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from audiosr_cli.errors import AudioSRError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # from glibc's <malloc.h>
_MAX_MMAP_THRESHOLD = 32 << 20  # bytes; the most that glibc accepts


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next window; do nothing with other C libraries.

    By default glibc returns blocks above 128 KiB to the system at once, and the kernel clears new pages for each
    feature map of each window. All threads share one heap, so that the peak does not grow with their number.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return
    mallopt(_M_MMAP_THRESHOLD, _MAX_MMAP_THRESHOLD)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_ARENA_MAX, 1)  # one heap: every thread can reuse what another one freed


_MIN_ADDRESS_SPACE = 750 << 20  # bytes; what torch and a small model take
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "Cannot allocate memory",
    "out of memory",
    "not enough memory",  # from torch's CPU allocator on Windows
    "bad_alloc",
    "can't start new thread",
    "STATUS_ALLOC_FAILED",  # from cuBLAS and cuDNN
)


def check_memory_limit() -> None:
    """Raise AudioSRError if ``ulimit -v`` leaves too little for torch, which would abort while it is loaded."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < _MIN_ADDRESS_SPACE:
        raise AudioSRError(
            f"memory is limited to {limit >> 20} MiB (ulimit -v); raise the limit to at least "
            f"{_MIN_ADDRESS_SPACE >> 20} MiB"
        )


def is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Return whether ``error`` means that there is too little memory."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in _OUT_OF_MEMORY)


@contextmanager
def explain_out_of_memory(name: str) -> Iterator[None]:
    """Turn errors for lack of memory into an AudioSRError about ``name``."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise AudioSRError(
            f"{name}: not enough memory; try --batch 1 --threads 1, or raise the limit (ulimit -v)"
        ) from error
