"""The folder of a kit in the making: its files, their digests, and the size that it must not exceed."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from audiosr_cli.files.fingerprint import sha256
from audiosr_cli.runtime.provenance import PACKED, commit
from audiosr_cli.train.pack_audio import Packed, place

MANIFEST, WHEELS = "MANIFEST.json", "wheels.txt"
_NEEDED = ("soundfile", "soxr", "typer", "rich", "safetensors")  # beside torch and numpy, which are on any such machine
_BLOCK = 512  # bytes, of a tar archive: sizes are those in one, as transfers often are
_ARCHIVE = 40 * _BLOCK  # its end and its own folder, and what the manifest says beside the files
_LONG_NAME = 90  # characters; beyond, an archive needs two blocks more

# Of a recording, beside its content: a header and half a block in an archive, lines in the manifest and the table.
OVERHEAD = 3 * _BLOCK + 300


@dataclass
class KitFolder:
    """Counts what each file costs in a tar archive: never less than the sum of the files' sizes.

    Attributes:
        folder: Where the files are written.
        limit: Bytes that all may have together.
        tables: How many tables have a row for every recording.
        files: SHA-256 by path.
        rows: Speaker, and band in Hz, by the recording's path below ``data``.
        size: Bytes that the files that are there cost.
        reserved: What the rows of tables that are still to be written will cost.

    """

    folder: Path
    limit: int
    tables: int
    files: dict[str, str] = field(default_factory=dict)
    rows: dict[str, tuple[str, float]] = field(default_factory=dict)
    size: int = _ARCHIVE
    reserved: int = field(init=False)
    _folders: set[Path] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.reserved = 4 * _BLOCK * self.tables

    @property
    def room(self) -> int:
        """Bytes that are left."""
        return self.limit - self.size - self.reserved

    def cost(self, relative: str, size: int) -> int:
        """Return the bytes that a file adds, with its new folders and its line in the manifest."""
        fresh = [parent for parent in Path(relative).parents if parent not in self._folders]
        long_name = 2 * _BLOCK if len(relative) > _LONG_NAME else 0
        return -(-size // _BLOCK) * _BLOCK + (1 + len(fresh)) * _BLOCK + long_name + len(relative.encode()) + 80

    def takes(self, packed: Packed) -> bool:
        """Whether there is room for a recording, too."""
        return self.cost(f"data/{packed.relative}", packed.size) + self._rows_cost(packed) <= self.room

    def _rows_cost(self, packed: Packed) -> int:
        return self.tables * (len(packed.relative.encode()) + len(packed.source.speaker.encode()) + 32)

    def add(self, relative: str, content: Path | bytes) -> None:
        """Copy or write a file of the kit, and count it."""
        target = self.folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            target.write_bytes(content)
        else:
            shutil.copyfile(content, target)
        self._note(relative, target)

    def add_recording(self, packed: Packed) -> None:
        """Place a recording, and count it."""
        relative = f"data/{packed.relative}"
        place(packed, self.folder / relative)
        self._note(relative, self.folder / relative)
        self.rows[packed.relative] = (packed.source.speaker, packed.band_hz)
        self.reserved += self._rows_cost(packed)

    def _note(self, relative: str, target: Path) -> None:
        self.size += self.cost(relative, target.stat().st_size)
        self._folders |= set(Path(relative).parents)
        self.files[relative] = sha256(target)

    def add_code(self) -> None:
        """Add this package, the script that runs a kit, and the list of what it may have to install."""
        package = Path(__file__).parents[1]
        for path in sorted(package.rglob("*")):
            inside = path.relative_to(package)
            if path.is_file() and not {"__pycache__", "_weights"} & set(inside.parts):
                self.add(f"code/{package.name}/{inside.as_posix()}", path)
        self.add(f"code/{PACKED}", commit().encode())
        self.add("run.sh", Path(__file__).with_name("run.sh"))
        (self.folder / "run.sh").chmod(0o755)
        self.add(WHEELS, "".join(f"{line}\n" for line in wheels()).encode())


def wheels() -> list[str]:
    """Return what a machine with torch and numpy still has to have, as requirements of the versions that are here."""
    requirements: dict[str, str] = {}
    waiting = list(_NEEDED)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in requirements or name in ("numpy", "torch"):
            continue
        try:
            requirements[name] = f"{name}=={version(name)}"
        except PackageNotFoundError:  # for other systems or versions of Python
            continue
        lines = [line for line in requires(name) or () if "extra ==" not in line]
        waiting += [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines]
    return sorted(requirements.values())


def write_manifest(folder: Path, known: dict[str, Any], files: dict[str, str]) -> None:
    """Write what a kit says of itself, one file a line."""
    text = json.dumps(known | {"files": files}, indent=0, ensure_ascii=False)
    (folder / MANIFEST).write_text(text, encoding="utf-8")
