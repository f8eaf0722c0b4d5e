"""Inputs: files, folders, globs, lists and shards."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from audiosr_cli.batch.inputs import Item, collect, select_shard
from audiosr_cli.batch.naming import Naming
from audiosr_cli.errors import InputError, UsageError

TWO = "{stem}_{speaker}.{ext}"
NAMES = ("speaker1", "speaker2")


def test_folders_are_searched_and_keep_their_tree(recordings: Path) -> None:
    items = collect([str(recordings)])
    naming = Naming("out", TWO)
    assert [str(naming.targets(item, NAMES[:2], 8000)[1]) for item in items] == [
        "out/a_speaker2.wav",
        "out/b_speaker2.wav",
        "out/sub/a_speaker2.wav",
    ]
    with pytest.raises(InputError, match="no audio files"):
        (recordings / "empty").mkdir()
        collect([str(recordings / "empty")])


def test_links_are_followed_but_not_in_circles(recordings: Path) -> None:
    (recordings / "broken.wav").symlink_to("nowhere.wav")
    (recordings / "loop.wav").symlink_to("loop.wav")
    (recordings / "other").symlink_to(recordings / "sub")
    found = [str(Path(item.source).relative_to(recordings)) for item in collect([str(recordings)])]
    assert found == ["a.wav", "b.flac", "broken.wav", "loop.wav", "other/a.wav", "sub/a.wav"]
    (recordings / "sub" / "up").symlink_to(recordings)
    with pytest.raises(InputError, match="/up: a symlink leads back"):
        collect([str(recordings)])


def test_globs_are_expanded_where_no_file_has_that_name(recordings: Path) -> None:
    pattern = str(recordings / "[ab].*")
    assert [Path(item.source).name for item in collect([pattern])] == ["a.wav", "b.flac"]
    assert len(collect([str(recordings / "**" / "a.wav")])) == 2
    (recordings / "empty").mkdir()
    found = [str(Path(item.source).relative_to(recordings)) for item in collect([str(recordings / "**")])]
    assert found == ["a.wav", "b.flac", "sub/a.wav"]
    (recordings / "notes.txt").unlink()
    assert [item.source for item in collect([str(recordings / "*")])] == [str(recordings / name) for name in found]
    with pytest.raises(InputError, match="no file matches"):
        collect([str(recordings / "em*")])
    Path(pattern).touch()
    assert collect([pattern]) == [Item(pattern)]
    with pytest.raises(InputError, match="no file matches"):
        collect([str(recordings / "x*")])


def test_lists_contain_only_paths(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recordings)
    Path("list").write_bytes(b"a.wav\r\n\nsub\n@x\n*.wav\n-\n\xff.wav")
    wanted = ["a.wav", "sub/a.wav", "@x", "*.wav", "./-", os.fsdecode(b"\xff.wav")]
    assert [item.source for item in collect(["@list"])] == wanted
    assert [item.source for item in collect([], "list")] == wanted
    Path("nul").write_bytes(b"a.wav\0two\nlines.wav\0")
    assert [item.source for item in collect([], "nul", null=True)] == ["a.wav", "two\nlines.wav"]
    with pytest.raises(UsageError, match="use -0"):
        collect(["@nul"])
    Path("@nul").touch()
    assert collect(["@nul"]) == [Item("@nul")]
    Path("none").write_text("\n\n")
    with pytest.raises(InputError, match="no paths"):
        collect(["@none"])
    with pytest.raises(InputError, match="the list cannot be read"):
        collect(["@missing"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(("end", "null"), [("\n", False), ("\r\n", False), ("\0", True)])
def test_lists_as_windows_writes_them(
    encoding: str, end: str, null: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a byte order mark, in UTF-8 or UTF-16, and with carriage returns."""
    monkeypatch.chdir(tmp_path)
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    names = ["ä.wav", "b c.wav", "語.wav"]
    Path("list").write_bytes((mark + end.join([*names, ""])).encode(encoding))
    assert [item.source for item in collect([], "list", null)] == names
    assert [item.source for item in collect(["@list"], None, null)] == names


def test_a_list_that_is_no_utf_16_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"\xff\xfea")
    with pytest.raises(InputError, match="list: begins as UTF-16, but is not; save the list as UTF-8"):
        collect([], str(tmp_path / "list"))


def test_a_list_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.wav\nb.wav\n")))
    assert collect(["c.wav"], "-") == [Item("c.wav"), Item("a.wav"), Item("b.wav")]
    with pytest.raises(UsageError, match="once"):
        collect(["-"], "-")


def test_shards_are_a_partition() -> None:
    items = [Item(f"{i}.wav") for i in range(7, 0, -1)]
    parts = [select_shard(items, f"{i}/3") for i in (1, 2, 3)]
    assert [item.source for item in parts[0]] == ["1.wav", "4.wav", "7.wav"]
    assert {item for part in parts for item in part} == set(items)
    assert select_shard(items[:1], "2/2") == []
    for wrong in ("0/3", "4/3", "1", "1/0", "a/b", "-1/2"):
        with pytest.raises(UsageError, match="expected i/N"):
            select_shard(items, wrong)
