"""Which code made a result: the commit of this checkout, where the package runs from one."""

from __future__ import annotations

import subprocess
from pathlib import Path

PACKED = "COMMIT"  # the file beside the package of a kit that says what it was packed from


def commit(package: Path = Path(__file__).parent) -> str:
    """Return the commit of the checkout that ``package`` lies at the top of, with "-dirty" where it was changed.

    For a kit that `audiosr train --pack` made, that of the checkout it was packed from. Empty for an installation,
    whatever repository it lies in (an environment in a project's folder, say), and where git is missing or fails.
    """
    root = package.resolve().parent
    if (root / PACKED).is_file():
        return (root / PACKED).read_text(encoding="utf-8").strip()
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
