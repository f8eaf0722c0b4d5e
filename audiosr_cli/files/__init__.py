"""Files: atomic writing, fingerprints."""
