"""audio/encoders/ogg_tags.py: the pages of an Ogg file with a long comment header."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from conftest import tone

from audiosr_cli.audio.formats import OutputFormat
from audiosr_cli.audio.metadata.types import Metadata
from audiosr_cli.audio.write import AudioWriter


def pages_of(data: bytes) -> list[bytes]:
    """Split an Ogg file into its pages."""
    pages = []
    while data:
        assert data[:4] == b"OggS"
        size = 27 + data[26] + sum(data[27 : 27 + data[26]])
        pages.append(data[:size])
        data = data[size:]
    return pages


def checksum(page: bytes) -> int:
    """Compute Ogg's checksum bit by bit, as its specification describes it."""
    value = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x104C11DB7 if value & 0x80000000 else 0)
    return value


@pytest.mark.parametrize("length", [10, 4000, 65025 - 60, 200_000])
def test_pages_follow_the_specification(length: int, tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    with AudioWriter(
        path, OutputFormat("ogg", "VORBIS", 8000, 1), metadata=Metadata(tags={"title": "x" * length})
    ) as w:
        w.write(tone(4000, 440, 8000))
        w.finish()
        w.commit()
    pages = pages_of(path.read_bytes())
    open_packet = False
    for number, page in enumerate(pages):
        flags, granule, _serial, sequence, crc = struct.unpack_from("<BqIII", page, 5)
        table = page[27 : 27 + page[26]]
        assert sequence == number
        assert flags == (1 if open_packet else 0) | (2 if number == 0 else 0) | (4 if page is pages[-1] else 0)
        assert (granule == -1) == (bool(table) and set(table) == {255})
        if number < 8:  # the slow way takes its time
            assert crc == checksum(page)
        open_packet = table[-1:] == b"\xff"
    assert granule == 4000
    assert b"TITLE=" + b"x" * length in b"".join(page[27 + page[26] :] for page in pages)
