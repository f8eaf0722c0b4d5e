"""Tags in Ogg Vorbis files, whose encoder libsndfile takes only a few of them and no cover art."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from audiosr_cli.audio.encoders.disk_file import DiskFile
from audiosr_cli.audio.ogg_pages import CONTINUED, FIRST, MAGIC, Page, checksum, page_size

_HEADER = struct.Struct("<4sBBqIIIB")  # magic, version, flags, granule, serial, sequence, checksum, segments
_SERIAL = 1  # libsndfile draws a random one, so that two runs would differ
_MAX_SEGMENTS = 255  # of a page, each of at most 255 bytes
_HEADERS = 3  # packets before the sound: identification, comment, setup
_COMMENT_MAGIC = b"\x03vorbis"
_NAMES = {"album_artist": "ALBUMARTIST", "track": "TRACKNUMBER", "disc": "DISCNUMBER", "comment": "DESCRIPTION"}


class CommentWriter:
    """A file object that replaces the comment header of the Ogg Vorbis stream that is written to it.

    Args:
        disk: Where the stream goes.
        tags: Names and values.
    """

    def __init__(self, disk: DiskFile, tags: Sequence[tuple[str, str]]) -> None:
        self._disk, self._tags = disk, tags
        self._pending = bytearray()
        self._position = self._sequence = 0
        self._packets: list[bytearray] | None = [bytearray()]  # of the headers, the last one incomplete

    def write(self, data: bytes) -> int:
        """Append to the stream."""
        self._pending += data
        self._position += len(data)
        while (size := page_size(self._pending)) is not None and size <= len(self._pending):
            page = Page.parse(bytes(self._pending[:size]))
            del self._pending[:size]
            if self._packets is None:
                self._write_page(page.data[5], page.granule, page.segments, page.body)
            else:
                self._collect(page)
        return len(data)

    def seek(self, _offset: int, _whence: int = 0) -> int:
        """Do nothing: the encoder asks for the length of the file, which is where it stands."""
        return self._position

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def _collect(self, page: Page) -> None:
        """Take a page of the headers, and write them all when they are complete."""
        assert self._packets is not None
        body, at = page.body, 0
        for length in page.segments:
            self._packets[-1] += body[at : at + length]
            at += length
            if length < 255:
                self._packets.append(bytearray())
        if len(self._packets) <= _HEADERS:
            return
        identification, comment, setup = map(bytes, self._packets[:_HEADERS])
        self._packets = None
        self._write_packets(FIRST, [identification])
        self._write_packets(0, [self._comments(comment), setup])

    def _comments(self, old: bytes) -> bytes:
        """Return a comment header with our tags and the vendor of the ``old`` one."""
        start = len(_COMMENT_MAGIC)
        vendor = old[start : start + 4 + struct.unpack_from("<I", old, start)[0]]
        entries = [f"{_NAMES.get(name, name.upper())}={value}".encode(errors="replace") for name, value in self._tags]
        listed = b"".join(struct.pack("<I", len(entry)) + entry for entry in entries)
        return _COMMENT_MAGIC + vendor + struct.pack("<I", len(entries)) + listed + b"\x01"

    def _write_packets(self, flags: int, packets: Sequence[bytes]) -> None:
        body = b"".join(packets)
        lacing = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
        at = 0
        for start in range(0, len(lacing), _MAX_SEGMENTS):
            segments = lacing[start : start + _MAX_SEGMENTS]
            granule = -1 if segments.count(255) == len(segments) else 0  # -1 where no packet ends
            continued = CONTINUED if start and lacing[start - 1] == 255 else 0
            size = sum(segments)
            self._write_page(flags | continued, granule, segments, body[at : at + size])
            at += size

    def _write_page(self, flags: int, granule: int, segments: bytes, body: bytes) -> None:
        """Write a page with a number and a checksum of our own; ``segments`` are the lengths of its segments."""
        head = _HEADER.pack(MAGIC, 0, flags, granule, _SERIAL, self._sequence, 0, len(segments))
        crc = struct.pack("<I", checksum(head + segments + body))
        self._disk.write(head[:22] + crc + head[26:] + segments + body)
        self._sequence += 1
