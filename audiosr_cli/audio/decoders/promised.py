"""How many bytes a file should have according to its header. Decoders that read to the end do not check that."""

from __future__ import annotations

import struct
from typing import BinaryIO

from audiosr_cli.audio.mp4_boxes import HEAD_BYTES, boxes

_OPEN = 0x7FFF0000  # sizes from which on streaming writers mean "unknown"
_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"FORM", b".snd", b"caff", b"fLaC", b"OggS", b"FLV\1")
_MAX_CHUNKS = 64  # of a CAF file that are looked at: real ones have about ten
_FLV_SCRIPT_BYTES = 4096  # at the start of an FLV file, in which its metadata begin


def missing_bytes(stream: BinaryIO) -> int:
    """Return how many bytes the end of a file lacks; 0 if its format does not state its size.

    Args:
        stream: A file; it is left at its first byte.
    """
    size = stream.seek(0, 2)
    stream.seek(0)
    head = stream.read(64)
    promised = _promised(stream, head) if len(head) >= 28 else 0
    stream.seek(0)
    return max(0, promised - size)


def magic_of(head: bytes) -> str:
    """Return the name of the format that the first bytes of a file are those of; empty if they are of none."""
    if head[4:8] == b"ftyp":
        return "MP4"
    return head[:4].decode().strip("\1") if head[:4] in _MAGIC else ""


def following_file(stream: BinaryIO) -> str:
    """Return the magic of another file that begins where one should end; empty if there is none.

    Only formats count of which decoders do not go on with the next file by themselves.

    Args:
        stream: A file; it is left at its first byte.
    """
    stream.seek(0)
    head = stream.read(64)
    if head[4:8] == b"ftyp":
        found = _following_mp4(stream)
    elif head[8:12] == b"AVI " or head[:4] in (b"riff", b"\x1a\x45\xdf\xa3"):
        found = ""
    else:
        promised = _promised(stream, head) if len(head) >= 28 else 0
        stream.seek(promised)
        follows = stream.read(5) if promised else b""  # some headers do not count a byte of padding
        found = magic_of(follows) or magic_of(follows[1:])
    stream.seek(0)
    return found


def _following_mp4(stream: BinaryIO) -> str:
    """Return "MP4" if a second MP4 file begins within the file, unless there are fragments, which go on."""
    at = index = 0
    for _ in range(_MAX_CHUNKS):
        stream.seek(at)
        head = stream.read(16)
        if len(head) < 8 or head[4:8] == b"moof":
            break
        index += head[4:8] == b"moov"
        if index and head[4:8] == b"ftyp":
            return "MP4"
        step = int.from_bytes(head[8:16] if head[:4] == b"\0\0\0\1" else head[:4], "big")
        if step < 8:
            break
        at += step
    return ""


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
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _promised_matroska(stream)
    if head[:3] == b"FLV":
        stream.seek(0)
        script = stream.read(_FLV_SCRIPT_BYTES)
        at = script.find(b"filesize\0")
        return _plausible(int(_finite(script[at + 9 : at + 17]))) if at >= 0 else 0
    if head[:4] == b"caff":
        return _promised_caf(stream)
    return 0


def _finite(double: bytes) -> float:
    value = struct.unpack(">d", double)[0] if len(double) == 8 else 0.0
    return value if 0 <= value < 2**53 else 0.0


def _promised_matroska(stream: BinaryIO) -> int:
    """Return where the segment of a Matroska file ends: the element after the EBML header."""
    stream.seek(4)
    header = _element_size(stream) or 0
    stream.seek(stream.tell() + min(header, 1 << 20))
    if stream.read(4) != b"\x18\x53\x80\x67":
        return 0
    size = _element_size(stream)
    return 0 if size is None else _plausible(stream.tell() + size)


def _element_size(stream: BinaryIO) -> int | None:
    """Read the size of an EBML element; None if it is unknown: all bits set, as in a live recording."""
    first = stream.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    value = (first[0] & ((1 << (8 - length)) - 1)) << 8 * (length - 1) | int.from_bytes(stream.read(length - 1), "big")
    return None if value == (1 << 7 * length) - 1 else value


def _promised_caf(stream: BinaryIO) -> int:
    """Return where the data chunk of a CAF file ends."""
    at, size_of_file = 8, stream.seek(0, 2)
    for _ in range(_MAX_CHUNKS):
        stream.seek(at)
        head = stream.read(12)
        if len(head) < 12:
            break
        size = int.from_bytes(head[4:], "big", signed=True)
        if head[:4] == b"data" or size < 0:
            return _plausible(at + 12 + size)
        at += 12 + size
        if at > size_of_file:
            break
    return 0


def lacks_index(stream: BinaryIO) -> bool:
    """Return whether an MP4 file lacks its index, without which nothing in it can be found.

    Args:
        stream: A file; it is left anywhere.
    """
    end = stream.seek(0, 2)
    last: tuple[int, int] | None = None  # position and size of the last box
    for name, position, size in boxes(stream):
        if name == b"moov" or (position == 0 and name != b"ftyp"):
            return False
        last = position, size
    if last is None or 0 < last[1] < HEAD_BYTES:  # too short, or damaged
        return False
    return last[1] == 0 or sum(last) > end - HEAD_BYTES


def _plausible(size: int) -> int:
    return size if 0 < size < 1 << 50 else 0
