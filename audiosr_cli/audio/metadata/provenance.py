"""The tag that says how an output was made: a JSON object that is found in the bytes of any container."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from audiosr_cli.audio.mp4_boxes import boxes

TAG = "AUDIOSR"  # its name in containers whose tags have names
TOOL = "audiosr"
_START = f'{{"tool": "{TOOL}", '.encode()
_HEAD_BYTES, _TAIL_BYTES = 1 << 17, 1 << 16  # where to look: writers put the tag before cover art, or at the end
_MAX_MOOV_BYTES = 1 << 24
_MAX_TAG_BYTES = 1 << 16
_MAX_TRIES = 8  # of starts of a tag that is damaged


def provenance_text(version: str, command: str, details: Mapping[str, Any]) -> str:
    """Write the tag of an output.

    It holds neither times nor paths, so that two runs write the same bytes.

    Args:
        version: Of the tool.
        command: Name of the command.
        details: What else determines the output: models, options.

    Returns:
        A JSON object in ASCII.
    """
    return json.dumps({"tool": TOOL, "version": version, "command": command, **details})


def provenance_of(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read how a file was made from its tag, quickly and without decoding it.

    Args:
        path: Any file.

    Returns:
        The tag's content, with ``tool``, ``version``, ``command`` and what `provenance_text` was given; None if the
        file is none of our outputs, was written without provenance, or cannot be read.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # opening a pipe would wait for its writer
            return None
        with open(path, "rb") as file:
            return next((tag for piece in _pieces(file) if (tag := _parse(piece)) is not None), None)
    except (OSError, ValueError):
        return None


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """Yield the parts of a file that may hold the tag: its head, its tail, and the ``moov`` box of MP4."""
    head = file.read(_HEAD_BYTES)
    yield head
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL_BYTES))
    yield file.read(_TAIL_BYTES)
    if head[4:8] == b"ftyp":
        yield find_moov(file)[1]


def find_moov(file: BinaryIO) -> tuple[int, bytes]:
    """Return the position and the bytes of the ``moov`` box of an MP4 file; none without one."""
    for name, position, size in boxes(file):
        if name == b"moov":
            file.seek(position)
            return position, file.read(min(size or _MAX_MOOV_BYTES, _MAX_MOOV_BYTES))
    return 0, b""


def _parse(piece: bytes) -> dict[str, Any] | None:
    """Return the first tag in ``piece``; None if there is none."""
    at = -1
    for _ in range(_MAX_TRIES):
        at = piece.find(_START, at + 1)
        if at < 0:
            break
        try:
            tag, _ = json.JSONDecoder().raw_decode(piece[at : at + _MAX_TAG_BYTES].decode("ascii", "replace"))
        except (ValueError, RecursionError):
            continue
        if isinstance(tag, dict) and isinstance(tag.get("version"), str):
            return tag
    return None
