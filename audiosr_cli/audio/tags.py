"""What a recording says of itself besides its samples: tags, cover art, broadcast chunks, markers, channel layout."""

from __future__ import annotations

from audiosr_cli.audio.metadata import Marker, Metadata
from audiosr_cli.audio.provenance import provenance_of

__all__ = ["Marker", "Metadata", "provenance_of"]
