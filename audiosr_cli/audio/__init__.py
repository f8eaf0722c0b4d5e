"""Audio input and output, in numpy: file formats, resampling, spectrograms."""
