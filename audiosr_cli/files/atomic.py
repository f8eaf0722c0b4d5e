"""Atomic writing: a temporary file beside the target is renamed when it is complete."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from audiosr_cli.errors import OutputError

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)  # from file systems without hard links


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Write a file atomically: flush it, rename it to ``target``, and sync the folder.

    On any error the temporary file is removed and ``target`` stays as it was.

    Args:
        target: The file to write. An existing one is replaced.

    Yields:
        The temporary path to write to.

    Raises:
        OutputError: If flushing or renaming fails.
    """
    with temporary(target) as part:
        yield part
        try:
            flush(part)
            place(part, target)
        except OSError as error:
            raise OutputError(f"{target}: cannot be written: {error.strerror}") from error


@contextmanager
def temporary(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target``, and remove the file at the end if it still exists."""
    part = target.parent / f".audiosr-{owner()}{secrets.token_hex(4)}.part"
    try:
        yield part
    finally:
        if part.exists():  # unlinking a missing file fails on a read-only disk
            part.unlink(missing_ok=True)


def flush(part: Path) -> None:
    """Wait until the file ``part`` is on the disk. Raises OSError."""
    with open(part, "rb") as file:
        os.fsync(file.fileno())


def place(part: Path, target: Path, exclusive: bool = False) -> None:
    """Rename a complete file.

    Args:
        part: The temporary file.
        target: Its name from now on. An existing file is replaced.
        exclusive: Fail if ``target`` exists.

    Raises:
        OutputError: If ``target`` exists and ``exclusive`` is set.
        OSError: If the operating system refuses.
    """
    if exclusive:
        _place_exclusive(part, target)
    else:
        os.replace(part, target)
    _sync_folder(target.parent)


def _place_exclusive(part: Path, target: Path) -> None:
    exists = OutputError(f"{target}: was created while processing; use --overwrite or --skip")
    try:
        target.hardlink_to(part)
    except FileExistsError as error:
        raise exists from error
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(target):
            raise exists from error
        os.replace(part, target)
    else:
        part.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some file systems cannot sync folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove the temporary files in ``folder`` whose processes no longer exist, as far as permissions allow.

    Files of other machines, containers and boots stay, as their processes cannot be checked from here.
    """
    for part in folder.glob(f".audiosr-*-{_host()}*.part"):
        process = part.name.split("-")[1]
        if process.isdecimal() and not _is_alive(int(process)):
            with suppress(OSError):  # another user's file in a shared folder
                part.unlink()


def owner() -> str:
    """Return the part of temporary names that identifies this process: its number and its machine."""
    return f"{os.getpid()}-{_host()}"


def discard(folder: Path, dead: str) -> None:
    """Remove the temporary files in ``folder`` of the process whose ``owner()`` was ``dead``, on whatever machine."""
    for part in folder.glob(f".audiosr-{dead}*.part"):
        part.unlink(missing_ok=True)


def _host() -> str:
    """Identify the machine, its boot and the container: each of them numbers its processes from 1."""
    identity = os.uname().nodename
    with suppress(OSError):  # Linux only
        identity += Path("/proc/sys/kernel/random/boot_id").read_text()
        identity += os.fspath(Path("/proc/self/ns/pid").readlink())
    return hashlib.sha256(identity.encode()).hexdigest()[:6]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's process
        return True
    with suppress(OSError):  # Linux: a killed process is a zombie until its parent waits for it
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return True
