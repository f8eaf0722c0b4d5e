"""The data structure of metadata, and how times in it change with sample rate and start."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from audiosr_cli.audio.metadata import broadcast

MAX_BYTES = 1 << 24  # of metadata that are read from one recording; more is ignored, and reported

_TIME_REFERENCE = "time_reference"  # FFmpeg's name of bext's, in containers without bext; in samples


@dataclass(frozen=True)
class Marker:
    """A named position or region of a recording.

    Attributes:
        start_s: Seconds from the start.
        length_s: Seconds; 0 for a position.
        label: Its name, may be empty.
        note: A comment on it, may be empty.
    """

    start_s: float
    length_s: float = 0.0
    label: str = ""
    note: str = ""


@dataclass(frozen=True)
class Metadata:
    """Metadata of a recording or output; all of it may be absent.

    Attributes:
        tags: Text tags, under FFmpeg's lower-case names (title, artist, album, date, genre, comment ...).
        cover: Cover art, a JPEG or PNG file.
        bext: Body of the EBU broadcast chunk; its time reference counts samples at ``sample_rate``.
        ixml: Body of the iXML chunk.
        markers: Cue points and regions.
        channel_mask: WAVE's speaker positions, one bit a channel; 0 if unknown.
        sample_rate: Hz of the recording, the unit of bext's time reference; 0 if unknown.
        provenance: How an output was made, as `provenance.provenance_text` writes it; empty for none.
        dropped: Names, for messages, of what the recording holds and no output can.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    cover: bytes | None = None
    bext: bytes | None = None
    ixml: bytes | None = None
    markers: tuple[Marker, ...] = ()
    channel_mask: int = 0
    sample_rate: int = 0
    provenance: str = ""
    dropped: tuple[str, ...] = ()

    def for_output(
        self, sample_rate: int, start_s: float = 0.0, length_s: float | None = None, same_channels: bool = True
    ) -> Metadata:
        """Return the metadata of an output: times are those of its samples.

        Args:
            sample_rate: Hz of the output.
            start_s: Second of the recording at which the output starts.
            length_s: Seconds of the recording that the output covers; None for all up to its end.
            same_channels: Whether the output has the recording's channels; otherwise the channel layout is dropped.
        """
        scale = Fraction(sample_rate, self.sample_rate or sample_rate)
        offset = round(start_s * self.sample_rate)
        tags = dict(self.tags)
        if re.fullmatch("[0-9]{1,20}", tags.get(_TIME_REFERENCE, "")):
            tags[_TIME_REFERENCE] = str(round((int(tags[_TIME_REFERENCE]) + offset) * scale))
        bext, ixml = self.bext, self.ixml
        if bext is not None:
            bext = broadcast.scale_bext(bext, scale, offset)
        if ixml is not None:
            ixml = broadcast.scale_ixml(ixml, sample_rate, scale, offset, same_channels)
        return replace(
            self,
            tags=tags,
            bext=bext,
            ixml=ixml,
            markers=_shifted(self.markers, start_s, length_s),
            channel_mask=self.channel_mask if same_channels else 0,
            sample_rate=sample_rate,
        )


def _shifted(markers: tuple[Marker, ...], start_s: float, length_s: float | None) -> tuple[Marker, ...]:
    """Return the markers that lie, or begin before and reach, between ``start_s`` and ``length_s`` after it."""
    if start_s == 0 and length_s is None:
        return markers
    end_s = float("inf") if length_s is None else start_s + length_s
    shifted = []
    for marker in markers:
        stop_s = marker.start_s + marker.length_s
        if stop_s < start_s or marker.start_s >= end_s or (marker.length_s and stop_s == start_s):
            continue
        first_s, last_s = max(marker.start_s, start_s), min(stop_s, end_s)
        shifted.append(replace(marker, start_s=first_s - start_s, length_s=max(0.0, last_s - first_s)))
    return tuple(shifted)
