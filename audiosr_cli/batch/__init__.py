"""Batches of recordings: inputs, output names, processes, Ray, the manifest."""
