"""Memory: what the C library does with it when it is freed, and what is said when there is too little."""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from audiosr_cli.errors import AudioSRError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's <malloc.h>
_LARGEST = 32 << 20  # bytes; glibc takes no more


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next window; nothing happens with other C libraries.

    Otherwise it gives blocks of over 128 KiB back to the system at once, and the kernel clears fresh pages for every
    feature map of every window. The peak is that of one heap which all threads share.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_ARENA_MAX, 1)  # what one thread has freed is for all


_LEAST = 750 << 20  # bytes of address space that torch and a small model take
_RAN_OUT = (
    "can't allocate memory",
    "Cannot allocate memory",
    "out of memory",
    "can't start new thread",
    "STATUS_ALLOC_FAILED",  # of cuBLAS and cuDNN
)


def check_memory_limit() -> None:
    """Raise AudioSRError where ``ulimit -v`` leaves too little for torch, which aborts while it is loaded."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < _LEAST:
        raise AudioSRError(
            f"memory is limited to {limit >> 20} MiB (ulimit -v); {_LEAST >> 20} MiB are the least: raise the limit"
        )


def is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Whether ``error`` says that there is too little memory."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _RAN_OUT)


@contextmanager
def explain_out_of_memory(name: str) -> Iterator[None]:
    """Where memory runs out, an AudioSRError about ``name``."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise AudioSRError(
            f"{name}: not enough memory; try --batch 1 --threads 1, or raise the limit (ulimit -v)"
        ) from error
