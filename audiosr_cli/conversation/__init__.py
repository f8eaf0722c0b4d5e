"""Who speaks when: turns from the levels of separated tracks, and the label files of other programs."""
