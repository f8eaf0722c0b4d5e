"""Metadata that are appended to complete files of AIFF, CAF, MP4 and MOV, as their writers leave them out."""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from audiosr_cli.audio.metadata import mp4_tags
from audiosr_cli.audio.metadata.id3 import write_id3
from audiosr_cli.audio.metadata.provenance import TAG
from audiosr_cli.audio.metadata.riff import walk_chunks
from audiosr_cli.audio.metadata.riff_tags import decode_text
from audiosr_cli.audio.metadata.types import MAX_BYTES, Marker, Metadata

_AIFF_TEXTS = {"title": b"NAME", "artist": b"AUTH", "copyright": b"(c) ", "comment": b"ANNO"}
_CAF_KEYS = {"track": "track number", "date": "recorded date", "comment": "comments", "encoder": "encoding application"}
_CAF_BITMAP = 1 << 16  # a channel layout that is a mask
_MAX_AIFF_MARKERS = 32767
_MOV_BOX = uuid.uuid5(uuid.NAMESPACE_URL, "https://pypi.org/project/audiosr-cli/#provenance")


def append_metadata(path: Path, container: str, metadata: Metadata, channels: int) -> None:
    """Add metadata to a complete file whose writer has left them out.

    Args:
        path: The file.
        container: "aiff", "caf", "m4a", "mp4" or "mov"; other files stay as they are.
        metadata: Whose times are those of the file.
        channels: Number of channels.

    Raises:
        OSError: If the file cannot be written.
    """
    append: Callable[[BinaryIO, Metadata, int], None] | None = _APPENDERS.get(container)
    if append is not None:
        with open(path, "r+b") as file:
            append(file, metadata, channels)


def _texts(metadata: Metadata) -> dict[str, str]:
    """Return all tags; provenance comes last, as it is searched for at the end."""
    return {**metadata.tags, **({TAG: metadata.provenance} if metadata.provenance else {})}


def _append_aiff(file: BinaryIO, metadata: Metadata, channels: int) -> None:
    del channels
    chunks = []
    for name, code in _AIFF_TEXTS.items():
        if name in metadata.tags:
            chunks.append(_aiff_chunk(code, metadata.tags[name].encode(errors="replace")))
    if metadata.markers:
        chunks.append(_aiff_chunk(b"MARK", _aiff_markers(metadata.markers, metadata.sample_rate)))
    id3 = write_id3(_texts(metadata), metadata.cover)
    if id3:
        chunks.append(_aiff_chunk(b"ID3 ", id3))
    file.seek(0, os.SEEK_END)  # libsndfile has padded the samples
    file.write(b"".join(chunks))
    size = file.tell() - 8
    file.seek(4)
    file.write(struct.pack(">I", min(size, 0xFFFFFFFF)))


def _aiff_chunk(code: bytes, body: bytes) -> bytes:
    return code + struct.pack(">I", len(body)) + body + bytes(len(body) % 2)


def _aiff_markers(markers: Sequence[Marker], sample_rate: int) -> bytes:
    entries = []
    for i, marker in enumerate(markers[:_MAX_AIFF_MARKERS], 1):
        label = marker.label.encode(errors="replace")[:254]
        at = min(round(marker.start_s * sample_rate), 0xFFFFFFFF)
        entries.append(struct.pack(">hIB", i, at, len(label)) + label + bytes((len(label) + 1) % 2))
    return struct.pack(">H", len(entries)) + b"".join(entries)


def read_aiff_markers(file: BinaryIO) -> tuple[Marker, ...]:
    """Read the markers of an AIFF file, which libsndfile and FFmpeg ignore; none if they are damaged.

    Args:
        file: A file that can seek.
    """
    file.seek(0)
    head = file.read(16)
    if head[:4] != b"FORM" or head[8:12] not in (b"AIFF", b"AIFC"):
        return ()
    bodies = dict[bytes, bytes]()
    for code, start, size in walk_chunks(file, head, ">"):
        if code in (b"COMM", b"MARK") and size <= MAX_BYTES:
            file.seek(start)
            bodies[code] = file.read(size)
    sample_rate = _extended(bodies.get(b"COMM", b"")[8:18])
    return _parse_aiff_markers(bodies.get(b"MARK", b""), sample_rate) if sample_rate else ()


def _parse_aiff_markers(body: bytes, sample_rate: float) -> tuple[Marker, ...]:
    markers, position = [], 2
    for _ in range(struct.unpack_from(">H", body)[0] if len(body) >= 2 else 0):
        if position + 7 > len(body):
            break
        _, at, size = struct.unpack_from(">hIB", body, position)
        label = decode_text(body[position + 7 : position + 7 + size])
        markers.append(Marker(at / sample_rate, label=label))
        position += 7 + size + (size + 1) % 2
    return tuple(sorted(markers, key=lambda marker: marker.start_s))


def _extended(raw: bytes) -> float:
    """Decode a positive 80-bit float; 0 if there is none."""
    if len(raw) < 10:
        return 0.0
    exponent, mantissa = struct.unpack(">HQ", raw)
    return float(mantissa) * 2.0 ** (exponent - 16383 - 63) if 16383 <= exponent < 16383 + 32 else 0.0


def _append_caf(file: BinaryIO, metadata: Metadata, channels: int) -> None:
    file.seek(0, os.SEEK_END)
    if metadata.channel_mask.bit_count() == channels:
        layout = struct.pack(">III", _CAF_BITMAP, metadata.channel_mask, 0)
        file.write(b"chan" + struct.pack(">q", len(layout)) + layout)
    texts = [
        (_CAF_KEYS.get(name, name) + "\0" + text.replace("\0", " ") + "\0").encode(errors="replace")
        for name, text in _texts(metadata).items()
    ]
    if texts:
        body = struct.pack(">I", len(texts)) + b"".join(texts)
        file.write(b"info" + struct.pack(">q", len(body)) + body)


def _rename_tag(file: BinaryIO, metadata: Metadata, channels: int) -> None:
    del channels
    if metadata.provenance:
        mp4_tags.rename(file, metadata.provenance)


def _append_box(file: BinaryIO, metadata: Metadata, channels: int) -> None:
    """Append provenance in a box of our own: MOV has no tags with names of one's own."""
    del channels
    if metadata.provenance:
        body = _MOV_BOX.bytes + metadata.provenance.encode()
        file.seek(0, os.SEEK_END)
        file.write(struct.pack(">I", 8 + len(body)) + b"uuid" + body)


_APPENDERS = {"aiff": _append_aiff, "caf": _append_caf, "m4a": _rename_tag, "mp4": _rename_tag, "mov": _append_box}
