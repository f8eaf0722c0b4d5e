"""Sound in and sound out, in numpy; the only place that knows file formats and resampling."""
