"""The places that options come from, in a test: files and variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiosr_cli.cli import sources


class Places:
    """A working folder, a user's file elsewhere, and an environment without options."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.user, self._patch = folder / "work", folder / "home" / "audiosr.toml", patch
        self.folder.mkdir()
        self.user.parent.mkdir()
        patch.delenv("AUDIOSR_NO_CONFIG")
        patch.setattr(sources, "user_file", lambda: self.user)
        patch.chdir(self.folder)

    def write(self, folder: str = "", user: str = "", **environment: str) -> None:
        """Write the files, and set variables, whose names lack ``AUDIOSR_``."""
        (self.folder / "audiosr.toml").write_text(folder)
        self.user.write_text(user)
        for name, value in environment.items():
            self._patch.setenv(f"AUDIOSR_{name}", value)
