"""Run the command on files that are made to break it."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fork_server
import numpy as np
import pytest
import running
import soundfile
from conftest import noise

RATE = 16000
WAV_FORMS = [(16, False), (24, False), (32, False), (32, True)]  # bits, float
ENVIRONMENT = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}

# On Linux a process inherits the peak memory of the one that starts it, so a small process stands between.
_MEASURED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    print(used.ru_maxrss, used.ru_utime + used.ru_stime, file=file)
sys.exit(code if code >= 0 else 128 - code)
"""


@dataclass(frozen=True)
class Run:
    """Result of a run: exit code, standard output, standard error, peak memory (MiB)."""

    code: int
    stdout: bytes
    stderr: str
    peak: float = 0.0

    def message_about(self, name: object) -> str:
        """Return the only line of standard error about a file."""
        lines = [line for line in self.stderr.splitlines() if re.search(rf"(^|[ /]){re.escape(str(name))}: ", line)]
        assert len(lines) == 1, (name, self.stderr)
        return lines[0]


def audiosr(*arguments: object, environment: dict[str, str] | None = None, **options: Any) -> Run:
    """Run the command in a separate process."""
    return _run(running.audiosr(*arguments, env=ENVIRONMENT | (environment or {}), **options))


def inside(*arguments: object) -> Run:
    """Run the command in this process."""
    return _run(running.inside(*arguments))


def _run(done: subprocess.CompletedProcess[bytes]) -> Run:
    return Run(done.returncode, done.stdout, done.stderr.decode(errors="replace"))


def measured(folder: Path, *arguments: object, timeout: float = 3000) -> Run:
    """Run the command in a separate process, and measure its peak memory."""
    command = [*running.COMMAND, *map(str, arguments)]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if fork_server.can_fork(command, streams):
        with fork_server.Fork(command, **streams) as process:
            stdout, stderr = process.communicate(timeout=timeout)
        assert b"Traceback" not in stderr, stderr
        return Run(process.returncode, stdout, stderr.decode(errors="replace"), process.peak_mib)
    result = audiosr(
        *arguments,
        before=(sys.executable, "-S", "-c", _MEASURED, str(folder / "used")),
        timeout=timeout,
    )
    peak = (folder / "used").read_text().split()[0]
    return Run(result.code, result.stdout, result.stderr, int(peak) / 1024)


def fmt(codec: int = 1, channels: int = 1, rate: int = RATE, bits: int = 16, block: int | None = None) -> bytes:
    """Build the content of a WAV format chunk."""
    width = channels * bits // 8 if block is None else block
    return struct.pack("<HHIIHH", codec, channels, rate, rate * width & 0xFFFFFFFF, width & 0xFFFF, bits)


def chunk(tag: bytes, content: bytes, size: int | None = None) -> bytes:
    """Build a chunk, whose stated size may be wrong."""
    return tag + struct.pack("<I", len(content) if size is None else size) + content


def riff(*chunks: bytes, size: int = 0) -> bytes:
    """Build a WAV file of these chunks."""
    return b"RIFF" + struct.pack("<I", size) + b"WAVE" + b"".join(chunks)


def samples(frames: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Generate 16-bit noise (C, T)."""
    return np.rint(noise(frames, channels, 0.2, seed) * 32768).clip(-32768, 32767).astype(np.int16)


def content(path: Path) -> np.ndarray:
    """Read the samples (C, T) of a 16-bit file."""
    return soundfile.read(path, dtype="int16", always_2d=True)[0].T


def sparse(path: Path, head: bytes, size: int, tail: bytes = b"") -> Path:
    """Write a sparse file of ``size`` bytes: ``head``, zeros that take no space on the disk, ``tail``."""
    with path.open("wb") as stream:
        stream.write(head)
        stream.seek(size - len(tail))
        stream.write(tail)
        stream.truncate(size)
    return path


def need(*command: str) -> None:
    """Skip the test if this machine does not allow ``command``."""
    try:
        done = subprocess.run(command, capture_output=True)
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")
    if done.returncode:
        pytest.skip(f"{command[0]} is not allowed here")
