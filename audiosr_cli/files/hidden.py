"""Names that people do not mean when they name a folder: hidden ones, and those that systems create."""

from __future__ import annotations

from pathlib import Path

# What systems put beside the files of a user, and hide: macOS in archives, Windows, Synology and QNAP, Linux.
_SYSTEM_NAMES = frozenset(
    ("__macosx", "$recycle.bin", "system volume information", "@eadir", "#recycle", "@recycle", "lost+found")
)


def is_hidden(name: str) -> bool:
    """Check whether a file or folder of this name is left out when a folder is searched."""
    return name.startswith(".") or is_system_name(name)


def is_system_name(path: str | Path) -> bool:
    """Check whether a folder is one of those that systems create, such as ``__MACOSX``."""
    return Path(path).name.casefold() in _SYSTEM_NAMES
