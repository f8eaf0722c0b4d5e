"""Which files of a folder are recordings to process, and how many others there are of each kind."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from audiosr_cli.audio.metadata.provenance import provenance_of
from audiosr_cli.audio.read import SUFFIXES
from audiosr_cli.errors import InputError
from audiosr_cli.files.fingerprint import absolute
from audiosr_cli.files.hidden import is_hidden

HIDDEN, OUTPUTS, NO_SUFFIX = "hidden", "outputs of audiosr", "without a suffix"
_MAX_KINDS = 10  # of files, in one line
_READERS = 8  # threads that look for provenance tags


@dataclass(frozen=True)
class EarlierOutputs:
    """Recognises the outputs of earlier calls, by their provenance tag or because a manifest names them.

    Attributes:
        command: Of this call, such as ``separate``.
        folder: Where the outputs of this call go; None for standard output.
        commands: Absolute paths of outputs that a manifest names, and the command that wrote each; empty if unknown.
    """

    command: str
    folder: Path | None = None
    commands: Mapping[str, str] = field(default_factory=dict)

    def select(self, paths: Sequence[Path], walked: Path) -> list[Path]:
        """Return those of ``paths``, recordings below the folder ``walked``, that are outputs and not to be processed.

        What the same command wrote is never processed again. What another command wrote is, as in ``separate calls -o
        tracks`` and ``upsample tracks -o wide``, unless this call writes into the folder in which it lies together with
        other recordings: then nothing says that it is meant.
        """
        # Reads some 200 KB of every file, at most about 1 ms each: little beside processing them. The threads are for
        # network file systems, which take long to answer.
        with ThreadPoolExecutor(_READERS) as pool:
            commands = zip(paths, pool.map(self._command_of, paths), strict=True)
            written_by = {path: command for path, command in commands if command is not None}
        in_place = self.folder is not None and _is_inside(self.folder, walked)
        if in_place and len(written_by) < len(paths):
            return list(written_by)
        return [path for path, command in written_by.items() if command in ("", self.command)]

    def _command_of(self, path: Path) -> str | None:
        """Return the command that wrote a file, an empty text if it is unknown, None if the file is no output."""
        known = self.commands.get(absolute(path)) if self.commands else None
        if known is not None:
            return known
        provenance = provenance_of(path)
        return None if provenance is None else str(provenance.get("command", ""))


class FolderWalk:
    """Lists the recordings below folders, and counts what it leaves out.

    Args:
        earlier: Recognises outputs, which are left out; without it, they are recordings like others.

    Attributes:
        left_out: Number of files and hidden folders of each kind, by the name of the folder that was walked. A kind is
            `HIDDEN`, `OUTPUTS`, a suffix such as ``.txt``, or `NO_SUFFIX`.
    """

    def __init__(self, earlier: EarlierOutputs | None = None) -> None:
        self.earlier = earlier
        self.left_out: dict[str, Counter[str]] = {}

    def find(self, name: str) -> list[Path]:
        """List the recordings below a folder, sorted; broken symlinks with such a name, too.

        Symlinks to folders are followed.

        Raises:
            InputError: If a folder cannot be listed, or a symlink leads to a folder above it.
        """
        counts = self._counts(name)
        paths = sorted(_walk(Path(name), counts))
        outputs = set(self.earlier.select(paths, Path(name))) if self.earlier is not None else ()
        counts[OUTPUTS] += len(outputs)
        return [path for path in paths if path not in outputs]

    def leave_out(self, name: str, kind: str = HIDDEN) -> None:
        """Count a file or folder that the user named by ``name``, which may be a glob."""
        self._counts(name)[kind] += 1

    def _counts(self, name: str) -> Counter[str]:
        return self.left_out.setdefault(name, Counter())

    def describe(self, name: str | None = None) -> str:
        """Describe what was left out of one folder or, without a name, of all of them.

        Such as ``3 hidden, 2 .txt``; empty if nothing was.
        """
        total = sum(self.left_out.values(), Counter()) if name is None else self.left_out.get(name, Counter())
        suffixes = [kind for kind, _ in total.most_common() if kind not in (HIDDEN, OUTPUTS)]
        kinds = [kind for kind in (HIDDEN, OUTPUTS, *suffixes[:_MAX_KINDS]) if total[kind]]
        others = sum(total[kind] for kind in suffixes[_MAX_KINDS:])
        parts = [f"{total[kind]} {kind if total[kind] > 1 else kind.replace('outputs', 'output')}" for kind in kinds]
        return ", ".join(parts + ([f"{others} of other kinds"] if others else []))


def is_recording(path: str | Path) -> bool:
    """Check whether a file has the suffix of a recording."""
    return Path(path).suffix.lower() in SUFFIXES


def kind_of(path: str | Path) -> str:
    """Return the suffix of a file in small letters, or `NO_SUFFIX`."""
    return Path(path).suffix.lower() or NO_SUFFIX


def _walk(folder: Path, counts: Counter[str], parents: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """Yield the files below ``folder`` that may be recordings, and count the others."""
    try:
        status = folder.stat()
        with os.scandir(folder) as listing:
            entries = list(listing)
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed: {error.strerror}") from error
    inode = (status.st_dev, status.st_ino)
    if inode in parents:
        raise InputError(f"{folder}: a symlink leads back to a folder above it; remove it, or name the files you want")
    for entry in entries:
        if is_hidden(entry.name):
            counts[HIDDEN] += 1
        elif _is_folder(entry):
            yield from _walk(folder / entry.name, counts, parents | {inode})
        elif is_recording(entry.name):
            yield folder / entry.name
        else:
            counts[kind_of(entry.name)] += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # reported when it is opened
        return False


def _is_inside(folder: Path, other: Path) -> bool:
    return Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(other))
