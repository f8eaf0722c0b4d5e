"""Ogg streams: whole pages, split into the streams that were chained, one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import BinaryIO

from audiosr_cli.audio.ogg_pages import HEADER_BYTES, MAGIC, MAX_PAGE_BYTES, Page, page_size

_READ_BYTES = 1 << 16


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
            start = self._buffer.find(MAGIC)
            if start < 0:
                self._buffer = self._buffer[-3:]
                if self._ended or not self._have(len(self._buffer) + 1):
                    return None
                continue
            self._buffer = self._buffer[start:]
            size = self._page_size()
            if size is None:
                if (start := self._buffer.find(MAGIC, 1)) > 0:  # what seems to be cut is damaged: others follow
                    self._buffer = self._buffer[start:]
                    continue
                self.cut = True
                return None
            page = Page.parse(self._buffer[:size])
            is_intact = page.is_intact
            self._buffer = self._buffer[size if is_intact else len(MAGIC) :]
            if is_intact:
                return page

    def _page_size(self) -> int | None:
        """Return the size of the page at the start of the buffer; None if the stream ends before its end."""
        if not self._have(HEADER_BYTES) or not self._have(HEADER_BYTES + self._buffer[26]):
            return None
        size = page_size(self._buffer)
        return size if size is not None and self._have(size) else None


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
    """Return the samples of each channel according to the last page of an Ogg file; None if that is unknown.

    Args:
        stream: A file with one stream of sound; it is left anywhere.
    """
    stream.seek(0)
    head = stream.read(MAX_PAGE_BYTES)
    stream.seek(max(0, stream.seek(0, 2) - MAX_PAGE_BYTES))
    tail = stream.read(MAX_PAGE_BYTES)
    page = tail[max(0, tail.rfind(MAGIC)) :]
    if len(page) < HEADER_BYTES or Page.parse(page).serial != Page.parse(head).serial:
        return None
    skipped = _skipped_at_start(Page.parse(head).body)
    if skipped is None:
        return None
    frames = Page.parse(page).granule - skipped
    return frames if 0 <= frames < 2**48 else None


def _skipped_at_start(body: bytes) -> int | None:
    """Return the samples before the first according to the first page of a stream; None if it holds no sound."""
    if body.startswith(b"OpusHead"):
        return int.from_bytes(body[10:12], "little")
    return 0 if body.startswith((b"\x01vorbis", b"\x7fFLAC", b"Speex   ")) else None


def encoded_rate(first_page: bytes) -> int | None:
    """Return the sample rate in Hz of what an Opus encoder was given; Opus itself has 48 kHz. None for other codecs."""
    body = Page.parse(first_page).body if len(first_page) > HEADER_BYTES else b""
    return int.from_bytes(body[12:16], "little") if body.startswith(b"OpusHead") and len(body) >= 16 else None
