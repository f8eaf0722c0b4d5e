"""Pages of Ogg (RFC 3533): their size, checksum and fields, for decoders and encoders."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

MAGIC = b"OggS"
HEADER_BYTES = 27  # without the table of segments
MAX_PAGE_BYTES = HEADER_BYTES + 255 + 255 * 255
CONTINUED, FIRST, LAST = 1, 2, 4  # flags: begins within a packet; the first, the last page of its stream
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

    @classmethod
    def parse(cls, data: bytes) -> Page:
        """Parse a page.

        Args:
            data: The whole page, or at least its header.
        """
        flags, serial, sequence = data[5], int.from_bytes(data[14:18], "little"), int.from_bytes(data[18:22], "little")
        granule = int.from_bytes(data[6:14], "little", signed=True)
        return cls(data, bool(flags & FIRST), bool(flags & LAST), serial, sequence, granule)

    @property
    def segments(self) -> bytes:
        """The lengths of its segments."""
        return self.data[HEADER_BYTES : HEADER_BYTES + self.data[26]]

    @property
    def body(self) -> bytes:
        """What follows the header and the table of segments."""
        return self.data[HEADER_BYTES + self.data[26] :]

    @property
    def is_intact(self) -> bool:
        """Whether its checksum is right."""
        return checksum(self.data[:22] + bytes(4) + self.data[26:]) == int.from_bytes(self.data[22:26], "little")


def page_size(data: bytes | bytearray) -> int | None:
    """Return the bytes of the page that ``data`` begins with; None if its header and table are incomplete."""
    if len(data) < HEADER_BYTES or len(data) < HEADER_BYTES + data[26]:
        return None
    return HEADER_BYTES + data[26] + sum(data[HEADER_BYTES : HEADER_BYTES + data[26]])


def checksum(page: bytes) -> int:
    """Compute the checksum of a page whose checksum field is zero.

    Ogg's CRC is that of zlib with the bits of every byte, and of the result, in the other order, without inversion.
    """
    value = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{value:032b}"[::-1], 2)
