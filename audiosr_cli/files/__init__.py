"""Files: atomic writing and fingerprints."""
