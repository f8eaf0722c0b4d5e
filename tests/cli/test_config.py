"""cli/config.py: ``audiosr config`` shows every value and where it comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import inside

from audiosr_cli.cli import sources
from audiosr_cli.cli.settings import COMMANDS, settings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a file and a preset; the user has none."""
    monkeypatch.delenv("AUDIOSR_NO_CONFIG")
    monkeypatch.setattr(sources, "user_file", lambda: tmp_path / "home" / "audiosr.toml")
    (tmp_path / "audiosr.toml").write_text("speakers = 3\n[preset.p]\nsubtype = '24bit'")
    return tmp_path


def test_every_option_is_shown_with_its_source(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOSR_BATCH", "4")
    rows = json.loads(inside("config", "show", "--json", "--preset", "p", cwd=folder).stdout)
    assert list(rows) == list(COMMANDS)
    assert all(set(rows[name]) == set(settings()[name]) for name in COMMANDS)
    shown = rows["separate"]
    assert shown["speakers"] == {"value": 3, "source": "./audiosr.toml"}
    assert shown["batch"] == {"value": 4, "source": "$AUDIOSR_BATCH"}
    assert shown["subtype"] == {"value": "PCM_24", "source": "./audiosr.toml [preset.p]"}
    assert shown["clip"] == {"value": "warn", "source": "default"}
    assert rows["upsample"]["rate"] == {"value": 48000, "source": "default"}


def test_one_command_is_shown_as_a_table(folder: Path) -> None:
    lines = inside("config", "show", "separate", cwd=folder).stdout.decode().splitlines()
    assert lines[0] == "separate"
    assert [line.split() for line in lines if "speakers" in line] == [["speakers", "3", "./audiosr.toml"]]
    assert [line.split(maxsplit=1)[1] for line in lines if "subtype" in line] == [
        "(the input's; 16 for lossy input)  default"
    ]
    assert "upsample" not in lines


def test_show_leaves_files_out_if_asked_to(folder: Path) -> None:
    rows = json.loads(inside("config", "show", "separate", "--json", "--no-config", cwd=folder).stdout)
    assert rows["separate"]["speakers"] == {"value": 2, "source": "default"}


def test_show_warns_of_misspelt_variables(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOSR_SPEEKERS", "4")
    done = inside("config", "show", "separate", cwd=folder)
    assert done.stderr.decode() == "audiosr: warning: $AUDIOSR_SPEEKERS: did you mean $AUDIOSR_SPEAKERS?\n"


def test_show_refuses_a_broken_file_and_an_unknown_command(folder: Path) -> None:
    (folder / "audiosr.toml").write_text("speaker = 3")
    done = inside("config", "show", "separate", cwd=folder)
    assert (done.returncode, done.stderr.decode()) == (
        2,
        "audiosr: ./audiosr.toml: unknown option 'speaker'\nhint: did you mean speakers?\n",
    )
    assert inside("config", "show", "train", cwd=folder).returncode == 2


def test_path_says_where_files_are_looked_for(folder: Path) -> None:
    done = inside("config", "path", cwd=folder)
    assert done.stdout.decode().splitlines() == [
        f"{folder}/audiosr.toml",
        f"{folder}/home/audiosr.toml (does not exist)",
    ]


def test_the_users_folder_follows_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert sources.user_file() == tmp_path / "audiosr" / "audiosr.toml"
