"""Metadata of recordings: tags, cover art, broadcast chunks, markers, channel layout, provenance."""
