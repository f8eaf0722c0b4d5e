"""Broadcast WAV's descriptions, bext (EBU Tech 3285) and iXML: their sample counts at another rate, their formats."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from fractions import Fraction

_TIME_REFERENCE = 338  # its offset in bext: 64 bits, samples since midnight
_CODING_HISTORY = 602
_FIELDS = (  # name, offset and size of the texts
    ("description", 0, 256),
    ("originator", 256, 32),
    ("originator_reference", 288, 32),
    ("origination_date", 320, 10),
    ("origination_time", 330, 8),
)
_MAX_COUNT = 2**64 - 1

# Pairs of elements that hold the lower and the upper 32 bits of a count of samples since midnight.
_COUNTS = (
    (b"TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_LO", b"TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_HI"),
    (b"BWF_TIME_REFERENCE_LOW", b"BWF_TIME_REFERENCE_HIGH"),
)


def time_reference(bext: bytes) -> int | None:
    """Return the samples since midnight at which a recording starts; None if the chunk is too short to say."""
    if len(bext) < _TIME_REFERENCE + 8:
        return None
    reference: int = struct.unpack_from("<Q", bext, _TIME_REFERENCE)[0]
    return reference


def scale_bext(bext: bytes, scale: Fraction, offset: int = 0) -> bytes:
    """Return a bext chunk for another sample rate and start.

    Args:
        bext: The body of the chunk.
        scale: The new sample rate, divided by the old one.
        offset: Samples at the old rate that the start moves.
    """
    reference = time_reference(bext)
    if reference is None:
        return bext
    scaled = struct.pack("<Q", _scaled(reference + offset, scale))
    return bext[:_TIME_REFERENCE] + scaled + bext[_TIME_REFERENCE + 8 :]


def bext_tags(bext: bytes) -> dict[str, str]:
    """Return the fields of a bext chunk as text tags, under FFmpeg's names, for containers without that chunk."""
    tags = {}
    for name, start, size in _FIELDS:
        text = bext[start : start + size].split(b"\0", 1)[0].decode("latin-1").strip()
        if text:
            tags[name] = text
    reference = time_reference(bext)
    if reference is not None:
        tags["time_reference"] = str(reference)
    return tags


def add_coding_history(bext: bytes, sample_rate: int, bits: int, channels: int, tool: str) -> bytes:
    """Append a line to the coding history (EBU R98) of a bext chunk.

    Args:
        bext: The body of the chunk.
        sample_rate: Hz.
        bits: Bits a sample.
        channels: Number of channels.
        tool: What wrote the file.
    """
    if len(bext) < _CODING_HISTORY:
        return bext
    history = bext[_CODING_HISTORY:].rstrip(b"\0")
    if history and not history.endswith(b"\n"):
        history += b"\r\n"
    mode = {1: "M=mono,", 2: "M=stereo,"}.get(channels, "")
    return bext[:_CODING_HISTORY] + history + f"A=PCM,F={sample_rate},W={bits},{mode}T={tool}\r\n".encode()


def scale_ixml(ixml: bytes, sample_rate: int, scale: Fraction, offset: int = 0, same_channels: bool = True) -> bytes:
    """Return an iXML document for another sample rate and start.

    Elements are replaced in the text: nothing is parsed, so that a malformed document is kept as it is, and neither
    entities nor nesting can cost time or memory.

    Args:
        ixml: The document, in UTF-8 or UTF-16.
        sample_rate: The new sample rate in Hz.
        scale: The new sample rate, divided by the old one.
        offset: Samples at the old rate that the start moves.
        same_channels: Whether the channels stay; otherwise the list of tracks is dropped.
    """

    def change(text: bytes) -> bytes:
        for low, high in _COUNTS:
            text = _scale_count(text, low, high, scale, offset)
        text = _replace(text, b"FILE_SAMPLE_RATE", lambda _: sample_rate)
        text = _replace(text, b"TIMESTAMP_SAMPLE_RATE", lambda rate: round(rate * scale))
        return text if same_channels else _without(text, b"TRACK_LIST")

    return _in_utf8(ixml, change)


def set_bit_depth(ixml: bytes, bits: int) -> bytes:
    """Return an iXML document that says how many bits a sample has."""
    return _in_utf8(ixml, lambda text: _replace(text, b"AUDIO_BIT_DEPTH", lambda _: bits))


def _in_utf8(ixml: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Apply ``change`` to a document in UTF-8, or in UTF-16 with a byte order mark; keep one that cannot be decoded."""
    if ixml[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        return change(ixml)
    encoding = "utf-16-le" if ixml[:1] == b"\xff" else "utf-16-be"
    try:
        return ixml[:2] + change(ixml[2:].decode(encoding).encode()).decode().encode(encoding)
    except UnicodeError:
        return ixml


def _number(text: bytes, name: bytes) -> int | None:
    match = re.search(rb"<%s>\s*(\d{1,20})\s*</%s>" % (name, name), text)
    return int(match[1]) if match else None


def _replace(text: bytes, name: bytes, change: Callable[[int], int]) -> bytes:
    """Change the number in every element ``name``."""
    pattern = rb"(<%s>\s*)(\d{1,20})(\s*</%s>)" % (name, name)
    return re.sub(pattern, lambda match: match[1] + str(change(int(match[2]))).encode() + match[3], text)


def _without(text: bytes, name: bytes) -> bytes:
    """Remove the first element ``name``; no pattern, whose search could take quadratic time."""
    start, end_tag = text.find(b"<%s>" % name), b"</%s>" % name
    end = text.find(end_tag, start)
    return text if start < 0 or end < 0 else text[:start] + text[end + len(end_tag) :]


def _scale_count(text: bytes, low: bytes, high: bytes, scale: Fraction, offset: int) -> bytes:
    """Scale a count whose halves are in the elements ``low`` and ``high``; the latter is added if it is needed."""
    lower, upper = _number(text, low), _number(text, high)
    if lower is None:
        return text
    count = _scaled(((upper or 0) << 32) + lower + offset, scale)
    text = _replace(text, low, lambda _: count & 0xFFFFFFFF)
    if upper is not None:
        return _replace(text, high, lambda _: count >> 32)
    if not count >> 32:
        return text
    return text.replace(b"</%s>" % low, b"</%s><%s>%d</%s>" % (low, high, count >> 32, high), 1)


def _scaled(count: int, scale: Fraction) -> int:
    return min(max(round(count * scale), 0), _MAX_COUNT)
