"""Files that are there whole or not at all: a temporary one beside the target, which takes its name at the end."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from audiosr_cli.errors import OutputError

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)  # of file systems that know no hard links


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path beside ``target`` that becomes ``target`` at the end: flushed, renamed, folder synced.

    On any error the temporary file is removed and ``target`` is left as it was. Raises OutputError where the
    operating system refuses the last steps.
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
    """A path beside ``target`` that is removed at the end, if it is there still."""
    part = target.parent / f".audiosr-{owner()}{secrets.token_hex(4)}.part"
    try:
        yield part
    finally:
        if part.exists():  # a read-only disk would refuse to unlink nothing, too
            part.unlink(missing_ok=True)


def flush(part: Path) -> None:
    """Have the disk hold what was written. Raises OSError."""
    with open(part, "rb") as written:
        os.fsync(written.fileno())


def place(part: Path, target: Path, exclusive: bool = False) -> None:
    """Give ``part`` the name ``target``, whose file goes; a ``exclusive`` name must be nobody's.

    Raises OutputError where it is somebody's, OSError where the operating system refuses.
    """
    if exclusive:
        _place_exclusive(part, target)
    else:
        os.replace(part, target)
    _sync_folder(target.parent)


def _place_exclusive(part: Path, target: Path) -> None:
    taken = OutputError(f"{target}: came to be there meanwhile; use --overwrite or --skip")
    try:
        target.hardlink_to(part)
    except FileExistsError as error:
        raise taken from error
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(target):
            raise taken from error
        os.replace(part, target)
    else:
        part.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some file systems cannot sync folders; the rename stands all the same
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove the temporary files in ``folder`` whose processes were killed, as far as that is allowed.

    Those of other machines, containers and boots stay: what became of their processes cannot be told here.
    """
    for part in folder.glob(f".audiosr-*-{_host()}*.part"):
        process = part.name.split("-")[1]
        if process.isdecimal() and not _is_alive(int(process)):
            with suppress(OSError):  # of another user, in a folder that everybody may write to
                part.unlink()


def owner() -> str:
    """What the names of this process's temporary files tell it by: its number, and its machine."""
    return f"{os.getpid()}-{_host()}"


def discard(folder: Path, dead: str) -> None:
    """Remove what the ``owner`` of that name left in ``folder``; on any machine, so it must be known to be dead."""
    for part in folder.glob(f".audiosr-{dead}*.part"):
        part.unlink(missing_ok=True)


def _host() -> str:
    """What tells machines, their boots and their containers apart that share a folder: each numbers its processes."""
    told = os.uname().nodename
    with suppress(OSError):  # Linux has it
        told += Path("/proc/sys/kernel/random/boot_id").read_text()
        told += os.fspath(Path("/proc/self/ns/pid").readlink())
    return hashlib.sha256(told.encode()).hexdigest()[:6]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    with suppress(OSError):  # Linux: one that was killed and whose parent has not asked yet is a zombie
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return True
