"""runtime/provenance.py: the commit of a checkout, and none for an installed package."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from audiosr_cli.runtime.provenance import commit


def repository(folder: Path) -> str:
    """Commit everything in ``folder`` to a new repository, and return the hash."""
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", folder, *command], check=True)
    process = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return process.stdout.strip()


def package_in(folder: Path) -> Path:
    package = folder / "audiosr_cli"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    return package


def test_commit_of_a_checkout_says_whether_files_were_changed(tmp_path: Path) -> None:
    package = package_in(tmp_path)
    head = repository(tmp_path)
    assert len(commit(package)) >= 7
    assert head.startswith(commit(package))
    (package / "__init__.py").write_text("changed = True\n")
    assert commit(package).endswith("-dirty")


def test_an_installed_package_has_no_commit_even_inside_a_repository(tmp_path: Path) -> None:
    package = package_in(tmp_path / ".venv" / "lib" / "site-packages")
    repository(tmp_path)
    assert commit(package) == ""


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = package_in(tmp_path)
    repository(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit(package) == ""
