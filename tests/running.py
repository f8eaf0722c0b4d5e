"""Run the command in a separate process, find its workers, and create recordings that never end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from typing import Any

import fork_server
import numpy as np
import soundfile
from conftest import HANG_S
from typer.testing import CliRunner

from audiosr_cli.cli.main import app
from audiosr_cli.errors import AudioSRError

COMMAND = [sys.executable, "-m", "audiosr_cli"]
PLAIN = ("upsample", "--model", "none", "--rate", "16000")  # resamples, and loads no model
RATE = 8000


def audiosr(*arguments: object, before: Sequence[str] = (), **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the command to its end, and check that it prints no traceback.

    ``before`` is a command that runs it; ``options`` are those of ``subprocess.run``.
    """
    command = [*before, *COMMAND, *(part if isinstance(part, bytes) else str(part) for part in arguments)]
    done = fork_server.run(command, **({"input": b"", "capture_output": True, "timeout": HANG_S} | options))
    assert b"Traceback" not in (done.stderr or b""), done.stderr
    return done


def inside(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run the command in this process, which is quicker."""
    with chdir(cwd or "."):
        done = CliRunner().invoke(app, [str(part) for part in arguments], input=b"")
    if isinstance(error := done.exception, AudioSRError):  # main() prints it and exits with its code
        hint = "" if error.hint is None else f"hint: {error.hint}\n"
        stderr = done.stderr_bytes + f"audiosr: {error}\n{hint}".encode()
        return subprocess.CompletedProcess(arguments, error.exit_code, done.stdout_bytes, stderr)
    if error is not None and not isinstance(error, SystemExit):
        raise error
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout_bytes, done.stderr_bytes)


def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """Start the command, and do not wait for it."""
    command = [*COMMAND, *map(str, arguments)]
    return fork_server.popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def recording(path: str | bytes | Path, frames: int = 800, seed: int = 0) -> None:
    """Write white noise at 8 kHz, as WAV whatever the suffix."""
    wave = np.random.default_rng(seed).standard_normal(frames) / 10
    with open(path, "wb") as stream:
        soundfile.write(stream, wave, RATE, format="WAV")


def recordings(folder: Path, count: int, frames: int = 800) -> Path:
    """Write ``count`` recordings into a new folder."""
    folder.mkdir()
    for i in range(count):
        recording(folder / f"{i:03}.wav", frames, i)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Read every file below ``folder``; files that disappear meanwhile are left out."""
    files = {}
    for path in sorted(folder.rglob("*")):
        with suppress(FileNotFoundError, IsADirectoryError):
            files[str(path.relative_to(folder))] = path.read_bytes()
    return files


@contextmanager
def endless(path: Path) -> Iterator[None]:
    """Create a FIFO with the beginning of a recording, whose reader waits in the middle of it."""
    os.mkfifo(path)
    recording(path.with_suffix(".head"), 200_000)
    head = bytearray(path.with_suffix(".head").read_bytes())
    path.with_suffix(".head").unlink()
    head[40:44] = b"\xff\xff\xff\xff"
    held: list[int] = []

    def feed() -> None:
        held.append(os.open(path, os.O_RDWR))  # opens without a reader, and keeps the pipe open
        view = memoryview(head)
        try:
            while view:
                view = view[os.write(held[0], view) :]
        except OSError:
            return

    threading.Thread(target=feed, daemon=True).start()
    try:
        yield
    finally:
        path.unlink()


def workers(process: int) -> list[int]:
    """List the worker processes of a command, oldest first."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def parts(folder: Path) -> list[Path]:
    """List temporary files that contain audio; files that disappear meanwhile are left out."""
    found = []
    for path in folder.rglob("*.part"):
        with suppress(FileNotFoundError):
            found += [path] if path.stat().st_size > 1000 else []
    return found
