"""The boxes at the top level of MP4 and QuickTime files (ISO/IEC 14496-12)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

_MAX_BOXES = 64  # real files have about ten; each costs a seek
HEAD_BYTES = 8  # of the shortest box


def boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, position and size of each box; its size is 0 if it reaches to the end of the file.

    Args:
        file: A file that can seek; it may be moved between two boxes.
    """
    position = 0
    for _ in range(_MAX_BOXES):
        file.seek(position)
        head = file.read(16)
        if len(head) < HEAD_BYTES:
            return
        size = int.from_bytes(head[8:16] if head[:4] == b"\0\0\0\1" else head[:4], "big")
        yield head[4:8], position, size
        if size < HEAD_BYTES:
            return
        position += size
