"""Metadata of every kind, and the bytes of files that hold them, written by hand."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from audiosr_cli.audio.metadata.provenance import provenance_text
from audiosr_cli.audio.metadata.types import Marker, Metadata

CASES = Path(__file__).parent / "audio" / "cases"
LEFT, RIGHT, CENTRE, LFE = 1, 2, 4, 8


def png() -> bytes:
    """Return a picture of one pixel."""

    def chunk(code: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + code + body + struct.pack(">I", zlib.crc32(code + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0\xff\0\0")) + chunk(b"IEND", b"")


def bext(reference: int, description: bytes = b"", history: bytes = b"") -> bytes:
    """Return the body of a broadcast chunk, version 1."""
    texts = struct.pack("<256s32s32s10s8s", description, b"Desk", b"REF1", b"2025-03-04", b"10:11:12")
    return texts + struct.pack("<QH", reference, 1) + bytes(254) + history


def chunk(code: bytes, body: bytes, order: str = "<") -> bytes:
    """Return a chunk of RIFF."""
    return code + struct.pack(order + "I", len(body)) + body + bytes(len(body) % 2)


def wav(before: bytes = b"", after: bytes = b"", sample_rate: int = 8000, frames: int = 800, order: str = "<") -> bytes:
    """Return a mono WAV file of zeros with chunks before and after its samples."""
    fmt = chunk(b"fmt ", struct.pack(order + "HHIIHH", 1, 1, sample_rate, 2 * sample_rate, 2, 16), order)
    body = b"WAVE" + fmt + before + chunk(b"data", bytes(2 * frames), order) + after
    return (b"RIFF" if order == "<" else b"RIFX") + struct.pack(order + "I", len(body)) + body


def everything(sample_rate: int = 48000, channel_mask: int = LEFT | RIGHT | CENTRE) -> Metadata:
    """Return metadata of every kind."""
    return Metadata(
        tags={
            "title": "Tité 日本",
            "artist": "A",
            "album_artist": "AA",
            "comment": "one\ntwo",
            "date": "2024",
            "track": "3",
            "mood": "x",
        },
        cover=png(),
        bext=bext(2**33, b"take 3", b"A=ANALOGUE\r\n"),
        ixml=b"<BWFXML><SCENE>12</SCENE></BWFXML>",
        markers=(Marker(0.01, label="first", note="a note"), Marker(0.05, 0.02, "région")),
        channel_mask=channel_mask,
        sample_rate=sample_rate,
        provenance=provenance_text("1.2.3", "separate", {"models": ["small 123"]}),
    )
