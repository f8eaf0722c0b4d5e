"""runtime/provenance.py: our own commit, and nobody else's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from audiosr_cli.runtime.provenance import commit


def repository(folder: Path) -> str:
    """A repository at ``folder`` with one commit of all that is there; its short hash."""
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", folder, *command], check=True)
    made = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return made.stdout.strip()


def package_in(folder: Path) -> Path:
    package = folder / "audiosr_cli"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    return package


def test_a_checkout_names_its_commit_and_whether_it_was_changed(tmp_path: Path) -> None:
    package = package_in(tmp_path)
    head = repository(tmp_path)
    assert len(commit(package)) >= 7
    assert head.startswith(commit(package))
    (package / "__init__.py").write_text("changed = True\n")
    assert commit(package).endswith("-dirty")


def test_an_installation_is_not_the_repository_around_it(tmp_path: Path) -> None:
    package = package_in(tmp_path / ".venv" / "lib" / "site-packages")
    repository(tmp_path)
    assert commit(package) == ""


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = package_in(tmp_path)
    repository(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit(package) == ""
