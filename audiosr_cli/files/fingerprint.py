"""Fingerprints of files: size, modification time and SHA-256."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fingerprint:
    """The state of a file at one time.

    Attributes:
        path: Absolute path.
        size: Bytes.
        mtime_ns: Time of the last modification in nanoseconds.
        sha256: Hex digest of the content.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str

    def matches(self) -> bool:
        """Return whether the file still has this content."""
        return self._size_matches() and sha256(self.path) == self.sha256

    def probably_matches(self) -> bool:
        """Return the same, but trust the size and the modification time if they are equal."""
        return self._size_matches() and (Path(self.path).stat().st_mtime_ns == self.mtime_ns or self.matches())

    def _size_matches(self) -> bool:
        return Path(self.path).is_file() and Path(self.path).stat().st_size == self.size


def fingerprint(path: Path) -> Fingerprint:
    """Take the fingerprint of a file. Raises OSError."""
    status = path.stat()
    return Fingerprint(absolute(path), status.st_size, status.st_mtime_ns, sha256(path))


def absolute(path: str | Path) -> str:
    """Return ``path`` as an absolute path, without following symbolic links."""
    return os.path.abspath(path)  # noqa: PTH100 - pathlib does not resolve '..'


def sha256(path: str | Path) -> str:
    """Return the hex digest of a file. Raises OSError."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
