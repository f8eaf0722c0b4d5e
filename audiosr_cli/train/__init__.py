"""Training: recordings in memory, batches made by tensor work, one loop for every model."""
