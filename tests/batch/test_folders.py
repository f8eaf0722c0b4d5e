"""batch/folders.py: hidden files, other files, and outputs of earlier calls in the folders of a call."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from running import PLAIN, contents, inside, recording

from audiosr_cli.batch import folders
from audiosr_cli.batch.folders import HIDDEN, NO_SUFFIX, OUTPUTS, EarlierOutputs, FolderWalk
from audiosr_cli.batch.inputs import Item, collect
from audiosr_cli.errors import InputError


def write(folder: Path, *names: str) -> Path:
    """Create files below ``folder``."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"RIFF")
    return folder


def found(folder: Path, walk: FolderWalk) -> list[str]:
    return [str(path.relative_to(folder)) for path in walk.find(str(folder))]


@pytest.mark.parametrize(
    "name",
    [
        "._talk.wav",
        ".DS_Store",
        ".hidden/talk.wav",
        ".Trashes/talk.wav",
        "__MACOSX/talk.wav",
        "$RECYCLE.BIN/S-1-5/talk.wav",
        "System Volume Information/talk.wav",
        "@eaDir/talk.wav",
        "sub/#recycle/talk.wav",
        "lost+found/talk.wav",
    ],
)
def test_hidden_names_are_left_out_and_counted_once(name: str, tmp_path: Path) -> None:
    walk = FolderWalk()
    assert found(write(tmp_path, "talk.wav", name), walk) == ["talk.wav"]
    assert walk.describe() == "1 hidden"


def test_other_files_are_counted_by_suffix(tmp_path: Path) -> None:
    walk = FolderWalk()
    write(tmp_path, "a.wav", "b.MP3", "c.txt", "sub/d.TXT", "e.pdf", "README", ".x", ".y")
    assert found(tmp_path, walk) == ["a.wav", "b.MP3"]
    assert walk.left_out == {str(tmp_path): {HIDDEN: 2, ".txt": 2, ".pdf": 1, NO_SUFFIX: 1, OUTPUTS: 0}}
    assert walk.describe() == "2 hidden, 2 .txt, 1 .pdf, 1 without a suffix"
    assert FolderWalk().describe() == ""


def test_many_kinds_of_files_take_one_short_line(tmp_path: Path) -> None:
    walk = FolderWalk()
    found(write(tmp_path, *(f"a.{i:03}" for i in range(50))), walk)
    assert walk.describe().startswith("1 .0")
    assert walk.describe().endswith(", 40 of other kinds")
    assert walk.describe().count(",") == 10


def test_a_file_that_is_named_is_a_recording_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write(tmp_path, "._a.wav", ".b/c.wav", "notes.txt"))
    Path("list").write_text("._a.wav\n.b/c.wav\n")
    names = ["._a.wav", ".b/c.wav", "notes.txt"]
    assert [item.source for item in collect(names)] == names
    assert [item.source for item in collect(["@list"])] == names[:2]
    assert [item.source for item in collect([".b"])] == [".b/c.wav"]  # a folder, too


def test_what_a_shell_adds_of_the_system_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``audiosr separate card/*`` names ``card/__MACOSX``."""
    monkeypatch.chdir(write(tmp_path, "card/a.wav", "card/__MACOSX/b.wav", "card/x/__MACOSX/c.wav"))
    for inputs in (["card/a.wav", "card/__MACOSX"], ["card/*"], ["card/**"], ["card/**/*.wav"]):
        walk = FolderWalk()
        assert collect(inputs, walk=walk) == [Item("card/a.wav")]
        assert walk.describe().endswith("hidden")
    assert [item.source for item in collect(["card/__MACOSX"])] == ["card/__MACOSX/b.wav"]


def test_a_folder_without_recordings_is_an_error_that_says_what_it_has(tmp_path: Path) -> None:
    write(tmp_path, ".x.wav", "a.txt")
    with pytest.raises(InputError, match=r"no audio files in this folder \(1 hidden, 1 \.txt left out\)"):
        collect([str(tmp_path)])


def test_the_error_of_a_folder_counts_only_what_is_in_it(tmp_path: Path) -> None:
    for folder, names in (("a", ("a.wav", "a.txt")), ("b", (".x.wav",))):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, *names)
    with pytest.raises(InputError, match=r"b: no audio files in this folder \(1 hidden left out\)"):
        collect([str(tmp_path / "a"), str(tmp_path / "b")])


ORIGINS = {"track.wav": "separate", "wide.wav": "upsample"}  # the others are recordings


@pytest.fixture
def mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recording and an output of each of two commands."""

    def provenance_of(path: Path) -> dict[str, Any] | None:
        command = ORIGINS.get(path.name)
        return None if command is None else {"tool": "audiosr", "version": "1", "command": command}

    monkeypatch.setattr(folders, "provenance_of", provenance_of)
    return write(tmp_path / "in", "talk.wav", "sub/track.wav", "wide.wav")


def test_outputs_of_the_same_command_are_left_out_wherever_new_ones_go(mixed: Path, tmp_path: Path) -> None:
    walk = FolderWalk(EarlierOutputs("separate", tmp_path / "out"))
    assert found(mixed, walk) == ["talk.wav", "wide.wav"]
    assert walk.describe() == "1 output of audiosr"


@pytest.mark.parametrize("output", [".", "sub", "new/folder"])
def test_outputs_of_other_commands_are_left_out_where_new_ones_go_into_the_same_folder(
    output: str, mixed: Path
) -> None:
    walk = FolderWalk(EarlierOutputs("separate", mixed / output))
    assert found(mixed, walk) == ["talk.wav"]
    assert walk.describe() == "2 outputs of audiosr"


def test_a_folder_of_outputs_alone_is_the_input_of_another_command(mixed: Path) -> None:
    (mixed / "talk.wav").unlink()
    assert found(mixed, FolderWalk(EarlierOutputs("separate-sr", mixed))) == ["sub/track.wav", "wide.wav"]
    assert found(mixed, FolderWalk(EarlierOutputs("upsample", mixed))) == ["sub/track.wav"]


def test_outputs_that_a_manifest_names_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "a.wav", "b.wav", "c.wav", "d.wav")
    listed = {str(tmp_path / "b.wav"): "separate", str(tmp_path / "c.wav"): "upsample", str(tmp_path / "d.wav"): ""}
    walk = FolderWalk(EarlierOutputs("separate", None, listed))
    assert found(tmp_path, walk) == ["a.wav", "c.wav"]


@pytest.mark.parametrize("provenance", [True, False])
def test_a_second_round_has_the_inputs_of_the_first(provenance: bool, tmp_path: Path) -> None:
    """Without tags, the manifest knows the outputs; a file that is named is processed in any case."""
    (tmp_path / "in").mkdir()
    recording(tmp_path / "in" / "a.wav")
    options = () if provenance else ("--no-provenance", "--manifest", "log")
    for rate in ("16000", "24000"):
        done = inside(*PLAIN[:-1], rate, "in", "-o", "in", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert sorted(contents(tmp_path / "in")) == ["a.wav", "a_16000.wav", "a_24000.wav"]
    assert b"audiosr: left out of in: 1 output of audiosr\n" in done.stderr
    named = inside(*PLAIN[:-1], "24000", "in/a_16000.wav", "-o", "out", cwd=tmp_path)
    assert named.stdout == b"out/a_16000_24000.wav\n"


def test_pipes_in_a_folder_are_not_opened_to_look_for_a_tag(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    assert found(tmp_path, FolderWalk(EarlierOutputs("separate", tmp_path))) == ["a.wav"]
