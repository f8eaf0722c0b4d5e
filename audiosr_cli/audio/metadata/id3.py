"""ID3v2.4 tags, which WAV and AIFF hold in a chunk: the texts that INFO has no name for, and cover art."""

from __future__ import annotations

from collections.abc import Mapping

from audiosr_cli.audio.metadata.cover import image_type

_FRAMES = {
    "title": "TIT2",
    "artist": "TPE1",
    "album": "TALB",
    "album_artist": "TPE2",
    "performer": "TPE3",
    "composer": "TCOM",
    "date": "TDRC",
    "genre": "TCON",
    "track": "TRCK",
    "disc": "TPOS",
    "copyright": "TCOP",
    "publisher": "TPUB",
    "encoded_by": "TENC",
    "encoder": "TSSE",
    "language": "TLAN",
}
_UTF_8 = b"\3"
_FRONT_COVER = b"\3"


def write_id3(tags: Mapping[str, str], cover: bytes | None = None) -> bytes:
    """Return an ID3v2.4 tag.

    Args:
        tags: Texts by FFmpeg's names.
        cover: Cover art, a JPEG or PNG file.

    Returns:
        The tag; empty if it would hold nothing.
    """
    frames = []
    if cover is not None:
        frames.append(_frame("APIC", _UTF_8 + image_type(cover).encode() + b"\0" + _FRONT_COVER + b"\0" + cover))
    for name, text in tags.items():
        value = text.encode(errors="replace").replace(b"\0", b" ")
        if name == "comment":
            frames.append(_frame("COMM", _UTF_8 + b"und" + b"\0" + value))
        elif name in _FRAMES:
            frames.append(_frame(_FRAMES[name], _UTF_8 + value))
        else:
            frames.append(_frame("TXXX", _UTF_8 + name.encode(errors="replace") + b"\0" + value))
    body = b"".join(frames)
    return b"ID3\4\0\0" + _synchsafe(len(body)) + body if body else b""


def _frame(code: str, body: bytes) -> bytes:
    return code.encode() + _synchsafe(len(body)) + b"\0\0" + body


def _synchsafe(size: int) -> bytes:
    """Encode a size in 28 bits, seven in each byte."""
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
