"""The folder of a kit that is being packed: its files, their digests, and its size limit."""

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
# Requirements besides torch and numpy, which the target machine must have.
_NEEDED = ("soundfile", "soxr", "typer", "rich", "safetensors")
# Bytes of a block of a tar archive. Sizes are counted as in an archive, as kits are often transferred as one.
_BLOCK = 512
# Bytes of the archive's end and top folder, and of the manifest without its list of files.
_ARCHIVE = 40 * _BLOCK
# Characters of a path beyond which an archive needs two more blocks.
_LONG_NAME = 90

# Bytes of a recording besides its content: a header and half a block in an archive, lines in manifest and table.
OVERHEAD = 3 * _BLOCK + 300


@dataclass
class KitFolder:
    """Writes the files of a kit and counts their size in a tar archive, never less than the sum of the files' sizes.

    Attributes:
        folder: Folder of the kit.
        limit: Largest size in bytes.
        tables: Number of tables with a row for every recording.
        files: SHA-256 by path.
        rows: Speaker and bandwidth in Hz, by the recording's path below ``data``.
        size: Size of the files so far, in bytes.
        reserved: Bytes reserved for the tables, which are written last.
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
        """The bytes that are left."""
        return self.limit - self.size - self.reserved

    def cost(self, relative: str, size: int) -> int:
        """Return the bytes that a file adds, including new folders and its line in the manifest."""
        new_folders = [parent for parent in Path(relative).parents if parent not in self._folders]
        long_name = 2 * _BLOCK if len(relative) > _LONG_NAME else 0
        return -(-size // _BLOCK) * _BLOCK + (1 + len(new_folders)) * _BLOCK + long_name + len(relative.encode()) + 80

    def fits(self, packed: Packed) -> bool:
        """Return whether there is room for a recording."""
        return self.cost(f"data/{packed.relative}", packed.size) + self._rows_cost(packed) <= self.room

    def _rows_cost(self, packed: Packed) -> int:
        return self.tables * (len(packed.relative.encode()) + len(packed.source.speaker.encode()) + 32)

    def add(self, relative: str, content: Path | bytes) -> None:
        """Copy or write a file into the kit."""
        target = self.folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            target.write_bytes(content)
        else:
            shutil.copyfile(content, target)
        self._count(relative, target)

    def add_recording(self, packed: Packed) -> None:
        """Add a recording to the kit and to the rows of the tables."""
        relative = f"data/{packed.relative}"
        place(packed, self.folder / relative)
        self._count(relative, self.folder / relative)
        self.rows[packed.relative] = (packed.source.speaker, packed.bandwidth_hz)
        self.reserved += self._rows_cost(packed)

    def _count(self, relative: str, target: Path) -> None:
        self.size += self.cost(relative, target.stat().st_size)
        self._folders |= set(Path(relative).parents)
        self.files[relative] = sha256(target)

    def add_code(self) -> None:
        """Add this package, the script that runs a kit, and the list of its requirements."""
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
    """Return the requirements besides torch and numpy, with the versions installed here."""
    requirements: dict[str, str] = {}
    pending = list(_NEEDED)
    while pending:
        name = pending.pop().lower().replace("_", "-")
        if name in requirements or name in ("numpy", "torch"):
            continue
        try:
            requirements[name] = f"{name}=={version(name)}"
        except PackageNotFoundError:  # needed on other systems or versions of Python only
            continue
        lines = [line for line in requires(name) or () if "extra ==" not in line]
        pending += [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines]
    return sorted(requirements.values())


def write_manifest(folder: Path, contents: dict[str, Any], files: dict[str, str]) -> None:
    """Write a kit's manifest: its ``contents``, and one line for each file."""
    text = json.dumps(contents | {"files": files}, indent=0, ensure_ascii=False)
    (folder / MANIFEST).write_text(text, encoding="utf-8")
