"""Which names outputs get, and everything that can be wrong with them before work begins."""

from __future__ import annotations

import hashlib
import os
import string
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from audiosr_cli.audio.write import FORMATS, container_of
from audiosr_cli.batch.inputs import Item
from audiosr_cli.errors import OutputError, UsageError
from audiosr_cli.files.fingerprint import absolute

FIELDS = ("stem", "speaker", "rate", "ext")
_NAME_BYTES = 255  # what file systems take
_DIGITS = 8  # of the hash that tells shortened names apart


@dataclass(frozen=True)
class Naming:
    """Where outputs go. ``output`` is a folder, a file (one input only), ``-`` or None for the current folder.

    ``template`` has the fields {stem}, {speaker} (speaker1, speaker2 … residual), {rate} and {ext}. Raises UsageError
    where it would lead out of the folder.
    """

    output: str | None
    template: str
    container: str | None = None

    def __post_init__(self) -> None:
        try:
            if unknown := [name for name in self.fields if name not in FIELDS]:
                raise UsageError(f"--template: unknown field {{{unknown[0]}}}; known: {', '.join(FIELDS)}")
            made = self.template.format(stem="a", speaker="b", rate=8000, ext="wav")
        except (ValueError, KeyError, IndexError) as error:
            raise UsageError(f"--template {self.template!r}: {error}") from error
        self._check_inside(self.template)
        self._check_inside(made)
        if self._asked is not None and self._asked not in FORMATS:
            raise UsageError(f"--format {self.container}: known are {', '.join(FORMATS)}")
        if self._asked and self._told and self._asked != self._told:
            raise UsageError(f"--format {self.container}: the output's name says {self._told}")

    @property
    def fields(self) -> list[str]:
        """The fields that the template uses."""
        return [name for _, name, _, _ in string.Formatter().parse(self.template) if name is not None]

    @property
    def to_file(self) -> bool:
        """Whether ``output`` names one file (or pipe, or device) rather than a folder."""
        path = Path(self.output or ".")
        special = path.exists() and not path.is_dir() and not path.is_file()
        return self.output not in (None, "-") and (special or (container_of(path) is not None and not path.is_dir()))

    @property
    def chosen_container(self) -> str:
        """The output format: asked for, or told by the file's suffix, else wav."""
        return self._asked or self._told or "wav"

    @property
    def _asked(self) -> str | None:
        return None if self.container is None else self.container.lower()

    @property
    def _told(self) -> str | None:
        """What the suffix of the file, or of the template, says."""
        return container_of(Path(self.output)) if self.output and self.to_file else container_of(Path(self.template))

    def targets(self, item: Item, outputs: Sequence[str], rate: int) -> list[str | Path]:
        """One path for each of ``outputs``. A file given for several lends its stem to the template.

        A name that is too long for a file system has its stem shortened, and a part of the stem's hash after it.
        Raises UsageError where the template makes a name of ``item`` that leads out of the folder.
        """
        if self.output == "-":
            return ["-"]
        if self.output is not None and self.to_file:
            given = Path(self.output)
            if len(outputs) == 1:
                return [given]
            folder, stem = given.parent, given.stem
        else:
            folder = Path(self.output or ".") / item.below
            stem = "stdin" if item.source == "-" else Path(item.source).stem
        return [folder / self._name(stem, name, rate) for name in outputs]

    def _name(self, stem: str, speaker: str, rate: int) -> str:
        def made(stem: str) -> str:
            return self.template.format(stem=stem, speaker=speaker, rate=rate, ext=self.chosen_container)

        name, room = made(stem), len(os.fsencode(stem))
        while room > 0 and any(len(os.fsencode(part)) > _NAME_BYTES for part in name.split("/")):
            room -= 1
            name = made(_shortened(stem, room))
        self._check_inside(name)
        return name

    def _check_inside(self, name: str) -> None:
        path = Path(name)
        if path.is_absolute() or ".." in path.parts or not path.name or name.endswith("/"):
            made = "" if name == self.template else f" {name!r}"
            raise UsageError(f"--template {self.template!r}:{made} must stay inside the output folder, and name a file")

    def check_links(self, target: Path) -> None:
        """Raises OutputError where a symlink below the output folder would lead ``target`` out of it."""
        if self.to_file:  # asked for by its own name
            return
        folder = os.path.realpath(self.output or ".")
        if not Path(os.path.realpath(target.parent)).is_relative_to(folder):
            raise OutputError(f"{target}: a symlink leads out of the output folder {folder}; remove it")
        if target.exists() and not target.is_file():
            raise OutputError(f"{target}: exists and is not a file; choose another name or folder")


def _shortened(stem: str, room: int) -> str:
    """``stem`` in at most ``room`` bytes, its hash at the end; whole characters only."""
    digest = hashlib.sha256(os.fsencode(stem)).hexdigest()[:_DIGITS]
    kept = stem
    while kept and len(os.fsencode(kept)) + 1 + _DIGITS > room:
        kept = kept[:-1]
    return f"{kept}~{digest}"


def check(items: Sequence[Item], naming: Naming, outputs: Sequence[str], rate: int = 0) -> None:
    """Find what cannot go well before work is done; ``rate`` is the outputs' where that is known. Raises UsageError."""
    if naming.output == "-":
        _check_standard_output(len(items), len(outputs))
        return
    _check_once(items)
    if naming.to_file and len(items) > 1:
        raise UsageError(f"-o {naming.output} is one file for {len(items)} inputs; give a folder")
    folder = Path(naming.output or ".")
    if naming.output is not None and not naming.to_file and folder.exists() and not folder.is_dir():
        raise UsageError(f"-o {naming.output}: exists and is not a folder")
    if len(outputs) > 1 and "speaker" not in naming.fields:
        raise UsageError(f"--template {naming.template!r}: {len(outputs)} outputs an input need the field {{speaker}}")
    _check_apart(items, naming, outputs, rate)


def _check_standard_output(items: int, outputs: int) -> None:
    if items > 1 or outputs > 1:
        raise UsageError(f"-o - takes one output; this call makes {items * outputs}")
    if sys.stdout is None or sys.stdout.closed:
        raise UsageError("-o - writes audio to standard output, which is closed")
    if sys.stdout.isatty():
        raise UsageError("-o - writes audio to standard output, which is a terminal here; redirect it")


def _check_once(items: Sequence[Item]) -> None:
    """No recording comes twice, by itself and in a folder: events and manifests know it by its path."""
    sources = Counter(absolute(item.source) for item in items if item.source != "-")
    if twice := next((source for source, count in sources.items() if count > 1), None):
        raise UsageError(f"{twice}: is given more than once; name it once")


def _check_apart(items: Sequence[Item], naming: Naming, outputs: Sequence[str], rate: int) -> None:
    """No two outputs have one name, or names that the file system takes for one."""
    taken: dict[str, str] = {}
    folded: dict[str, str] = {}
    for item in items:
        for target in naming.targets(item, outputs, rate):
            name = str(target)
            other = taken.get(name)
            if other is None and name.casefold() in folded and _ignores_case(Path(target).parent):
                other = folded[name.casefold()]
            if other is not None:
                raise UsageError(f"{other} and {item.source} would both become {name}; use --template or -o")
            taken[name] = folded[name.casefold()] = item.source


def _ignores_case(folder: Path) -> bool:
    """Whether names in ``folder``, or in the nearest above it that is there, are the same in either case."""
    place = Path(os.path.realpath(folder))
    while not place.exists():
        place = place.parent
    other = place.parent / place.name.swapcase()
    return other != place and other.exists() and other.samefile(place)
