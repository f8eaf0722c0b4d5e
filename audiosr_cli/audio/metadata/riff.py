"""Metadata of WAV files: RIFF, RIFX, RF64 and BW64, and of Sony Wave64, chunk by chunk."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from audiosr_cli.audio.metadata import broadcast
from audiosr_cli.audio.metadata.id3 import write_id3
from audiosr_cli.audio.metadata.provenance import TAG, TOOL
from audiosr_cli.audio.metadata.riff_tags import (
    chunk,
    decode_text,
    info_id,
    read_info,
    read_markers,
    read_summary,
    write_info,
    write_markers,
    write_summary,
)
from audiosr_cli.audio.metadata.types import MAX_BYTES, Metadata
from audiosr_cli.audio.wav import EXTENSIBLE, MAGICS, OPEN_SIZE, STREAMED_SIZE, W64_RIFF, W64_TAIL, w64_chunk

_W64_SUMMARY = bytes.fromhex("bc945f925a52d21186dc00c04f8edb8a")  # the GUID of Wave64's list of tags
_SUMMARY = b"SUMM"  # what that list is called here
_PROVENANCE = b"IASR"  # a chunk of our own in Wave64, whose tags are in UTF-16
_READ = (b"fmt ", b"LIST", _SUMMARY, _PROVENANCE, b"bext", b"iXML", b"cue ", b"id3 ", b"ID3 ")
# Chunks with meaning for people and programs that no output keeps, and what messages call them.
_DROPPED = {
    b"cart": "the cart chunk",
    b"axml": "ADM (axml)",
    b"chna": "ADM (chna)",
    b"_PMX": "XMP",
    b"smpl": "sampler loops (smpl)",
    b"inst": "instrument data (inst)",
    b"acid": "loop data (acid)",
}
_MAX_CHUNKS = 4096
_STREAMED_SIZES = range(STREAMED_SIZE - 0x1000, STREAMED_SIZE + 1)  # less the longest frame


@dataclass
class Chunks:
    """The chunks of a file that describe it.

    Attributes:
        order: "<" or ">", the byte order.
        bodies: Id and body of each, in order.
        dropped: Names of what is ignored.
    """

    order: str = "<"
    bodies: list[tuple[bytes, bytes]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def first(self, *codes: bytes) -> bytes | None:
        """Return the body of the first chunk with one of these ids."""
        return next((body for code, body in self.bodies if code in codes), None)

    def lists(self, kind: bytes) -> list[bytes]:
        """Return the bodies of the LIST chunks of a type."""
        return [body for code, body in self.bodies if code == b"LIST" and body[:4] == kind]


def is_riff(head: bytes) -> bool:
    """Return whether a file that starts with ``head`` is one of those that this module reads."""
    return (head[:4] in MAGICS and head[8:12] == b"WAVE") or head[:16] == W64_RIFF


def read_chunks(stream: BinaryIO) -> Chunks:
    """Read the chunks that describe a recording, those after its samples too; damaged ones end the search.

    Args:
        stream: Seekable, at the first byte of the file.
    """
    head = stream.read(40)
    chunks = Chunks(">" if head[:4] == b"RIFX" else "<")
    budget = MAX_BYTES
    for code, start, size in walk_chunks(stream, head, chunks.order):
        if code in _DROPPED and _DROPPED[code] not in chunks.dropped:
            chunks.dropped.append(_DROPPED[code])
        if code not in _READ:
            continue
        if size > budget:
            chunks.dropped.append(f"{code.decode().strip()} of {size >> 20} MiB")
            continue
        stream.seek(start)
        body = stream.read(size)
        if len(body) == size:
            chunks.bodies.append((code, body))
            budget -= size
    return chunks


def walk_chunks(stream: BinaryIO, head: bytes, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Yield id, position and size of the body of each chunk of an IFF file: RIFF and its relatives, AIFF, Wave64.

    Args:
        stream: Seekable; it may be moved between two chunks.
        head: The first 16 bytes of the file.
        order: "<" or ">", the byte order.
    """
    wave64 = head[:16] == W64_RIFF
    position, data_size = 40 if wave64 else 12, None
    for _ in range(_MAX_CHUNKS):
        stream.seek(position)
        start = stream.read(24 if wave64 else 8)
        if len(start) < (24 if wave64 else 8):
            return
        if wave64:
            size = struct.unpack("<Q", start[16:])[0] - 24
            code = start[:4] if start[4:16] == W64_TAIL else _SUMMARY if start[:16] == _W64_SUMMARY else b""
        else:
            code, size = struct.unpack(order + "4sI", start)
        position += len(start)
        if code == b"ds64":
            data_size = struct.unpack("<Q", (stream.read(16) + bytes(16))[8:16])[0]
        elif code == b"data" and not wave64 and size in _STREAMED_SIZES:
            return
        elif code == b"data" and not wave64 and size == OPEN_SIZE:
            if not data_size:
                return
            size = data_size
        if not 0 <= size < 2**62:
            return
        yield code, position, size
        position += -(-size // 8) * 8 if wave64 else size + size % 2


def metadata_of(chunks: Chunks) -> tuple[Metadata, bytes | None]:
    """Return what the chunks of a WAV file say, and its ID3 tag, which is not parsed here."""
    fmt = chunks.first(b"fmt ") or b""
    sample_rate, mask = _parse_format(fmt, chunks.order)
    tags: dict[str, str] = {}
    for body in reversed(chunks.lists(b"INFO")):
        tags |= read_info(body, chunks.order)
    if (summary := chunks.first(_SUMMARY)) is not None:
        tags |= read_summary(summary)
    provenance = tags.pop(TAG, "") or decode_text(chunks.first(_PROVENANCE) or b"")
    cue = chunks.first(b"cue ")
    markers = read_markers(cue, chunks.lists(b"adtl"), sample_rate, chunks.order) if cue and sample_rate else ()
    bext, ixml = chunks.first(b"bext"), chunks.first(b"iXML")
    if bext is not None and chunks.order == ">":  # its numbers are reversed there; nobody is known to write it
        bext, chunks.dropped = None, [*chunks.dropped, "the broadcast chunk (bext) of RIFX"]
    metadata = Metadata(
        tags, None, bext or None, ixml or None, markers, mask, sample_rate, provenance, tuple(chunks.dropped)
    )
    return metadata, chunks.first(b"id3 ", b"ID3 ")


def _parse_format(fmt: bytes, order: str) -> tuple[int, int]:
    """Return the sample rate in Hz and the channel mask."""
    if len(fmt) < 16:
        return 0, 0
    codec, _, sample_rate = struct.unpack_from(order + "HHI", fmt)
    mask = struct.unpack_from(order + "I", fmt, 20)[0] if codec == EXTENSIBLE and len(fmt) >= 24 else 0
    return sample_rate, mask


def head_only(tag: bytes) -> bytes:
    """Return a WAV file without samples whose ID3 tag is ``tag``."""
    fmt = struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16)
    body = b"WAVE" + chunk(b"fmt ", fmt) + chunk(b"id3 ", tag) + chunk(b"data", bytes(2))
    return b"RIFF" + struct.pack("<I", len(body)) + body


def write_chunks(metadata: Metadata, sample_rate: int, bits: int, channels: int) -> bytes:
    """Return the chunks of a WAV file that describe it, for a place before its samples.

    Args:
        metadata: Whose times are those of the file.
        sample_rate: Hz.
        bits: Bits a sample.
        channels: Number of channels.
    """
    tags = dict(metadata.tags)
    own = {TAG: metadata.provenance} if metadata.provenance else {}
    chunks = [chunk(b"bext", bext)] if (bext := _bext(metadata, sample_rate, bits, channels)) else []
    chunks += [write_info(own | tags), write_markers(metadata.markers, sample_rate)]
    if metadata.ixml is not None:
        chunks.append(chunk(b"iXML", broadcast.set_bit_depth(metadata.ixml, bits)))
    id3 = write_id3({name: text for name, text in tags.items() if info_id(name) is None}, metadata.cover)
    if id3:
        chunks.append(chunk(b"id3 ", id3))
    return b"".join(chunks)


def write_w64_chunks(metadata: Metadata, sample_rate: int, bits: int, channels: int) -> bytes:
    """Return the chunks of a Wave64 file that describe it: bext, and the tags that have a name in INFO."""
    bext, summary = _bext(metadata, sample_rate, bits, channels), write_summary(metadata.tags)
    chunks = [w64_chunk(b"bext" + W64_TAIL, bext)] if bext else []
    if summary:
        chunks.append(w64_chunk(_W64_SUMMARY, summary))
    if metadata.provenance:
        chunks.append(w64_chunk(_PROVENANCE + W64_TAIL, metadata.provenance.encode()))
    return b"".join(chunks)


def _bext(metadata: Metadata, sample_rate: int, bits: int, channels: int) -> bytes | None:
    """Return bext with the output's line in its coding history."""
    if metadata.bext is None or not metadata.provenance:
        return metadata.bext
    tool = metadata.tags.get("encoder", TOOL)
    return broadcast.add_coding_history(metadata.bext, sample_rate, bits, channels, tool)
