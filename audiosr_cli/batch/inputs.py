"""Which recordings a call processes: files, folders, globs, lists of paths, and one shard of them."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from audiosr_cli.audio.read import SUFFIXES
from audiosr_cli.errors import InputError, UsageError


@dataclass(frozen=True)
class Item:
    """One recording of a batch.

    Attributes:
        source: Its path, or ``-`` for standard input.
        subfolder: Its folder relative to the input folder that it was found in.
    """

    source: str
    subfolder: Path = Path()


def collect(inputs: Sequence[str], files_from: str | None = None, null: bool = False) -> list[Item]:
    """List the recordings that a call names.

    Folders are searched for audio files, recursively. A glob is expanded unless a file has that name.

    Args:
        inputs: Files, folders, globs, ``@LIST`` for a file with one path a line, or ``-`` for standard input.
        files_from: Another list of paths, or ``-`` to read it from standard input. Paths in lists are not globs.
        null: Whether paths in lists are separated by NUL bytes.

    Raises:
        UsageError: If no input is given, or standard input is given twice or is a terminal.
        InputError: If a folder cannot be listed, has no audio files or is part of a loop of symlinks, a glob matches
            nothing, or a list cannot be read.
    """
    if [*inputs, files_from].count("-") > 1:
        raise UsageError("'-' (standard input) can be given only once")
    items = [item for name in inputs for item in _expand(name, null)]
    if files_from is not None:
        items += [item for name in _read_list(files_from, null) for item in _find(name)]
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


def _expand(name: str, null: bool) -> Iterator[Item]:
    if name == "-":
        if sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty():
            raise UsageError("'-' reads audio from standard input, which is a terminal; pipe a recording into it")
        yield Item("-")
    elif os.path.lexists(name):
        yield from _find(name)
    elif name.startswith("@"):
        for path in _read_list(name[1:], null):
            yield from _find(path)
    elif glob.has_magic(name):
        yield from _expand_glob(name)
    else:
        yield from _find(name)


def _expand_glob(pattern: str) -> list[Item]:
    """List matching files, and audio files in matching folders; ``**`` is recursive itself and matches audio only."""
    paths = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - pathlib's accepts no absolute pattern
    if "**" in Path(pattern).parts:
        paths = [path for path in paths if Path(path).suffix.lower() in SUFFIXES and not _is_folder(path)]
    items = [item for path in paths for item in _find(path, allow_empty=True)]
    if not items:
        raise InputError(f"{pattern}: no file matches")
    return items


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # reported when it is opened
        return False


def _find(name: str, allow_empty: bool = False) -> Iterator[Item]:
    """Yield a file, which need not exist, or the audio files of a folder, which must have some by default."""
    name = "./-" if name == "-" else name
    if not _is_folder(name):
        yield Item(name)
        return
    paths = sorted(_walk(Path(name)))
    if not paths and not allow_empty:
        raise InputError(f"{name}: no audio files in this folder")
    yield from (Item(str(path), path.parent.relative_to(name)) for path in paths)


def _walk(folder: Path, parents: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """Yield all files with an audio suffix, broken symlinks too. Follows symlinks to folders, but not in a loop."""
    try:
        status = folder.stat()
        paths = list(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed: {error.strerror}") from error
    inode = (status.st_dev, status.st_ino)
    if inode in parents:
        raise InputError(f"{folder}: a symlink leads back to a folder above it; remove it, or name the files you want")
    for path in paths:
        if path.is_dir():
            yield from _walk(path, parents | {inode})
        elif path.suffix.lower() in SUFFIXES:
            yield path


def _read_list(name: str, null: bool) -> list[str]:
    """Read the paths of a list, byte for byte."""
    data = _read_bytes(name)
    if b"\0" in data and not null:
        raise UsageError(f"{name}: contains NUL bytes; use -0 if they separate the paths")
    lines = data.split(b"\0") if null else [line.removesuffix(b"\r") for line in data.split(b"\n")]
    paths = [os.fsdecode(line) for line in lines if line]
    if not paths:
        raise InputError(f"{name}: no paths in this list")
    return paths


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
