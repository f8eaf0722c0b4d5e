"""Signal processing: spectra, bandwidth detection, metrics."""
