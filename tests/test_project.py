"""The files around the package agree with it and with each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import audiosr_cli

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_citation_has_the_version_and_licence_of_the_package() -> None:
    citation = read("CITATION.cff")
    assert f"\nversion: {audiosr_cli.__version__}\n" in citation
    assert f"\nlicense: {PROJECT['license']}\n" in citation


def test_ci_runs_every_python_that_the_package_supports() -> None:
    supported = {name for line in PROJECT["classifiers"] for name in re.findall(r":: (3\.\d+)$", line)}
    tested = set(re.findall(r'"(3\.\d+)"', read(".github/workflows/ci.yml").split("python: ")[1].split("\n")[0]))
    assert min(supported, key=lambda name: int(name[2:])) == PROJECT["requires-python"].removeprefix(">=")
    assert tested == supported


def test_make_targets_in_the_contributing_page_and_the_workflows_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))
    for name in ("CONTRIBUTING.md", *(f".github/workflows/{kind}.yml" for kind in ("ci", "docs", "release"))):
        called = set(re.findall(r"(?:`| run: |^    )(?:WORKERS=\d+ )?make ([a-z-]+)", read(name), re.M))
        assert called <= targets, f"{name}: {called - targets}"


def test_bug_reports_ask_for_what_doctor_prints() -> None:
    assert "audiosr doctor --json" in read(".github/ISSUE_TEMPLATE/bug.yml")


def test_type_checkers_are_told_that_the_package_is_typed() -> None:
    assert (Path(audiosr_cli.__file__).parent / "py.typed").is_file()
    assert "Typing :: Typed" in PROJECT["classifiers"]


def test_committed_files_name_no_folder_outside_the_repository() -> None:
    """Recordings are in $AUDIOSR_DATA, wherever that is."""
    pages = [*ROOT.glob("examples/train/*.toml"), *ROOT.glob("tools/*.py"), *ROOT.glob("docs/**/*.md")]
    assert len(pages) > 20
    assert not [path for path in pages if "shared/data" in path.read_text(encoding="utf-8")]
