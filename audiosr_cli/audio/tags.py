"""What a recording says of itself besides its samples: tags, cover art, broadcast chunks, markers, channel layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Marker:
    """A named position or region of a recording.

    Attributes:
        start_s: Seconds from the start.
        length_s: Seconds; 0 for a position.
        label: Its name, may be empty.
    """

    start_s: float
    length_s: float = 0.0
    label: str = ""


@dataclass(frozen=True)
class Metadata:
    """What a recording says of itself; all of it may be absent.

    Attributes:
        tags: Text tags, under FFmpeg's lower-case names (title, artist, album, date, genre, comment ...).
        cover: Cover art, a JPEG or PNG file.
        bext: Body of the EBU broadcast chunk; its time reference counts samples at ``sample_rate``.
        ixml: Body of the iXML chunk.
        markers: Cue points and regions.
        channel_mask: WAVE's speaker positions, one bit a channel; 0 if unknown.
        sample_rate: Hz of the recording, the unit of bext's time reference; 0 if unknown.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    cover: bytes | None = None
    bext: bytes | None = None
    ixml: bytes | None = None
    markers: tuple[Marker, ...] = ()
    channel_mask: int = 0
    sample_rate: int = 0
