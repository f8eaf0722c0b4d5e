"""Training: recordings in memory, batches rendered on the device, one loop for all models and tasks."""
