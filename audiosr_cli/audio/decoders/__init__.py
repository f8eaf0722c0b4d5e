"""Decoding: which decoder a recording needs, and the decoders, in blocks (C, T) of float32."""
