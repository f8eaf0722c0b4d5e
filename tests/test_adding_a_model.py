"""docs/adding-a-model.md: the example package, as the page has it, works with the installed commands."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path

import fork_server
import pytest
import soundfile
from conftest import EXAMPLES, HANG_S, noise

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "adding-a-model.md").read_text(encoding="utf-8")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with the files of the page, which Python takes for an installed package."""
    sources = re.findall(r"^```(?:python|toml)\n(.*?)^```", PAGE, re.M | re.S)
    names = re.findall(r"[Ss]ave this as\s+`([\w.]+)`", PAGE)
    assert names == ["toy_masks.py", "pyproject.toml", "try_it.py", "toy.toml"]
    for name, source in zip(names, sources, strict=True):
        (tmp_path / name).write_text(source, encoding="utf-8")
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return tmp_path


def python(folder: Path, *arguments: str) -> str:
    """Run Python in ``folder``, where the package is, and return what it prints."""
    code = f"import runpy, sys; sys.path.insert(0, {str(folder)!r}); "
    if arguments[0] == "-m":
        code += "del sys.argv[0]; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
    else:
        code += "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, *(arguments[1:] if arguments[0] == "-m" else arguments)]
    environment = os.environ | {"AUDIOSR_CACHE": str(folder / "cache")}
    done = fork_server.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_model_of_the_page_is_built_saved_loaded_trained_and_separates(package: Path) -> None:
    printed = PAGE.split("```text\n")[1].split("```")[0]
    assert python(package, "try_it.py") == printed
    soundfile.write(package / "mixture.wav", noise(11025).T, 11025)  # one second
    command = ["-m", "audiosr_cli", "separate", "mixture.wav", "--overwrite"]
    python(package, *command, "--model", "untrained.safetensors")
    for s in (1, 2):
        info = soundfile.info(package / f"mixture_speaker{s}.wav")
        assert (info.frames, info.samplerate) == (11025, 11025)
    train = ["-m", "audiosr_cli", "train", "toy.toml", "--out", "runs/toy", "--minutes", "0.02"]
    trained = python(package, *train, "--data", str(EXAMPLES)).strip()
    assert trained == "runs/toy/toy_masks.safetensors"
    python(package, *command, "--model", trained)
