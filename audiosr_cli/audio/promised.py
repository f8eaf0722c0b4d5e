"""How many bytes a file should have according to its header: what decoders that read to the end do not notice."""

from __future__ import annotations

import struct
from typing import BinaryIO

_OPEN = 0x7FFF0000  # sizes from which on streaming writers mean "unknown"
_MAX_CHUNKS = 64


def missing_bytes(stream: BinaryIO) -> int:
    """Return how many bytes the end of a file lacks; 0 if its format does not tell.

    Args:
        stream: A file; it is left at its first byte.
    """
    size = stream.seek(0, 2)
    stream.seek(0)
    head = stream.read(64)
    promised = _promised(stream, head) if len(head) >= 28 else 0
    stream.seek(0)
    return max(0, promised - size)


def _promised(stream: BinaryIO, head: bytes) -> int:
    if head[:4] in (b"RIFF", b"RIFX", b"FORM"):
        size = int.from_bytes(head[4:8], "little" if head[:4] == b"RIFF" else "big")
        return size + 8 if size < _OPEN else 0
    if head[:4] == b"riff":  # Wave64
        return _plausible(int.from_bytes(head[16:24], "little"))
    if head[:4] == b"DSD ":
        return _plausible(int.from_bytes(head[12:20], "little"))
    if head[:4] == b".snd":
        start, size = struct.unpack(">II", head[4:12])
        return start + size if size < _OPEN else 0
    if head[:4] == b"caff":
        return _promised_caf(stream)
    return 0


def _promised_caf(stream: BinaryIO) -> int:
    """Return where the data chunk of a CAF file ends."""
    at = 8
    for _ in range(_MAX_CHUNKS):
        stream.seek(at)
        head = stream.read(12)
        if len(head) < 12:
            break
        size = int.from_bytes(head[4:], "big", signed=True)
        if head[:4] == b"data" or size < 0:
            return _plausible(at + 12 + size)
        at += 12 + size
    return 0


def lacks_index(stream: BinaryIO) -> bool:
    """Return whether an MP4 file lacks its index, without which nothing in it can be found.

    Args:
        stream: A file; it is left anywhere.
    """
    at, size = 0, stream.seek(0, 2)
    for _ in range(_MAX_CHUNKS):
        stream.seek(at)
        head = stream.read(16)
        if len(head) < 8 or head[4:8] == b"moov":
            return len(head) < 8 and at > 0
        if at == 0 and head[4:8] != b"ftyp":
            return False
        step = int.from_bytes(head[8:16] if head[:4] == b"\0\0\0\1" else head[:4], "big")
        at = size if step == 0 else at + step  # 0: up to the end
        if step < 8 and step != 0:
            return False
    return False


def _plausible(size: int) -> int:
    return size if 0 < size < 1 << 50 else 0
