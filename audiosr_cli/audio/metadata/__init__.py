"""What a recording says of itself besides its samples: tags, cover art, broadcast chunks, markers, provenance."""
