"""Frames of MPEG audio (layers I to III) and ADTS AAC in a stream of bytes: no container, so no timestamps.

Such files are what encoders write to a pipe, what a capture of a radio stream cuts anywhere, and what people join with
``cat``. FFmpeg's parser takes noise for frames and forgets how long it lasted; here a frame counts only if others
follow where it ends, and what lies between frames is measured.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from audiosr_cli.audio.decoders.promised import magic_of

# MPEG-1 layers I, II, III, and MPEG-2 (and 2.5) layer I, layers II and III; kbit/s by index.
_KBITS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_KBITS[2, 3] = _KBITS[2, 2]
_MPEG_RATES = (44100, 48000, 32000)
_ADTS_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
# The first bytes of a header: sync word, a layer, a bitrate that is neither free nor forbidden (MPEG), or ADTS.
_SYNC = re.compile(rb"\xff(?:[\xe2-\xe7\xf2-\xf7\xfa-\xff][\x10-\xeb]|[\xf0\xf1\xf8\xf9])", re.DOTALL)
_HEADER_BYTES = 7
# Frames that must follow one another before the first, or the first after a disturbance, counts: chance finds a header
# in 0.1 % of all bytes.
_CONFIRM = 3
_READ_BYTES = 1 << 16
# Bytes before the first frame, other than zeros and tags, in which one is looked for: a capture of a stream starts with
# part of a frame. Set by hand, November 2026.
_MAX_LEAD_BYTES = 1 << 14
_FOLLOWING_BYTES = 12  # of what follows the last frame, that tell its format


class Header(NamedTuple):
    """What a frame's header says.

    Attributes:
        kind: "mp1", "mp2", "mp3" or "aac".
        size: Bytes of the whole frame.
        samples: Samples of each channel.
        sample_rate: Hz.
        channels: Number of channels; 0 if the header leaves it open.
        version: Of MPEG, as in the header; frames of one stream agree in it.
    """

    kind: str
    size: int
    samples: int
    sample_rate: int
    channels: int
    version: int

    def continues(self, other: Header) -> bool:
        """Return whether a frame with the header ``other`` can be of the same stream without a change."""
        return (self.kind, self.sample_rate, self.version) == (other.kind, other.sample_rate, other.version)


def parse_header(data: bytes) -> Header | None:
    """Parse the header at the start of ``data``; None if there is none."""
    if len(data) < _HEADER_BYTES or data[0] != 0xFF or data[1] & 0xE0 != 0xE0:
        return None
    version, layer = data[1] >> 3 & 3, 4 - (data[1] >> 1 & 3)
    if layer == 4:
        return _parse_adts(data) if data[1] & 0xF0 == 0xF0 else None
    index, rate_index, padding = data[2] >> 4, data[2] >> 2 & 3, data[2] >> 1 & 1
    if version == 1 or not 1 <= index <= 14 or rate_index == 3:
        return None
    sample_rate = _MPEG_RATES[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    bits = 1000 * _KBITS[1 if version == 3 else 2, layer][index - 1]
    if layer == 1:
        size, samples = (12 * bits // sample_rate + padding) * 4, 384
    else:
        samples = 576 if layer == 3 and version != 3 else 1152
        size = samples // 8 * bits // sample_rate + padding
    return Header(f"mp{layer}", size, samples, sample_rate, 1 if data[3] >> 6 == 3 else 2, version)


def _parse_adts(data: bytes) -> Header | None:
    rate_index, size = data[2] >> 2 & 15, (data[3] & 3) << 11 | data[4] << 3 | data[5] >> 5
    if rate_index >= len(_ADTS_RATES) or size < _HEADER_BYTES:
        return None
    channels = (data[2] & 1) << 2 | data[3] >> 6
    samples = 1024 * ((data[6] & 3) + 1)
    return Header("aac", size, samples, _ADTS_RATES[rate_index], channels, data[1] >> 3 & 1)


def id3_size(head: bytes) -> int:
    """Return the bytes of the ID3v2 tag that ``head`` begins with; 0 if there is none."""
    if head[:3] != b"ID3" or len(head) < 10 or max(head[6:10]) >= 128 or 255 in head[3:5]:
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return 10 + size + (10 if head[5] & 16 else 0)  # with a footer


@dataclass(frozen=True)
class Frame:
    """A frame, or what lies between two.

    Attributes:
        header: Of the frame; of the last frame before it where ``data`` is None.
        data: The whole frame; None for bytes that are none.
        gap: Number of those bytes.
        joined: Whether a tag, so that of another file, lies between this frame and the one before.
    """

    header: Header
    data: bytes | None
    gap: int = 0
    joined: bool = False


class FrameReader:
    """Find the frames of a stream.

    Args:
        read: Called with a number of bytes, returns up to that many; none at the end.

    Attributes:
        cut: Whether the stream ends within a frame.
        trailing: Bytes after the last frame that are neither tags nor zeros.
        following: The first of these bytes.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._buffer, self._at, self._ended = b"", 0, False
        self._total = 0  # bytes read
        self.cut, self.trailing, self.following = False, 0, b""

    @property
    def position(self) -> int:
        """Bytes of the stream before the place that is looked at: a frame's start when it has been yielded."""
        return self._total - self._left()

    def _have(self, count: int) -> bool:
        """Make ``count`` bytes available; return False if the stream has fewer."""
        while len(self._buffer) - self._at < count and not self._ended:
            piece = self._read(_READ_BYTES)
            self._ended = not piece
            self._total += len(piece)
            self._buffer, self._at = self._buffer[self._at :] + piece, 0
        return len(self._buffer) - self._at >= count

    def _header(self, offset: int = 0) -> Header | None:
        self._have(offset + _HEADER_BYTES)
        start = self._at + offset
        return parse_header(self._buffer[start : start + _HEADER_BYTES])

    def _left(self) -> int:
        return len(self._buffer) - self._at

    def _confirmed(self, header: Header, gap: int) -> bool:
        """Return whether the frame here, ``gap`` bytes after the last, is followed by others, the end or a tag."""
        offset = header.size
        for followers in range(_CONFIRM - 1):
            if not self._have(offset + _HEADER_BYTES):  # the stream ends here, or within the next frame
                return self._left() == offset or (self._left() > offset and (followers > 0 or not gap))
            following = self._header(offset)
            if following is None or not following.continues(header):
                return self._tag_size(offset) > 0
            offset += following.size
        return True

    def _tag_size(self, offset: int = 0) -> int:
        """Return the bytes of the tag ``offset`` bytes ahead; 0 if there is none."""
        if self._buffer[self._at + offset : self._at + offset + 1] == b"\xff":
            return 0  # a frame, most of the time
        self._have(offset + 32)
        head = self._buffer[self._at + offset : self._at + offset + 32]
        if size := id3_size(head):
            return size
        if head[:4] == b"TAG+":
            return 227
        if head[:3] == b"TAG":
            return 128
        if head[:8] == b"APETAGEX" and len(head) == 32:
            size, is_header = int.from_bytes(head[12:16], "little"), head[23] & 32
            return 32 + (size if is_header else 0)
        if head[:11] == b"LYRICSBEGIN":
            self._have(offset + _READ_BYTES)
            text = self._buffer[self._at + offset : self._at + offset + _READ_BYTES]
            end = max(text.find(b"LYRICS200"), text.find(b"LYRICSEND"))
            return end + 9 if end > 0 else 0
        return 0

    def _skip(self, count: int) -> None:
        while count > 0 and self._have(1):
            step = min(count, self._left())
            self._at += step
            count -= step

    def frames(self) -> Iterator[Frame]:
        """Yield all frames, and what lies between them; iterate only once."""
        last: Header | None = None
        gap, zeros, joined = 0, True, False  # since the last frame
        while self._have(1):
            if tag := self._tag_size():
                self._skip(tag)
                joined = True
                continue
            header = self._header()
            if header is not None and self._accepts(header, last, gap):
                if not self._have(header.size):
                    self.cut, gap = True, 0
                    break
                if gap and last is not None:
                    yield Frame(last, None, gap)
                yield Frame(header, self._buffer[self._at : self._at + header.size], 0, joined)
                self._at += header.size
                last, gap, zeros, joined = header, 0, True, False
                continue
            if not gap:
                self.following = self._buffer[self._at : self._at + _FOLLOWING_BYTES]
            step = self._junk()
            zeros = zeros and not any(self._buffer[self._at : self._at + step])
            gap += step
            self._at += step
        self.trailing = 0 if zeros or last is None else gap

    def _accepts(self, header: Header, last: Header | None, gap: int) -> bool:
        """Return whether the bytes here are a frame: where others precede it, one that follows confirms it."""
        if last is None or header.kind == last.kind:
            if last is None or gap or not header.continues(last):
                return self._confirmed(header, gap)
            if not self._have(header.size + _HEADER_BYTES):
                return True
            following = self._header(header.size)
            return (following is not None and following.kind == header.kind) or self._ends_cleanly(header)
        return False

    def _ends_cleanly(self, header: Header) -> bool:
        """Return whether a tag, zeros or a file of another format follow the frame here, or nothing like a frame."""
        start = self._at + header.size
        following = self._buffer[start : start + 64]
        if self._tag_size(header.size) > 0 or not any(following) or magic_of(following):
            return True
        if self._have(header.size + _READ_BYTES):
            return False
        start = self._at + header.size
        parsed = (
            parse_header(self._buffer[at.start() : at.start() + _HEADER_BYTES])
            for at in _SYNC.finditer(self._buffer, start)
        )
        return not any(following is not None and following.continues(header) for following in parsed)

    def _junk(self) -> int:
        """Return the number of bytes up to the next place where a frame or a tag may start, at least one."""
        self._have(_READ_BYTES // 2)
        start, end = self._at + 1, len(self._buffer)
        sync = _SYNC.search(self._buffer, start)
        positions = [sync.start()] if sync else []
        positions += [at for mark in (b"ID3", b"TAG", b"APETAGEX") if (at := self._buffer.find(mark, start)) > 0]
        if positions:
            return min(positions) - self._at
        return max(1, end - 8 - self._at) if not self._ended else end - self._at


def find_kind(head: bytes) -> Header | None:
    """Return the header of the first frame if the beginning of a file is MPEG audio or ADTS without a container.

    Args:
        head: The first bytes of the file, without leading tags and zeros; some 32 KiB are enough.
    """
    pieces = iter([head])
    reader = FrameReader(lambda _: next(pieces, b""))
    for frame in reader.frames():
        return frame.header if reader.position <= _MAX_LEAD_BYTES else None
    return None


# A header of layer III, of any version, without a bitrate.
_FREE_SYNC = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x00-\x0b]", re.DOTALL)


def is_free_format(head: bytes) -> bool:
    """Return whether the beginning of a file is MP3 in free format, whose headers do not say how long a frame is.

    Its frames all have one length, but for a byte of padding.

    Args:
        head: The first bytes of the file, without leading tags and zeros.
    """
    starts = [found.start() for found in _FREE_SYNC.finditer(head, 0, _MAX_LEAD_BYTES)]
    if not starts or starts[0] > 0:
        return False
    sync = head[:2]
    for second in starts[1:]:
        length = second - (head[2] >> 1 & 1)
        third = second + length + (head[second + 2] >> 1 & 1)
        if head[second : second + 2] == head[third : third + 2] == sync and third in starts:
            return True
    return False


@dataclass(frozen=True)
class InfoTag:
    """What the first frame of many MP3 files says in place of sound.

    Attributes:
        frames: Number of frames that follow; None if it does not say.
        delay: Samples at the start that the encoder added, the decoder's own delay included.
        padding: Samples at the end that the encoder added, less the decoder's delay.
    """

    frames: int | None = None
    delay: int = 0
    padding: int = 0


_DECODER_DELAY = 529  # samples, of every decoder of layer III


def parse_info(header: Header, data: bytes) -> InfoTag | None:
    """Parse the Xing, Info or VBRI tag in a frame of layer III; None if it has sound in it.

    The tag is at the place of the first sound (32 bytes after the header in VBRI's case); the delays are LAME's
    extension of it, 21 bytes after the fields that its flags announce.
    """
    if header.kind != "mp3":
        return None
    if data[36:40] == b"VBRI":
        return InfoTag(int.from_bytes(data[50:54], "big") or None)
    side = {(3, 2): 32, (3, 1): 17, (2, 2): 17, (0, 2): 17}.get((header.version, header.channels), 9)
    at = 4 + side
    if data[at : at + 4] not in (b"Xing", b"Info"):
        at += 2  # behind a checksum
        if data[1] & 1 or data[at : at + 4] not in (b"Xing", b"Info"):
            return None
    flags = data[at + 7]
    frames = int.from_bytes(data[at + 8 : at + 12], "big") if flags & 1 else None
    lame = at + 8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
    delays = data[lame + 21 : lame + 24]
    if data[lame : lame + 4] not in (b"LAME", b"Lavf", b"Lavc") or len(delays) < 3:
        return InfoTag(frames)
    delay, padding = delays[0] << 4 | delays[1] >> 4, (delays[1] & 15) << 8 | delays[2]
    return InfoTag(frames, delay + _DECODER_DELAY, max(0, padding - _DECODER_DELAY))
