"""Provenance as a tag of MP4 files: FFmpeg's muxer has no names for tags of one's own, so that one is renamed."""

from __future__ import annotations

import os
import struct
from collections.abc import Container
from typing import BinaryIO

from audiosr_cli.audio.metadata.provenance import TAG, find_moov

# Rare tags that FFmpeg writes, and what they are called in the file.
_SLOTS = {"synopsis": b"ldes", "network": b"tvnn", "keywords": b"keyw", "lyrics": b"\xa9lyr"}
_MEANING = b"com.apple.iTunes"
_DATA_HEAD = 16  # bytes of a data box before its text
_ATOM_HEAD = 8


def slot(taken: Container[str]) -> str | None:
    """Return the name of a tag that is not among those ``taken`` and can be renamed; None if there is none."""
    return next((name for name in _SLOTS if name not in taken), None)


def placeholder(provenance: str) -> str:
    """Return a text for that tag which makes its box as long as one of our own name with ``provenance``."""
    return provenance + " " * (len(_box(provenance)) - len(provenance) - _ATOM_HEAD - _DATA_HEAD)


def rename(file: BinaryIO, provenance: str) -> None:
    """Replace the box that holds `placeholder` by one of our own name; a file without it stays as it is.

    Args:
        file: An MP4 file, to read and write.
        provenance: What the placeholder was made of.
    """
    start, moov = find_moov(file)
    box, old = _box(provenance), placeholder(provenance).encode()
    at = moov.find(old) - _ATOM_HEAD - _DATA_HEAD
    if at >= 0 and moov[at : at + 4] == struct.pack(">I", len(box)) and moov[at + 4 : at + 8] in _SLOTS.values():
        file.seek(start + at, os.SEEK_SET)
        file.write(box)


def _box(provenance: str) -> bytes:
    """Return a freeform tag: its meaning, its name and its text."""
    text = struct.pack(">II", 1, 0) + provenance.encode()
    parts = ((b"mean", bytes(4) + _MEANING), (b"name", bytes(4) + TAG.encode()), (b"data", text))
    body = b"".join(struct.pack(">I", _ATOM_HEAD + len(part)) + name + part for name, part in parts)
    return struct.pack(">I", _ATOM_HEAD + len(body)) + b"----" + body
