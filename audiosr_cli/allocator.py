"""What the C library does with freed memory."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's <malloc.h>
_LARGEST = 32 << 20  # bytes; glibc takes no more


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next window; nothing happens with other C libraries.

    Otherwise it gives blocks of over 128 KiB back to the system at once, and the kernel clears fresh pages for every
    feature map of every window. Peak memory stays what it was.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
