"""Which recordings a call is about: files, folders, globs, lists of paths, and a share of them all."""

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
    """One recording of a batch: where it is (``-``: standard input), and its folder below the one given."""

    source: str
    below: Path = Path()


def collect(inputs: Sequence[str], files_from: str | None = None, null: bool = False) -> list[Item]:
    """The recordings that ``inputs`` name, and those of the list ``files_from`` (``-``: standard input).

    Files come as they are, folders are walked for audio files, ``@list`` is a file with a path a line, a glob that is
    no file's name is expanded, ``-`` is standard input. Paths in lists are separated by NUL bytes with ``null``; a
    path in a list is nothing but a path. Raises UsageError on a call that cannot be meant, InputError on a folder
    without audio, one that cannot be listed, a loop of symlinks, and a glob that finds nothing.
    """
    if [*inputs, files_from].count("-") > 1:
        raise UsageError("'-' can be given once only")
    items = [item for name in inputs for item in _named(name, null)]
    if files_from is not None:
        items += [item for name in _listed(files_from, null) for item in _at(name)]
    if not items:
        raise UsageError("no inputs; give recordings, folders, or --files-from LIST")
    return items


def share(items: Sequence[Item], shard: str) -> list[Item]:
    """The part ``i/N`` of ``items``, i from 1 on: every N-th in the order of their names. Raises UsageError."""
    first, slash, count = shard.partition("/")
    if not (slash and first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise UsageError(f"--shard {shard}: i/N is wanted, with i from 1 to N, such as 1/8")
    return sorted(items, key=lambda item: item.source)[int(first) - 1 :: int(count)]


def _named(name: str, null: bool) -> Iterator[Item]:
    if name == "-":
        if sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty():
            raise UsageError("'-' reads audio from standard input, which is a terminal here; pipe a file into it")
        yield Item("-")
    elif os.path.lexists(name):
        yield from _at(name)
    elif name.startswith("@"):
        for listed in _listed(name[1:], null):
            yield from _at(listed)
    elif glob.has_magic(name):
        yield from _matching(name)
    else:
        yield from _at(name)


def _matching(pattern: str) -> list[Item]:
    """What a glob finds: files, and the audio files of folders; ``**`` walks itself, and finds audio files only."""
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - pathlib's takes no absolute one
    if "**" in Path(pattern).parts:
        found = [path for path in found if Path(path).suffix.lower() in SUFFIXES and not _is_folder(path)]
    items = [item for path in found for item in _at(path, needed=False)]
    if not items:
        raise InputError(f"{pattern}: no file has such a name")
    return items


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # told when it is opened
        return False


def _at(name: str, needed: bool = True) -> Iterator[Item]:
    """A file, there or not, or the audio files of a folder, which must have some where they are ``needed``."""
    name = "./-" if name == "-" else name
    if not _is_folder(name):
        yield Item(name)
        return
    found = sorted(_walk(Path(name)))
    if needed and not found:
        raise InputError(f"{name}: no audio files in this folder")
    yield from (Item(str(file), file.parent.relative_to(name)) for file in found)


def _walk(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """Everything below that is named like audio, broken links too. Symlinks to folders are followed, not in circles."""
    try:
        known = folder.stat()
        paths = list(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed: {error.strerror}") from error
    here = (known.st_dev, known.st_ino)
    if here in above:
        raise InputError(f"{folder}: a symlink that leads back to a folder above it; remove it, or name what is wanted")
    for path in paths:
        if path.is_dir():
            yield from _walk(path, above | {here})
        elif path.suffix.lower() in SUFFIXES:
            yield path


def _listed(name: str, null: bool) -> list[str]:
    """The paths in a list, as the bytes they are."""
    data = _read_list(name)
    if b"\0" in data and not null:
        raise UsageError(f"{name}: has NUL bytes; use -0 where they separate the paths")
    lines = data.split(b"\0") if null else [line.removesuffix(b"\r") for line in data.split(b"\n")]
    paths = [os.fsdecode(line) for line in lines if line]
    if not paths:
        raise InputError(f"{name}: no paths in this list")
    return paths


def _read_list(name: str) -> bytes:
    if name != "-":
        try:
            return Path(name).read_bytes()
        except OSError as error:
            raise InputError(f"{name}: the list cannot be read: {error.strerror}") from error
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError("--files-from - reads paths from standard input, which is closed")
    if sys.stdin.isatty():
        raise UsageError("--files-from - reads paths from standard input, which is a terminal here; pipe them in")
    return sys.stdin.buffer.read()
