"""Metadata of every container but WAV, through FFmpeg's libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

from audiosr_cli.audio.decoders import libav
from audiosr_cli.audio.metadata.provenance import TAG
from audiosr_cli.audio.metadata.types import MAX_BYTES, Marker, Metadata
from audiosr_cli.errors import InputError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.stream import Stream

_NAME = "the metadata"  # in errors, which nobody sees
# WAVE's speaker positions, one bit each, by FFmpeg's names of channels.
_NAMES = "FL FR FC LFE BL BR FLC FRC BC SL SR TC TFL TFC TFR TBL TBC TBR"
_POSITIONS = tuple(_NAMES.split(" "))
_MAX_CHAPTERS = 1 << 16
# Tags that describe the file and not its content, or the level of samples that are others now.
_TECHNICAL = frozenset(
    {
        "compatible_brands",
        "coverart",
        "duration",
        "encoder",
        "encoding params",
        "gapless_playback",
        "handler_name",
        "itunnorm",
        "itunsmpb",
        "major_brand",
        "media_type",
        "metadata_block_picture",
        "minor_version",
        "software",
        "vendor_id",
        "waveformatextensible_channel_mask",
    }
)
_TECHNICAL_STARTS = ("replaygain_", "r128_", "_statistics", "number_of_", "chapter", "id3v2_priv.")
_ALIASES = {  # names in CAF and elsewhere
    "track number": "track",
    "tracknumber": "track",
    "recorded date": "date",
    "comments": "comment",
    "encoding application": "encoder",
    "albumartist": "album_artist",
    "author": "artist",
}


def cleaned(tags: dict[str, str]) -> dict[str, str]:
    """Return ``tags`` with names in lower case, without those that describe the input's file or levels."""
    lower = {_ALIASES.get(name.lower(), name.lower()): text.strip() for name, text in tags.items() if text.strip()}
    return {
        name: text for name, text in lower.items() if name not in _TECHNICAL and not name.startswith(_TECHNICAL_STARTS)
    }


def read_media(file: BinaryIO) -> Metadata:
    """Read tags, cover art, chapters and channel layout of a recording.

    Args:
        file: A file object that can seek.

    Raises:
        InputError: If FFmpeg's libraries do not know it, or are missing.
    """
    libav.require(_NAME)
    with libav.open_container(libav.FileInput(file, _NAME), _NAME) as container:
        try:
            return _container_metadata(container)
        except libav.errors() as error:
            raise InputError(f"{_NAME}: {error}") from error


def _container_metadata(container: InputContainer) -> Metadata:
    """Return what an open container says of its recording."""
    tags, dropped = _tags(container), list[str]()
    provenance = next((text for name, text in tags.items() if name.upper() == TAG), "")
    streams = container.streams.audio
    return Metadata(
        tags=_within_limit({name: text for name, text in cleaned(tags).items() if name.upper() != TAG}, dropped),
        cover=_cover(container, dropped),
        markers=_chapters(container),
        channel_mask=_mask(streams[0]) if streams else 0,
        sample_rate=(getattr(streams[0], "rate", None) or 0) if streams else 0,
        provenance=provenance,
        dropped=tuple(dropped),
    )


def _tags(container: InputContainer) -> dict[str, str]:
    """Return the tags of a file; Ogg has them in its stream. Languages and the like of a stream are not the file's."""
    tags = dict(container.metadata)
    if container.streams.audio and container.format.name == "ogg":
        tags = dict(container.streams.audio[0].metadata) | tags
    return tags


def _within_limit(tags: dict[str, str], dropped: list[str]) -> dict[str, str]:
    """Return the tags that fit into the limit."""
    fitting, left = {}, MAX_BYTES // 4
    for name, text in tags.items():
        if len(name) + len(text) > left:
            dropped.append(f"the tag {name[:40]!r}, which is too long")
            continue
        left -= len(name) + len(text)
        fitting[name] = text
    return fitting


def _cover(container: InputContainer, dropped: list[str]) -> bytes | None:
    """Return the first picture that is attached."""
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            continue
        cover = _first_packet(container, stream)
        if len(cover) > MAX_BYTES:
            dropped.append(f"cover art of {len(cover) >> 20} MiB")
        elif cover:
            return cover
    return None


def _first_packet(container: InputContainer, stream: Stream) -> bytes:
    for packet in container.demux(stream):
        return bytes(packet)
    return b""


def _chapters(container: InputContainer) -> tuple[Marker, ...]:
    markers = []
    for chapter in container.chapters()[:_MAX_CHAPTERS]:
        unit = float(chapter["time_base"] or 0)
        start_s, end_s = chapter["start"] * unit, chapter["end"] * unit
        if start_s >= 0:
            label = chapter["metadata"].get("title", "")
            markers.append(Marker(start_s, max(0.0, end_s - start_s), label))
    return tuple(markers)


def _mask(stream: Any) -> int:
    """Return the WAVE channel mask of an audio stream; 0 if its layout has other positions or another order."""
    layout = getattr(stream, "layout", None)  # missing where there is no decoder
    names = [channel.name for channel in layout.channels] if layout is not None else []
    if not all(name in _POSITIONS for name in names):
        return 0
    bits = [_POSITIONS.index(name) for name in names]
    return sum(1 << bit for bit in bits) if bits == sorted(set(bits)) else 0
