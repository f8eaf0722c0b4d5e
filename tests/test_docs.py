"""The README, the examples and the package's metadata agree with the program. Pages: see tests/docs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import doc_pages
import fork_server
import pytest
import soundfile
import typer
from conftest import EXAMPLES, HANG_S, few_mixtures
from running import inside

import audiosr_cli
from audiosr_cli.cli.main import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_readme_shows_every_command() -> None:
    shown = {words[0] for words in doc_pages.invocations(ROOT / "README.md")}
    assert shown == set(typer.main.get_command(app).commands)


def test_version_and_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == "audiosr-cli"
    assert f"## {audiosr_cli.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_constraints_pin_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    extras = project["optional-dependencies"]
    required = project["dependencies"] + extras["dev"] + extras["docs"]
    assert {re.split(r"[<>=\[]", name)[0].lower() for name in required} <= pinned


def test_examples_have_their_references() -> None:
    mix, rate = soundfile.read(EXAMPLES / "two_speakers.wav")
    parts = [soundfile.read(EXAMPLES / f"two_speakers_reference{i}.flac")[0] for i in (1, 2)]
    assert rate == 16000
    assert abs(sum(parts) - mix).max() < 2 / 32768
    assert soundfile.info(EXAMPLES / "narrowband.wav").samplerate == 8000
    assert soundfile.info(EXAMPLES / "narrowband_reference.flac").samplerate == 48000


def test_shell_examples_run(tmp_path: Path) -> None:
    """Every pipeline of examples/pipelines.sh."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "audiosr").write_text(f'#!/bin/sh\nexec {fork_server.shell_command()} "$@"\n')
    (tmp_path / "bin" / "audiosr").chmod(0o755)
    path = f"{tmp_path}/bin:/usr/bin:/bin"
    script = str(EXAMPLES / "pipelines.sh")
    done = subprocess.run(
        ["bash", script], cwd=tmp_path, env={"PATH": path, "HOME": str(tmp_path)}, capture_output=True, timeout=HANG_S
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "restored.flac").is_file()


@pytest.mark.parametrize("minutes", ["0.01", pytest.param("0.1", marks=pytest.mark.slow)])
def test_the_tutorial_trains_and_its_model_separates(
    minutes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of the README's section on training, the first with seconds for minutes."""
    monkeypatch.setenv("AUDIOSR_CACHE", str(tmp_path / "cache"))
    few_mixtures(monkeypatch)
    section = README.split("## Train your own")[1].split("\n## ")[0]
    commands = [
        line.strip().split("  #")[0].split() for line in section.splitlines() if line.startswith("    audiosr ")
    ]
    train, separate = commands[:2]
    assert (train[1], separate[1]) == ("train", "separate")
    (tmp_path / "examples").symlink_to(EXAMPLES)
    for command in ([*train[1:], "--minutes", minutes], separate[1:]):
        done = inside(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    names = done.stdout.decode().splitlines()
    assert len(names) == 2
    assert all((tmp_path / name).is_file() for name in names)


def test_the_demo_runs_and_says_how_good_it_is(tmp_path: Path) -> None:
    code = f"import runpy; runpy.run_path({str(EXAMPLES / 'demo.py')!r}, run_name='__main__')"
    command = [sys.executable, "-c", code]
    done = fork_server.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr
    scores = [float(value) for value in re.findall(r"LSD ([\d.]+)", done.stdout)]
    assert scores[1] < scores[0] - 0.8  # upsampled against resampled
    assert done.stdout.count("separated") == 2
