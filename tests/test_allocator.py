from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from audiosr_cli.allocator import keep_freed_memory
{call}
def window():
    return [torch.ones(2 << 20) for _ in range(16)]  # 8 MiB each
for _ in range(3):
    window()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    window()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_freed_memory_is_used_again() -> None:
    plain, kept = (
        int(subprocess.run([sys.executable, "-c", FAULTS.format(call=call)], capture_output=True, check=True).stdout)
        for call in ("", "keep_freed_memory()")
    )
    if plain < 1000:
        pytest.skip("this C library keeps it anyway")
    assert kept < plain / 10
