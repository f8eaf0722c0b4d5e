"""RIFF's own metadata: the tags of LIST INFO, and markers as cue points with their labels."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from audiosr_cli.audio.metadata.provenance import TAG
from audiosr_cli.audio.metadata.types import Marker

# INFO's names of tags; of names that share an id, the last one is what is read.
_INFO_IDS = {
    "title": "INAM",
    "artist": "IART",
    "album": "IPRD",
    "track": "ITRK",
    "date": "ICRD",
    "genre": "IGNR",
    "comment": "ICMT",
    "copyright": "ICOP",
    "encoder": "ISFT",
    "encoded_by": "ITCH",
    "language": "ILNG",
    "timecode": "ISMP",
    "engineer": "IENG",
    "keywords": "IKEY",
    "subject": "ISBJ",
    "source": "ISRC",
    "medium": "IMED",
    "commissioned": "ICMS",
    "composer": "IMUS",
    TAG: "IASR",  # of our own: readers skip ids that they do not know
}
_INFO_NAMES = {code.encode(): name for name, code in _INFO_IDS.items()} | {b"IPRT": "track"}
_MAX_MARKERS = 1 << 16
_CUE = struct.Struct("II4sIII")
_LTXT = struct.Struct("II4sHHHH")


def chunk(code: bytes, body: bytes) -> bytes:
    """Return a chunk, padded to an even size."""
    return code + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def decode_text(raw: bytes) -> str:
    """Decode a text up to its first NUL: UTF-8, or Windows' Western code page."""
    raw = raw.split(b"\0", 1)[0]
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("cp1252", "replace")
    return text.strip()


def read_info(body: bytes, order: str = "<") -> dict[str, str]:
    """Read tags.

    Args:
        body: Of a LIST chunk of type INFO.
        order: "<" or ">", the byte order of the file.

    Returns:
        Texts by FFmpeg's names; ids without one are in lower case.
    """
    tags: dict[str, str] = {}
    position = 4
    while position + 8 <= len(body):
        code, size = struct.unpack_from(f"{order}4sI", body, position)
        text = decode_text(body[position + 8 : position + 8 + size])
        if text and code.isalnum():
            tags.setdefault(_INFO_NAMES.get(code, code.decode("latin-1").lower()), text)
        position += 8 + size
        if size % 2 and body[position : position + 1] in (b"\0", b""):  # some writers forget to pad
            position += 1
    return tags


def read_summary(body: bytes) -> dict[str, str]:
    """Read the tags of a Wave64 file, the body of its summary list, as `read_info` does."""
    tags: dict[str, str] = {}
    position = 4
    while position + 8 <= len(body):
        code, size = struct.unpack_from("<4sI", body, position)
        text = body[position + 8 : position + 8 + size].decode("utf-16-le", "replace").split("\0", 1)[0].strip()
        if text and code.isalnum():
            tags.setdefault(_INFO_NAMES.get(code, code.decode("latin-1").lower()), text)
        position += 8 + size
    return tags


def write_summary(tags: Mapping[str, str]) -> bytes:
    """Return the body of Wave64's summary list with those ``tags`` that have an id in INFO; empty if none has."""
    entries = []
    for name, text in tags.items():
        if (code := info_id(name)) is not None:
            raw = (text + "\0").encode("utf-16-le", "replace")
            entries.append(code + struct.pack("<I", len(raw)) + raw)
    return struct.pack("<I", len(entries)) + b"".join(entries) if entries else b""


def info_id(name: str) -> bytes | None:
    """Return the id of a tag in INFO; None if there is none."""
    if len(name) == 4 and name.startswith("i") and name.isascii() and name.isalnum() and name.islower():
        return _INFO_IDS.get(name, name.upper()).encode()  # as it was read
    code = _INFO_IDS.get(name)
    return code.encode() if code else None


def write_info(tags: Mapping[str, str]) -> bytes:
    """Return a LIST INFO chunk with those ``tags`` that have an id there, in UTF-8; empty if none has."""
    entries = [
        chunk(code, text.encode(errors="replace") + b"\0")
        for name, text in tags.items()
        if (code := info_id(name)) is not None
    ]
    return chunk(b"LIST", b"INFO" + b"".join(entries)) if entries else b""


def read_markers(
    cue: bytes, labels: Sequence[bytes], sample_rate: int, order: str = "<", limit: int = _MAX_MARKERS
) -> tuple[Marker, ...]:
    """Read cue points with their labels, notes and lengths.

    Args:
        cue: Body of the cue chunk.
        labels: Bodies of the LIST chunks of type adtl.
        sample_rate: Hz.
        order: "<" or ">", the byte order of the file.
        limit: How many are read.

    Returns:
        The markers, in order of time.
    """
    texts, lengths = _read_labels(labels, order)
    markers = []
    count = min(struct.unpack_from(order + "I", cue)[0] if len(cue) >= 4 else 0, (len(cue) - 4) // _CUE.size, limit)
    for i in range(count):
        name, position, _, _, _, offset = struct.unpack_from(order + _CUE.format, cue, 4 + i * _CUE.size)
        length = lengths.get(name, 0)
        label, note = texts.get((b"labl", name), ""), texts.get((b"note", name), "")
        label = label or texts.get((b"ltxt", name), "")
        markers.append(Marker((offset or position) / sample_rate, length / sample_rate, label, note))
    return tuple(sorted(markers, key=lambda marker: marker.start_s))


def _read_labels(labels: Sequence[bytes], order: str) -> tuple[dict[tuple[bytes, int], str], dict[int, int]]:
    """Return the texts of cue points by kind and id, and the lengths of regions by id."""
    texts: dict[tuple[bytes, int], str] = {}
    lengths: dict[int, int] = {}
    for body in labels:
        position = 4
        while position + 12 <= len(body):
            code, size, name = struct.unpack_from(f"{order}4sII", body, position)
            entry = body[position + 8 : position + 8 + size]
            if code in (b"labl", b"note"):
                texts[code, name] = decode_text(entry[4:])
            elif code == b"ltxt" and len(entry) >= _LTXT.size:
                lengths[name] = struct.unpack_from(order + "I", entry, 4)[0]
                texts[code, name] = decode_text(entry[_LTXT.size :])
            position += 8 + size + size % 2
    return texts, lengths


def write_markers(markers: Sequence[Marker], sample_rate: int) -> bytes:
    """Return a cue chunk, and a LIST adtl chunk if there are labels, notes or lengths; empty without markers."""
    if not markers:
        return b""
    points, entries = [], []
    for i, marker in enumerate(markers, 1):
        at, length = round(marker.start_s * sample_rate), round(marker.length_s * sample_rate)
        points.append(struct.pack("<" + _CUE.format, i, at, b"data", 0, 0, at))
        for code, text in ((b"labl", marker.label), (b"note", marker.note)):
            if text:
                entries.append(chunk(code, struct.pack("<I", i) + text.encode(errors="replace") + b"\0"))
        if length:
            entries.append(chunk(b"ltxt", struct.pack("<" + _LTXT.format, i, length, b"rgn ", 0, 0, 0, 0)))
    cue = chunk(b"cue ", struct.pack("<I", len(points)) + b"".join(points))
    return cue + (chunk(b"LIST", b"adtl" + b"".join(entries)) if entries else b"")
