"""Streaming: windows, stages, speaker order, the processing of one recording."""
