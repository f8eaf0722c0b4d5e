"""Names of outputs, and every problem with them that can be found before work begins."""

from __future__ import annotations

import hashlib
import os
import string
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from audiosr_cli.audio.formats import FORMATS, container_of
from audiosr_cli.audio.read import SUFFIXES
from audiosr_cli.batch.inputs import Item
from audiosr_cli.conversation.labels import SUFFIXES as LABELS
from audiosr_cli.conversation.labels import split_name
from audiosr_cli.errors import OutputError, UsageError
from audiosr_cli.files.fingerprint import absolute

FIELDS = ("stem", "speaker", "rate", "ext")
_MAX_NAME_BYTES = 255  # of a file name, in most file systems
_HASH_DIGITS = 8  # that distinguish shortened names


@dataclass(frozen=True)
class Naming:
    """Names of outputs.

    Attributes:
        output: A folder, a file (for one input only), ``-`` for standard output, or None for the current folder.
        template: File name with the fields {stem}, {speaker} (speaker1, speaker2, speech, residual), {rate} and
            {ext}.
        container: File format; None takes it from the file name, or wav.

    Raises:
        UsageError: If the template is invalid or leads out of the folder, or the format is unknown or does not fit
            the file name.
    """

    output: str | None
    template: str
    container: str | None = None

    def __post_init__(self) -> None:
        try:
            if unknown := [name for name in self.fields if name not in FIELDS]:
                raise UsageError(f"--template: unknown field {{{unknown[0]}}}; known: {', '.join(FIELDS)}")
            example = self.template.format(stem="a", speaker="b", rate=8000, ext="wav")
        except (ValueError, KeyError, IndexError) as error:
            raise UsageError(f"--template {self.template!r}: {error}") from error
        self._check_inside(self.template)
        self._check_inside(example)
        requested, implied = self._requested_container, self._implied_container
        if requested is not None and requested not in FORMATS:
            raise UsageError(f"--format {self.container}: unknown; known: {', '.join(FORMATS)}")
        if requested and implied and requested != implied:
            raise UsageError(f"--format {self.container}: contradicts the output's name, which says {implied}")

    @property
    def fields(self) -> list[str]:
        """List the fields that the template uses."""
        return [name for _, name, _, _ in string.Formatter().parse(self.template) if name is not None]

    @property
    def to_file(self) -> bool:
        """Check whether ``output`` is one file (or pipe, or device) rather than a folder."""
        path = Path(self.output or ".")
        special = path.exists() and not path.is_dir() and not path.is_file()
        return self.output not in (None, "-") and (special or (container_of(path) is not None and not path.is_dir()))

    @property
    def folder(self) -> Path | None:
        """Return the folder below which all outputs lie; None if they go to standard output."""
        if self.output == "-":
            return None
        return Path(self.output).parent if self.output is not None and self.to_file else Path(self.output or ".")

    @property
    def output_container(self) -> str:
        """Return the format of the outputs: the requested one, the one that the file name implies, or wav."""
        return self._requested_container or self._implied_container or "wav"

    @property
    def _requested_container(self) -> str | None:
        return None if self.container is None else self.container.lower()

    @property
    def _implied_container(self) -> str | None:
        """Return the format that the suffix of the file, or of the template, implies."""
        return container_of(Path(self.output)) if self.output and self.to_file else container_of(Path(self.template))

    def targets(self, item: Item, outputs: Sequence[str], rate: int) -> list[str | Path]:
        """List the path of every output of a recording.

        If several outputs go to one given file name, its stem is used in the template. Where a name is too long for
        file systems, its stem is shortened and gets a part of its hash.

        Args:
            item: The recording.
            outputs: Names of the outputs, such as ``speaker1``.
            rate: Sample rate of the outputs in Hz.

        Raises:
            UsageError: If a name leads out of the output folder.
        """
        if self.output == "-":
            return ["-"]
        if self.output is not None and self.to_file:
            path = Path(self.output)
            if len(outputs) == 1:
                return [path]
            folder, stem = path.parent, path.stem
        else:
            folder = Path(self.output or ".") / item.subfolder
            stem = item.stem or _stem(item)
        return [folder / self._name(stem, name, rate) for name in outputs]

    def _name(self, stem: str, speaker: str, rate: int) -> str:
        def fill(stem: str) -> str:
            name, suffix = split_name(speaker)
            return self.template.format(stem=stem, speaker=name, rate=rate, ext=suffix or self.output_container)

        name, max_bytes = fill(stem), len(os.fsencode(stem))
        while max_bytes > 0 and any(len(os.fsencode(part)) > _MAX_NAME_BYTES for part in name.split("/")):
            max_bytes -= 1
            name = fill(_shorten(stem, max_bytes))
        self._check_inside(name)
        return name

    def _check_inside(self, name: str) -> None:
        path = Path(name)
        if path.is_absolute() or ".." in path.parts or not path.name or name.endswith("/"):
            which = "" if name == self.template else f" {name!r}"
            raise UsageError(f"--template {self.template!r}:{which} must stay inside the output folder and name a file")

    def check_links(self, target: Path) -> None:
        """Check that no symlink below the output folder leads ``target`` out of it.

        Raises:
            OutputError: If one does, or ``target`` exists and is not a file.
        """
        if self.to_file:  # the user named this path itself
            return
        self._check_in_folder(target, target.parent)
        if target.exists() and not target.is_file():
            raise OutputError(f"{target}: exists and is not a file; choose another name or folder")

    def check_link(self, target: Path) -> None:
        """Check a target that is going to be replaced: if it is a symlink, what it leads to is replaced.

        Raises:
            OutputError: If it leads out of the output folder. A file that the user named may lead anywhere.
        """
        if not self.to_file and target.is_symlink():
            self._check_in_folder(target, target)

    def _check_in_folder(self, target: Path, place: Path) -> None:
        folder = os.path.realpath(self.output or ".")
        if not Path(os.path.realpath(place)).is_relative_to(folder):
            raise OutputError(f"{target}: a symlink leads out of the output folder {folder}; remove it")


def _shorten(stem: str, max_bytes: int) -> str:
    """Shorten ``stem`` to at most ``max_bytes``, whole characters only, with its hash at the end."""
    digest = hashlib.sha256(os.fsencode(stem)).hexdigest()[:_HASH_DIGITS]
    start = stem
    while start and len(os.fsencode(start)) + 1 + _HASH_DIGITS > max_bytes:
        start = start[:-1]
    return f"{start}~{digest}"


def check(items: Sequence[Item], naming: Naming, outputs: Sequence[str], rate: int = 0) -> None:
    """Check the names of all outputs of a batch before work begins.

    Args:
        items: The recordings.
        naming: How outputs are named.
        outputs: Names of each recording's outputs.
        rate: Sample rate of the outputs in Hz, 0 if it depends on the recording.

    Raises:
        UsageError: If two outputs would get the same name, or an output cannot be written where it should go.
    """
    if naming.output == "-":
        _check_standard_output(len(items), len(outputs))
        return
    _check_no_duplicates(items)
    if naming.to_file and len(items) > 1:
        raise UsageError(f"-o {naming.output}: is one file for {len(items)} inputs; give a folder")
    folder = Path(naming.output or ".")
    if naming.output is not None and not naming.to_file and folder.exists() and not folder.is_dir():
        raise UsageError(f"-o {naming.output}: exists and is not a folder; choose another name")
    if naming.output is not None and not naming.to_file and not folder.exists() and folder.suffix.lower() in SUFFIXES:
        raise UsageError(f"-o {naming.output}: {folder.suffix} files cannot be written; known: {', '.join(FORMATS)}")
    if naming.output is not None and not folder.exists() and folder.suffix[1:] in LABELS.values():
        raise UsageError(f"-o {naming.output}: is the name of a label file; give a folder")
    if len([name for name in outputs if split_name(name)[1] is None]) > 1 and "speaker" not in naming.fields:
        raise UsageError(f"--template {naming.template!r}: {len(outputs)} outputs an input need the field {{speaker}}")
    _check_distinct_targets(items, naming, outputs, rate)


def _check_standard_output(items: int, outputs: int) -> None:
    if items > 1 or outputs > 1:
        raise UsageError(f"-o - takes one output, but this call writes {items * outputs}; give -o a folder")
    if sys.stdout is None or sys.stdout.closed:
        raise UsageError("-o - writes audio to standard output, which is closed")
    if sys.stdout.isatty():
        raise UsageError("-o - writes audio to standard output, which is a terminal; redirect it")


def _check_no_duplicates(items: Sequence[Item]) -> None:
    """Check that no recording is given twice: events and manifests identify it by its path."""
    sources = Counter(absolute(item.source) for item in items if item.source != "-")
    if duplicate := next((source for source, count in sources.items() if count > 1), None):
        raise UsageError(f"{duplicate}: is given more than once; give it once")


def _check_distinct_targets(items: Sequence[Item], naming: Naming, outputs: Sequence[str], rate: int) -> None:
    """Check that no two outputs have the same name, also on file systems that ignore case."""
    for first, second, target in _clashes(items, naming, outputs, rate):
        message = f"{items[first].source} and {items[second].source} would both be written to {target}"
        raise UsageError(f"{message}; use --template or -o")


def distinguish(items: Sequence[Item], naming: Naming, outputs: Sequence[str], rate: int = 0) -> list[Item]:
    """Name outputs apart where recordings differ in nothing but their suffixes: these join the names.

    ``take1.wav`` and ``take1.mp3`` of one call become ``take1_wav_speaker1.wav`` and ``take1_mp3_speaker1.wav``. Both
    change, so that ``take1_speaker1.wav`` always stands for the only recording of that name: if one kept it, a later
    call with another ``take1`` beside it would skip or replace what belongs to the other one. Names depend neither on
    the order of the recordings nor on who processes them; give all recordings of the call, not a shard.

    Args:
        items: The recordings.
        naming: How outputs are named.
        outputs: Names of each recording's outputs.
        rate: Sample rate of the outputs in Hz, 0 if it depends on the recording.

    Returns:
        The recordings, some of them with a ``stem``. Names may still clash, see `check`.
    """
    items = list(items)
    if naming.output == "-" or naming.to_file:
        return items
    changed: set[int] = set()
    while new := _clashing(items, naming, outputs, rate) - changed:  # a new name may clash with another one
        for i in new:
            suffix = Path(items[i].source).suffix[1:]
            items[i] = replace(items[i], stem=f"{_stem(items[i])}_{suffix}" if suffix else "")
        changed |= new
    return items


def _clashing(items: Sequence[Item], naming: Naming, outputs: Sequence[str], rate: int) -> set[int]:
    """Return the indices of items whose outputs clash with those of an item with another suffix."""
    groups: dict[int, set[int]] = {}
    for first, second, _ in _clashes(items, naming, outputs, rate):
        groups.setdefault(first, {first}).add(second)
    return {i for group in groups.values() if len({Path(items[i].source).suffix for i in group}) > 1 for i in group}


def _clashes(
    items: Sequence[Item], naming: Naming, outputs: Sequence[str], rate: int
) -> Iterator[tuple[int, int, str]]:
    """Yield the indices of pairs of items that have an output in common, and its name; the first one comes earlier."""
    taken: dict[str, int] = {}
    folded: dict[str, int] = {}
    for i, item in enumerate(items):
        for target in naming.targets(item, outputs, rate):
            name = str(target)
            other = taken.setdefault(name, i)
            if other == i and folded.get(name.casefold(), i) != i and _ignores_case(Path(target).parent):
                other = folded[name.casefold()]
            folded.setdefault(name.casefold(), i)
            if other != i:
                yield other, i, name


def _stem(item: Item) -> str:
    return "stdin" if item.source == "-" else Path(item.source).stem


def _ignores_case(folder: Path) -> bool:
    """Check whether the file system of ``folder``, or of its nearest parent that exists, ignores case."""
    place = Path(os.path.realpath(folder))
    while not place.exists():
        place = place.parent
    other = place.parent / place.name.swapcase()
    return other != place and other.exists() and other.samefile(place)
