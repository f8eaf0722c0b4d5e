"""runtime/memory.py: freed memory stays with the process, in one heap; errors for too little memory are known."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from audiosr_cli.runtime.memory import is_out_of_memory

RESIDENT = """
import os
import torch
from audiosr_cli.runtime.memory import keep_freed_memory
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
{call}
before = resident()
for _ in range(3):
    maps = [torch.ones(2 << 20) for _ in range(16)]  # 8 MiB each
    del maps
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for glibc only")
def test_freed_memory_stays_with_the_process() -> None:
    small = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), "131072")  # else glibc adapts
    default, ours = (
        int(subprocess.check_output([sys.executable, "-c", RESIDENT.format(call=call)], env=os.environ | small))
        for call in ("", "keep_freed_memory()")
    )
    assert default < 64 <= ours  # MiB of 128


HEAPS = """
import ctypes, sys, threading
from audiosr_cli.runtime.memory import keep_freed_memory
{call}
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.fopen.restype, libc.fopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_char_p]
libc.malloc_info.argtypes, libc.fclose.argtypes = [ctypes.c_int, ctypes.c_void_p], [ctypes.c_void_p]
together = threading.Barrier(5)
def work():
    together.wait()
    assert libc.malloc(1 << 16)
    together.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
together.wait()
together.wait()
file = libc.fopen(sys.argv[1].encode(), b"w")
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for glibc only")
def test_threads_share_one_heap(tmp_path: Path) -> None:
    """By default glibc gives each thread its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC", "GLIBC"))}
    counts = []
    for call in ("", "keep_freed_memory()"):
        command = [sys.executable, "-c", HEAPS.format(call=call), str(tmp_path / "heaps.xml")]
        subprocess.run(command, check=True, env=environment)
        counts.append((tmp_path / "heaps.xml").read_text().count("<heap nr="))
    assert counts[0] > 1
    assert counts[1] == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1024 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1024 bytes."), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("can't start new thread"), True),
        (RuntimeError("The size of tensor a (2) must match the size of tensor b (3)"), False),
    ],
    ids=str,
)
def test_errors_for_too_little_memory_are_known(error: MemoryError | RuntimeError, expected: bool) -> None:
    assert is_out_of_memory(error) == expected
