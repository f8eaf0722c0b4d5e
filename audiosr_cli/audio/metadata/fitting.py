"""Which metadata each output container can hold, and in which form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from audiosr_cli.audio.metadata import broadcast
from audiosr_cli.audio.metadata.provenance import TAG
from audiosr_cli.audio.metadata.riff_tags import info_id
from audiosr_cli.audio.metadata.types import Marker, Metadata


@dataclass(frozen=True)
class Capacity:
    """What a container holds besides text tags.

    Attributes:
        cover: Cover art.
        broadcast: The chunks bext and iXML: "both", "bext", as "tags" of bext's fields, or "none".
        markers: "regions" with lengths and notes, "points", "chapters" or "contiguous chapters" by the muxer, chapters
            as "tags", or "none".
        layout: "any" channel mask, "many" for any one of more than two channels, the "default" one of each number of
            channels, or "none".
        provenance: As a "tag" among the others, or "apart".
    """

    cover: bool
    broadcast: str
    markers: str
    layout: str
    provenance: str


CAPACITIES = {
    "wav": Capacity(True, "both", "regions", "any", "apart"),
    "w64": Capacity(False, "bext", "none", "any", "apart"),
    "aiff": Capacity(True, "tags", "points", "none", "apart"),
    "caf": Capacity(False, "tags", "none", "any", "apart"),
    "flac": Capacity(True, "tags", "tags", "many", "tag"),
    "ogg": Capacity(True, "tags", "tags", "default", "tag"),
    "opus": Capacity(True, "tags", "tags", "default", "tag"),
    "mp3": Capacity(True, "tags", "chapters", "default", "tag"),
    "m4a": Capacity(True, "none", "contiguous chapters", "many", "apart"),
    "mp4": Capacity(True, "none", "contiguous chapters", "many", "apart"),
    "mov": Capacity(False, "none", "contiguous chapters", "many", "apart"),
    "mkv": Capacity(True, "tags", "chapters", "many", "tag"),
    "webm": Capacity(False, "tags", "chapters", "default", "tag"),
}
_DEFAULT_MASKS = {1: 0x4, 2: 0x3, 3: 0x7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x70F, 8: 0x63F}
_FIRST_CHAPTER = "Start"  # the title of what comes before the first marker
_SAME_TIME_S = 0.002  # chapters have times in milliseconds
_LAST_CHAPTER_S = 0.001  # the length of the last chapter where that of the recording is unknown
_MAX_CHAPTER_TAGS = 999  # as their numbers have three digits


def fit(metadata: Metadata, container: str, channels: int, length_s: float | None = None) -> tuple[Metadata, list[str]]:
    """Return the metadata as a container holds them.

    Args:
        metadata: Of an output.
        container: A key of `CAPACITIES`.
        channels: Number of channels.
        length_s: Seconds of the output, where the last chapter ends; None if that is unknown.

    Returns:
        The metadata, in which only what the container holds remains, and the names of what is lost.
    """
    capacity = CAPACITIES[container]
    lost = list(metadata.dropped)
    tags = dict(metadata.tags)
    changes: dict[str, Any] = {"dropped": ()}
    if metadata.cover is not None and not capacity.cover:
        changes["cover"] = None
        lost.append("cover art")
    changes |= _fit_broadcast(metadata, capacity, tags, lost)
    changes |= _fit_markers(metadata, capacity, tags, lost, length_s)
    if not _holds_layout(capacity, metadata.channel_mask, channels):
        changes["channel_mask"] = 0
        if channels > 2 or metadata.channel_mask != _DEFAULT_MASKS.get(channels):
            lost.append("the channel layout")
    if capacity.provenance == "tag" and metadata.provenance:
        tags = {TAG: metadata.provenance, **tags}
    if container == "w64" and (nameless := [name for name in tags if info_id(name) is None]):
        lost.append(f"the tags {', '.join(nameless)}")
        tags = {name: text for name, text in tags.items() if name not in nameless}
    if container in ("m4a", "mp4", "mov"):
        tags.pop("encoder", None)
    return replace(metadata, tags=tags, **changes), lost


def _fit_broadcast(metadata: Metadata, capacity: Capacity, tags: dict[str, str], lost: list[str]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if metadata.bext is not None and capacity.broadcast not in ("both", "bext"):
        changes["bext"] = None
        if capacity.broadcast == "tags":
            fields = broadcast.bext_tags(metadata.bext)
            # Vorbis comments have one field for both: FFmpeg calls it comment.
            if "description" in fields and "comment" not in tags:
                tags["comment"] = fields.pop("description")
            for name, text in fields.items():
                tags.setdefault("bext_description" if name == "description" else name, text)
        else:
            lost.append("the broadcast chunk (bext)")
    if metadata.ixml is not None and capacity.broadcast != "both":
        changes["ixml"] = None
        lost.append("iXML")
    return changes


def _fit_markers(
    metadata: Metadata, capacity: Capacity, tags: dict[str, str], lost: list[str], length_s: float | None
) -> dict[str, Any]:
    if not metadata.markers or capacity.markers == "regions":
        return {}
    if capacity.markers == "none":
        lost.append("markers")
        return {"markers": ()}
    if any(marker.note for marker in metadata.markers):
        lost.append("notes on markers")
    if capacity.markers != "chapters" and _has_lengths(metadata.markers, length_s):
        lost.append("the lengths of regions")
    if capacity.markers == "tags":
        tags.update(_chapter_tags(metadata.markers))
        return {"markers": ()}
    if capacity.markers == "points":
        return {"markers": tuple(replace(marker, length_s=0.0, note="") for marker in metadata.markers)}
    return {"markers": _chapters(metadata.markers, capacity.markers == "contiguous chapters", length_s)}


def _has_lengths(markers: tuple[Marker, ...], length_s: float | None) -> bool:
    """Return whether there are regions that do not just end where the next marker, or the end, is."""
    ends = [*(marker.start_s for marker in markers[1:]), length_s]
    return any(
        marker.length_s > _SAME_TIME_S and (end is None or abs(marker.start_s + marker.length_s - end) > _SAME_TIME_S)
        for marker, end in zip(markers, ends, strict=True)
    )


def _chapter_tags(markers: tuple[Marker, ...]) -> dict[str, str]:
    """Return markers as the chapters of Vorbis comments."""
    tags: dict[str, str] = {}
    for i, marker in enumerate(markers[:_MAX_CHAPTER_TAGS], 1):
        milliseconds = round(marker.start_s * 1000)
        minutes, seconds = divmod(milliseconds // 1000, 60)
        clock = f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}.{milliseconds % 1000:03}"
        tags |= {f"chapter{i:03}": clock, f"chapter{i:03}name": marker.label or str(i)}
    return tags


def _chapters(markers: tuple[Marker, ...], contiguous: bool, length_s: float | None) -> tuple[Marker, ...]:
    """Return markers as chapters, each of which ends where it says, or else where the next one starts.

    Contiguous chapters, those of MP4, always end where the next one starts, begin with the recording and have titles.
    """
    if contiguous:
        markers = tuple(replace(marker, label=marker.label or str(i)) for i, marker in enumerate(markers, 1))
        markers = markers if markers[0].start_s == 0 else (Marker(0.0, label=_FIRST_CHAPTER), *markers)
    end_s = markers[-1].start_s + _LAST_CHAPTER_S if length_s is None else length_s
    starts = [marker.start_s for marker in markers[1:]] + [end_s]
    return tuple(
        replace(marker, length_s=(not contiguous and marker.length_s) or max(0.0, following - marker.start_s), note="")
        for marker, following in zip(markers, starts, strict=True)
    )


def _holds_layout(capacity: Capacity, mask: int, channels: int) -> bool:
    if mask == 0 or capacity.layout == "any" or (capacity.layout == "many" and channels > 2):
        return True
    return capacity.layout != "none" and mask == _DEFAULT_MASKS.get(channels)
