"""Which recordings a call processes: files, folders, globs, lists of paths, and one shard of them."""

from __future__ import annotations

import codecs
import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from audiosr_cli.batch.folders import HIDDEN, OUTPUTS, FolderWalk, is_recording, kind_of
from audiosr_cli.errors import InputError, UsageError
from audiosr_cli.files.hidden import is_system_name


@dataclass(frozen=True)
class Item:
    """One recording of a batch.

    Attributes:
        source: Its path, or ``-`` for standard input.
        subfolder: Its folder relative to the input folder that it was found in.
        stem: What its outputs are named after; empty for its own name without the suffix.
    """

    source: str
    subfolder: Path = Path()
    stem: str = ""


def collect(
    inputs: Sequence[str], files_from: str | None = None, null: bool = False, walk: FolderWalk | None = None
) -> list[Item]:
    """List the recordings that a call names.

    Folders are searched for recordings, recursively; hidden files and folders are left out, but a file that is named is
    a recording whatever its name. A glob is expanded unless a file has that name.

    Args:
        inputs: Files, folders, globs, ``@LIST`` for a file with one path a line, or ``-`` for standard input.
        files_from: Another list of paths, or ``-`` to read it from standard input. Paths in lists are not globs.
        null: Whether paths in lists are separated by NUL bytes.
        walk: How folders are searched; it counts what is left out.

    Raises:
        UsageError: If no input is given, or standard input is given twice or is a terminal.
        InputError: If a folder cannot be listed, has no audio files or is part of a loop of symlinks, a glob matches
            nothing, or a list cannot be read.
    """
    if [*inputs, files_from].count("-") > 1:
        raise UsageError("'-' (standard input) can be given only once")
    walk = walk or FolderWalk()
    items: list[Item] = []
    for name in inputs:
        if len(inputs) > 1 and is_system_name(name) and _is_folder(name):  # by the * of a shell
            walk.leave_out(name)
        else:
            items += _expand(name, null, walk)
    if files_from is not None:
        items += [item for name in _read_list(files_from, null) for item in _find(name, walk)]
    if not items and walk.left_out:
        raise _no_recordings(", ".join(walk.left_out), walk)
    if not items:
        raise UsageError("no inputs; give recordings, folders, or --files-from LIST")
    return items


def select_shard(items: Sequence[Item], shard: str) -> list[Item]:
    """Select the part ``i/N`` of ``items``: every N-th one in the order of their names, from the i-th on.

    Raises:
        UsageError: If ``shard`` is not ``i/N`` with i from 1 to N.
    """
    first, slash, count = shard.partition("/")
    if not (slash and first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise UsageError(f"--shard {shard}: expected i/N with i from 1 to N, such as 1/8")
    return sorted(items, key=lambda item: item.source)[int(first) - 1 :: int(count)]


def _expand(name: str, null: bool, walk: FolderWalk) -> Iterator[Item]:
    if name == "-":
        if sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty():
            raise UsageError("'-' reads audio from standard input, which is a terminal; pipe a recording into it")
        yield Item("-")
    elif os.path.lexists(name):
        yield from _find(name, walk)
    elif name.startswith("@"):
        for path in _read_list(name[1:], null):
            yield from _find(path, walk)
    elif glob.has_magic(name):
        yield from _expand_glob(name, walk)
    else:
        yield from _find(name, walk)


def _expand_glob(pattern: str, walk: FolderWalk) -> list[Item]:
    """List matching files, and recordings in matching folders; ``**`` is recursive itself and matches recordings only.

    Hidden files do not match by themselves; folders of the system would.
    """
    items: list[Item] = []
    parts = Path(pattern).parts
    for path in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - pathlib's accepts no absolute pattern
        inner = "**" in parts  # a match in a folder that matches, too
        system = any(is_system_name(part) for part in Path(path).parts if part not in parts)
        if inner and _is_folder(path):
            continue
        if system or (inner and not is_recording(path)):
            walk.leave_out(pattern, HIDDEN if system else kind_of(path))
        else:
            items += _find(path, walk, allow_empty=True)
    if not items:
        raise InputError(f"{pattern}: no file matches")
    return items


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # reported when it is opened
        return False


def _find(name: str, walk: FolderWalk, allow_empty: bool = False) -> Iterator[Item]:
    """Yield a file, which need not exist, or the recordings of a folder, which must have some by default."""
    name = "./-" if name == "-" else name
    if not _is_folder(name):
        yield Item(name)
        return
    paths = walk.find(name)
    if not paths and not allow_empty:
        raise _no_recordings(name, walk)
    yield from (Item(str(path), path.parent.relative_to(name)) for path in paths)


def _no_recordings(name: str, walk: FolderWalk) -> InputError:
    left_out = walk.describe(name if name in walk.left_out else None)
    hint = "; name files to process them again" if OUTPUTS in left_out else ""
    return InputError(f"{name}: no audio files in this folder" + (f" ({left_out} left out{hint})" if left_out else ""))


def _read_list(name: str, null: bool) -> list[str]:
    """Read the paths of a list, byte for byte."""
    data = _as_utf8(name, _read_bytes(name))
    if b"\0" in data and not null:
        raise UsageError(
            f"{name}: contains NUL bytes; use -0 if they separate the paths; save the list as UTF-8 if not"
        )
    lines = data.split(b"\0") if null else [line.removesuffix(b"\r") for line in data.split(b"\n")]
    paths = [os.fsdecode(line) for line in lines if line]
    if not paths:
        raise InputError(f"{name}: no paths in this list")
    return paths


def _as_utf8(name: str, data: bytes) -> bytes:
    """Return a list without its byte order mark, and UTF-16 as UTF-8: programs of Windows write all of these."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return data.decode("utf-16").encode()
        except UnicodeError as error:
            raise InputError(f"{name}: begins as UTF-16, but is not; save the list as UTF-8") from error
    return data.removeprefix(codecs.BOM_UTF8)


def _read_bytes(name: str) -> bytes:
    if name != "-":
        try:
            return Path(name).read_bytes()
        except OSError as error:
            raise InputError(f"{name}: the list cannot be read: {error.strerror}") from error
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError("--files-from - reads paths from standard input, which is closed")
    if sys.stdin.isatty():
        raise UsageError("--files-from - reads paths from standard input, which is a terminal; pipe them in")
    return sys.stdin.buffer.read()
