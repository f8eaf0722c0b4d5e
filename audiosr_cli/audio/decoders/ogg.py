"""Pages of Ogg: checked, and split into the streams that were chained, one after the other."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

_MAGIC = b"OggS"
_HEADER_BYTES = 27
_READ_BYTES = 1 << 16
_MAX_PAGE_BYTES = _HEADER_BYTES + 255 + 255 * 255
_FIRST, _LAST = 2, 4
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # the bits of each byte, backwards


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        data: All its bytes.
        first: Whether a stream begins with it.
        last: Whether a stream ends with it.
        serial: The number of its stream.
        sequence: Its number within the stream.
        granule: Samples from the start of the stream to the end of the page; negative if it does not say.
    """

    data: bytes
    first: bool
    last: bool
    serial: int
    sequence: int
    granule: int

    @property
    def body(self) -> bytes:
        """What follows the header."""
        return self.data[_HEADER_BYTES + self.data[26] :]


def checksum(page: bytes) -> int:
    """Compute the checksum of a page whose checksum field is zero.

    Ogg's CRC is that of zlib with the bits of every byte, and of the result, in the other order, without inversion.
    """
    value = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{value:032b}"[::-1], 2)


class PageReader:
    """Read the pages of a stream, those alone whose checksum is right.

    Args:
        read: Called with a number of bytes, returns up to that many; none at the end.

    Attributes:
        cut: Whether the stream ends within a page.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read, self._buffer, self._ended = read, b"", False
        self.cut = False

    def _have(self, count: int) -> bool:
        while len(self._buffer) < count and not self._ended:
            piece = self._read(_READ_BYTES)
            self._ended = not piece
            self._buffer += piece
        return len(self._buffer) >= count

    def next(self) -> Page | None:
        """Return the next page; None at the end."""
        while True:
            start = self._buffer.find(_MAGIC)
            if start < 0:
                self._buffer = self._buffer[-3:]
                if self._ended or not self._have(len(self._buffer) + 1):
                    return None
                continue
            self._buffer = self._buffer[start:]
            size = self._page_size()
            if size is None:
                if (start := self._buffer.find(_MAGIC, 1)) > 0:  # what seems to be cut is damaged: others follow
                    self._buffer = self._buffer[start:]
                    continue
                self.cut = True
                return None
            page = self._parse(self._buffer[:size])
            self._buffer = self._buffer[size if page else len(_MAGIC) :]
            if page is not None:
                return page

    def _page_size(self) -> int | None:
        """Return the size of the page at the start of the buffer; None if the stream ends before its end."""
        if not self._have(_HEADER_BYTES) or not self._have(_HEADER_BYTES + self._buffer[26]):
            return None
        size = _HEADER_BYTES + self._buffer[26] + sum(self._buffer[_HEADER_BYTES : _HEADER_BYTES + self._buffer[26]])
        return size if self._have(size) else None

    @staticmethod
    def _parse(data: bytes) -> Page | None:
        if checksum(data[:22] + bytes(4) + data[26:]) != int.from_bytes(data[22:26], "little"):
            return None
        flags, serial, sequence = data[5], int.from_bytes(data[14:18], "little"), int.from_bytes(data[18:22], "little")
        granule = int.from_bytes(data[6:14], "little", signed=True)
        return Page(data, bool(flags & _FIRST), bool(flags & _LAST), serial, sequence, granule)


class Link:
    """The bytes of one of the links of a chain, as a file to read: streams that begin together and lie side by side.

    Args:
        pages: Where the pages come from.
        first: The first page of the link.

    Attributes:
        lost: Number of times that pages are missing so far.
        following: The first page of the next link; None at the end of the file. Valid when all has been read.
    """

    def __init__(self, pages: PageReader, first: Page) -> None:
        self._pages, self._ready = pages, deque([first.data])
        self._expected = {first.serial: first.sequence + 1}
        self._open = {first.serial}
        self._sounds = {first.serial} if _skipped_at_start(first.body) is not None else set()
        self._skipped = _skipped_at_start(first.body) or 0
        self._end: int | None = None
        self._started = self._ended = False
        self.lost = 0
        self.following: Page | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all streams have reached their last page."""
        return not self._open

    @property
    def frames(self) -> int | None:
        """Samples of each channel up to its end, if all of it has been read and it has one stream of sound."""
        return self._end - self._skipped if self._end is not None and len(self._sounds) == 1 else None

    def read(self, count: int) -> bytes:
        """Return up to ``count`` bytes; none at the end of the link."""
        if not self._ready and not self._ended:
            self._next()
        if not self._ready:
            return b""
        data = self._ready.popleft()
        if len(data) > count:
            self._ready.appendleft(data[count:])
        return data[:count]

    def drain(self) -> None:
        """Go to the end of the link."""
        while not self._ended:
            self._next()
            self._ready.clear()

    def _next(self) -> None:
        page = self._pages.next()
        if page is None or (page.first and (self._started or not self._open)):
            self.following = page
            self._ended = True
            return
        self._started = self._started or not page.first
        if page.sequence != self._expected.get(page.serial, page.sequence):
            self.lost += 1
        self._expected[page.serial] = page.sequence + 1
        if page.last and page.serial in self._sounds and page.granule >= 0:
            self._end = page.granule
        if page.first and _skipped_at_start(page.body) is not None:
            self._sounds.add(page.serial)
            self._skipped = _skipped_at_start(page.body) or 0
        if page.last:
            self._open.discard(page.serial)
        elif page.first:
            self._open.add(page.serial)
        self._ready.append(page.data)


def find_frames(stream: BinaryIO) -> int | None:
    """Return the samples of each channel that the last page of an Ogg file promises; None if that cannot be told.

    Args:
        stream: A file with one stream of sound; it is left anywhere.
    """
    stream.seek(0)
    head = stream.read(_MAX_PAGE_BYTES)
    stream.seek(max(0, stream.seek(0, 2) - _MAX_PAGE_BYTES))
    tail = stream.read(_MAX_PAGE_BYTES)
    page = tail[max(0, tail.rfind(_MAGIC)) :][:_HEADER_BYTES]
    if len(page) < _HEADER_BYTES or page[14:18] != head[14:18]:
        return None
    skipped = _skipped_at_start(head[_HEADER_BYTES + head[26] :])
    if skipped is None:
        return None
    granule = int.from_bytes(page[6:14], "little", signed=True) - skipped
    return granule if 0 <= granule < 2**48 else None


def _skipped_at_start(body: bytes) -> int | None:
    """Return the samples before the first according to the first page of a stream; None if it holds no sound."""
    if body.startswith(b"OpusHead"):
        return int.from_bytes(body[10:12], "little")
    return 0 if body.startswith((b"\x01vorbis", b"\x7fFLAC", b"Speex   ")) else None


def encoded_rate(first_page: bytes) -> int | None:
    """Return the sample rate in Hz of what an Opus encoder was given; Opus itself has 48 kHz. None for other codecs."""
    body = first_page[_HEADER_BYTES + first_page[26] :] if len(first_page) > _HEADER_BYTES else b""
    return int.from_bytes(body[12:16], "little") if body.startswith(b"OpusHead") and len(body) >= 16 else None
