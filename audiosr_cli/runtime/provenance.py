"""The commit of the code, for the provenance of results."""

from __future__ import annotations

import subprocess
from pathlib import Path

PACKED = "COMMIT"  # a file beside the package in a kit: the commit that the kit was packed from


def commit(package: Path = Path(__file__).parent) -> str:
    """Return the commit of the checkout whose top folder holds ``package``, with "-dirty" if files were changed.

    For a kit written by `audiosr train --pack`, it is the commit that the kit was packed from. Empty for an installed
    package, even inside another repository (such as an environment in a project's folder), and if git is missing or
    fails.
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
