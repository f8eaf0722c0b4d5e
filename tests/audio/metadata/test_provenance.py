"""The tag that says how an output was made, and where it is looked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from audiosr_cli.audio.metadata.provenance import provenance_text
from audiosr_cli.audio.metadata.read import provenance_of

TEXT = provenance_text("1.2.3", "upsample", {"models": [], "speaker": "é"})
TAG = {"tool": "audiosr", "version": "1.2.3", "command": "upsample", "models": [], "speaker": "é"}


def test_provenance_is_plain_ascii() -> None:
    assert TEXT.isascii()


@pytest.mark.parametrize("before", [0, 100_000])
@pytest.mark.parametrize("after", [0, 40_000, 5_000_000])
def test_provenance_is_found_near_the_start_of_a_file(tmp_path: Path, before: int, after: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * before + TEXT.encode() + b"{" * after)
    assert provenance_of(path) == TAG


def test_provenance_is_found_at_the_end_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 1_000_000 + TEXT.encode() + b"x" * 1000)
    assert provenance_of(str(path)) == TAG


@pytest.mark.parametrize("wide", [False, True])
def test_provenance_is_found_in_an_mp4_with_a_long_table_of_samples(tmp_path: Path, wide: bool) -> None:
    moov = b"s" * 1_000_000 + TEXT.encode() + b"s" * 1_000_000
    size = (16 + len(moov)).to_bytes(8, "big") if wide else b""
    head = b"\0\0\0\1moov" + size if wide else (8 + len(moov)).to_bytes(4, "big") + b"moov"
    path = tmp_path / "a"
    path.write_bytes(b"\0\0\0\x10ftypM4A \0\0\0\0" + b"\0\0\0\x09freex" + head + moov + b"\0\0\0\x08free" * 20_000)
    assert provenance_of(path) == TAG


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"RIFF",
        b'{"tool": "audiosr"}',
        b'{"tool": "audiosr", "version": "1',
        b'{"tool": "audiosr", "version": 1}',
        b'{"tool": "audiosr", "x": ' + b"[" * 100_000,
        b'{"tool": "audiosr", "x": ' + b"9" * 10_000 + b"}",
        b"\0\0\0\0ftyp\0\0\0\1moov\xff\xff",
        b"\0\0\0\x10ftypM4A \0\0\0\0" + b"\0\0\0\1mdat" + b"\xff" * 8,
    ],
)
def test_files_without_provenance_have_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    assert provenance_of(path) is None


def test_what_cannot_be_read_has_no_provenance(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert provenance_of(tmp_path) is None
    assert provenance_of(tmp_path / "missing") is None
    assert provenance_of(tmp_path / "pipe") is None
    assert provenance_of("a\0b") is None
