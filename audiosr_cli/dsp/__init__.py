"""Signal processing: spectra, bandwidth, metrics."""
