"""Atomic writing: a temporary file beside the target is renamed when it is complete."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from audiosr_cli.errors import OutputError

_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)  # from file systems that cannot sync, such as some of FUSE
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1  # Linux: paths are relative to the current folder; an existing target is kept


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Write a file atomically: flush it, rename it to ``target``, and sync the folder.

    On any error the temporary file is removed and ``target`` stays as it was.

    Args:
        target: The file to write. An existing one is replaced; its permissions stay, and a symlink is followed.

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
    """Yield a temporary path beside the file of ``target``, and remove the file at the end if it still exists."""
    part = file_of(target).parent / f".audiosr-{owner()}{secrets.token_hex(4)}.part"
    try:
        yield part
    finally:
        with suppress(OSError):  # from a disk that went away: it must not hide the error before
            if part.exists():  # unlinking a missing file fails on a read-only disk
                part.unlink(missing_ok=True)


def file_of(target: Path) -> Path:
    """Return the file that ``target`` stands for: where it leads if it is a symlink, whether that exists or not."""
    return Path(os.path.realpath(target)) if target.is_symlink() else target


def flush(part: Path) -> None:
    """Wait until the file ``part`` is on the disk. Raises OSError."""
    with open(part, "rb") as file:
        sync(file.fileno())


def sync(descriptor: int) -> None:
    """Wait until an open file is on the disk, where its file system can do that. Raises OSError."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:  # data may be lost
            raise


def place(part: Path, target: Path, exclusive: bool = False) -> None:
    """Rename a complete file.

    Where it replaces a file, the new one gets its permissions and, if possible, its owner.

    Args:
        part: The temporary file, beside the file of ``target``.
        target: Its name from now on. An existing file is replaced; where a symlink leads, if it is one.
        exclusive: Fail if ``target`` exists.

    Raises:
        OutputError: If ``target`` exists and ``exclusive`` is set.
        OSError: If the operating system refuses.
    """
    if exclusive:
        _place_exclusive(part, target)
    else:
        target = file_of(target)
        _copy_permissions(target, part)
        os.replace(part, target)
    _sync_folder(target.parent)


def _copy_permissions(target: Path, part: Path) -> None:
    """Give ``part`` the owner and the permissions of ``target`` if that is a file, as far as possible."""
    with suppress(OSError):
        status, own = target.stat(), part.stat()
        if stat.S_ISREG(status.st_mode):
            if (status.st_uid, status.st_gid) != (own.st_uid, own.st_gid):
                with suppress(OSError):  # another user's file
                    os.chown(part, status.st_uid, status.st_gid)
            part.chmod(status.st_mode & 0o777)


def _place_exclusive(part: Path, target: Path) -> None:
    """Give a file another name unless that exists: by a link, which no other process can come between."""
    try:
        target.hardlink_to(part)
    except OSError as error:
        if not _is_same_file(part, target):  # a network file system may answer with an error to what it has done
            if isinstance(error, FileExistsError):
                raise _existing(target) from error
            _rename_exclusive(part, target)  # file systems without links fail with errors of all kinds
    with suppress(OSError):
        part.unlink(missing_ok=True)


def _rename_exclusive(part: Path, target: Path) -> None:
    """Rename a file unless ``target`` exists; in one step only where the system can do that."""
    try:
        _rename_without_replacing(part, target)
    except OSError as error:
        if os.path.lexists(target):
            raise _existing(target) from error
        os.replace(part, target)


def _rename_without_replacing(part: Path, target: Path) -> None:
    """Call Linux's renameat2. Raises OSError, also where it is missing."""
    import ctypes

    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if rename(_AT_FDCWD, os.fsencode(part), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _existing(target: Path) -> OutputError:
    return OutputError(f"{target}: was created while processing; use --overwrite or --skip")


def _is_same_file(part: Path, target: Path) -> bool:
    try:
        return not target.is_symlink() and target.samefile(part)
    except OSError:
        return False


def _sync_folder(folder: Path) -> None:
    """Wait until the names in ``folder`` are on the disk, if it permits that: the file is complete in any case."""
    with suppress(OSError):  # from network file systems, and folders that may be written to but not read
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove the temporary files in ``folder`` whose processes no longer exist, as far as permissions allow.

    Files of other machines, containers and boots stay, as their processes cannot be checked from here.
    """
    for part in _parts(folder, f"*-{_host()}"):
        process = part.name.split("-")[1]
        if process.isdecimal() and not _is_alive(int(process)):
            with suppress(OSError):  # another user's file in a shared folder
                part.unlink()


def owner() -> str:
    """Return the part of temporary names that identifies this process: its number and its machine."""
    return f"{os.getpid()}-{_host()}"


def discard(folder: Path, dead: str) -> None:
    """Remove the temporary files in ``folder`` of the process whose ``owner()`` was ``dead``, on whatever machine."""
    for part in _parts(folder, dead):
        with suppress(OSError):
            part.unlink()


def _parts(folder: Path, owner: str) -> list[Path]:
    """List the temporary files of processes whose ``owner()`` fits; none if the folder cannot be listed."""
    try:
        return list(folder.glob(f".audiosr-{owner}*.part"))
    except OSError:
        return []


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
