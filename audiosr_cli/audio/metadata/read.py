"""Reading the metadata of a recording of any format."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from audiosr_cli.audio.metadata import riff
from audiosr_cli.audio.metadata.media import cleaned, read_media
from audiosr_cli.audio.metadata.provenance import provenance_of
from audiosr_cli.audio.metadata.tail_chunks import read_aiff_markers
from audiosr_cli.audio.metadata.types import Marker, Metadata
from audiosr_cli.errors import AudioSRError

__all__ = ["Marker", "Metadata", "provenance_of", "read_metadata"]


def read_metadata(source: str | os.PathLike[str] | BinaryIO) -> Metadata:
    """Read the metadata of a recording. Damaged ones are left out and never an error.

    Args:
        source: A path, or a binary file object that can seek, which is read from its start.

    Returns:
        The metadata, bounded in size; empty for what is not a file.
    """
    if not isinstance(source, str | os.PathLike):
        return _read(source)
    try:
        if not Path(source).is_file():
            return Metadata()
        with open(source, "rb") as file:
            return _read(file)
    except (OSError, ValueError, AudioSRError):
        return Metadata()


def _read(file: BinaryIO) -> Metadata:
    try:
        file.seek(0)
        is_riff = riff.is_riff(file.read(16))
        file.seek(0)
        if not is_riff:
            metadata = read_media(file)
            return replace(metadata, markers=metadata.markers or read_aiff_markers(file))
        metadata, id3 = riff.metadata_of(riff.read_chunks(file))
        metadata = replace(metadata, tags=cleaned(dict(metadata.tags)))
    except (OSError, ValueError, AudioSRError):
        return Metadata()
    return metadata if id3 is None else _with_id3(metadata, id3)


def _with_id3(metadata: Metadata, tag: bytes) -> Metadata:
    """Add the ID3 tag of a WAV file; where both have a text, that of INFO counts, which more programs edit."""
    try:
        other = read_media(io.BytesIO(riff.head_only(tag)))
    except (OSError, ValueError, AudioSRError):
        return metadata
    return replace(
        metadata,
        tags={**other.tags, **metadata.tags},
        cover=other.cover,
        provenance=metadata.provenance or other.provenance,
        dropped=metadata.dropped + other.dropped,
    )
