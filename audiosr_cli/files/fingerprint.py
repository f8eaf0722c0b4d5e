"""What tells one content of a file from another: its size, its time, its SHA-256."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fingerprint:
    """A file as it was; ``path`` is absolute, ``mtime_ns`` when it was last written to."""

    path: str
    size: int
    mtime_ns: int
    sha256: str

    def matches(self) -> bool:
        """Whether the file has that content still."""
        return self._size_holds() and sha256(self.path) == self.sha256

    def probably_matches(self) -> bool:
        """The same, but a file of the same size and time is not read."""
        return self._size_holds() and (Path(self.path).stat().st_mtime_ns == self.mtime_ns or self.matches())

    def _size_holds(self) -> bool:
        return Path(self.path).is_file() and Path(self.path).stat().st_size == self.size


def fingerprint(path: Path) -> Fingerprint:
    """Of a file as it is now. Raises OSError."""
    known = path.stat()
    return Fingerprint(absolute(path), known.st_size, known.st_mtime_ns, sha256(path))


def absolute(path: str | Path) -> str:
    """``path`` from the root on, symlinks left alone."""
    return os.path.abspath(path)  # noqa: PTH100 - pathlib's follows no '..'


def sha256(path: str | Path) -> str:
    """Hex digest of a file. Raises OSError."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
