"""The layout: imports go one way, some packages are imported in one place, and help loads nothing slow."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "audiosr_cli"
ROWS = [  # a unit imports from the rows above its own only
    {"errors"},
    {"contract", "config", "files", "runtime"},
    {"dsp", "audio"},
    {"models"},
    {"checkpoints"},
    {"conversation"},
    {"streaming"},
    {"pipelines", "arguments"},
    {"api"},
    {"batch"},
    {"train", "bench", "doctor"},
    {"cli"},
]
ROW = {name: i for i, row in enumerate(ROWS) for name in row}
ONLY_IN = {  # where a third-party package may be imported
    "soundfile": ("audio/",),
    "av": ("audio/",),
    "soxr": ("audio/resample.py",),
    "ray": ("batch/ray.py",),
    "typer": ("cli/",),
    "rich": ("cli/",),
    "platformdirs": ("cli/sources.py",),
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, type checking left out."""
    found = set()
    tree = ast.parse(path.read_text())
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def unit(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", [f for f in FILES if f.parent != PACKAGE or not f.name.startswith("__")], ids=str)
def test_imports_go_to_earlier_rows_only(path: Path) -> None:
    here = unit(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "audiosr_cli" or len(parts) < 2 or parts[1] in (here, "__version__"):
            continue
        assert ROW[parts[1]] < ROW[here], f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_some_packages_are_imported_in_one_place_only(path: Path) -> None:
    place = path.relative_to(PACKAGE).as_posix()
    for name in {name.split(".")[0] for name in imports(path)} & set(ONLY_IN):
        assert place.startswith(ONLY_IN[name]), f"{place} imports {name}"


def test_every_unit_has_a_row() -> None:
    assert {unit(path) for path in FILES if not path.name.startswith("__") or path.parent != PACKAGE} <= set(ROW)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["upsample", "--help"], ["bench", "--help"]])
def test_help_loads_no_dependency_but_typer(arguments: list[str]) -> None:
    """What makes help quick: torch takes a second to load, NumPy and rich take longer than all the rest."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    slow = {re.split(r"[<>=]", name)[0] for name in project["dependencies"]} - {"typer"}
    assert {"numpy", "rich", "torch"} <= slow
    code = f"import sys; from audiosr_cli.cli.main import main\ntry: main()\nfinally: print({slow} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\nset()\n")


def test_public_names_load_lazily() -> None:
    code = (
        "import sys, audiosr_cli; assert 'torch' not in sys.modules; "
        "[getattr(audiosr_cli, name) for name in audiosr_cli.__all__]; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not here")
def test_quick_tests_touch_every_folder() -> None:
    """What `make quick` leaves out exists, and what it runs imports something of every folder of the package."""
    tests = PACKAGE.parent / "tests"
    rule = subprocess.run(["make", "-n", "quick"], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    left_out = {PACKAGE.parent / name for name in re.findall(r"--ignore=(\S+)", rule.stdout)}
    assert left_out
    assert all(path.is_file() for path in left_out)
    seen = {name for path in tests.rglob("test_*.py") if path not in left_out for name in imports(path)}
    folders = {f.parent.relative_to(PACKAGE.parent).as_posix().replace("/", ".") for f in FILES}
    assert {folder for folder in folders if not any(f"{name}.".startswith(f"{folder}.") for name in seen)} == set()


def test_files_stay_readable() -> None:
    long = [f"{path}: {lines}" for path in FILES if (lines := len(path.read_text().splitlines())) > 350]
    assert not long
