"""Encoders behind the output gate: of libsndfile and of FFmpeg's libraries."""
