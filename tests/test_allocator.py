from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

HELD = """
import os
import torch
from audiosr_cli.allocator import keep_freed_memory
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's")
def test_freed_memory_is_kept() -> None:
    small = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), "131072")  # else glibc learns its own
    plain, kept = (
        int(subprocess.check_output([sys.executable, "-c", HELD.format(call=call)], env=os.environ | small))
        for call in ("", "keep_freed_memory()")
    )
    assert plain < 64 <= kept  # MiB of 128
