"""Checkpoints: the catalogue of bundled models, loading, saving, importing."""
