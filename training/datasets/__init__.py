"""Data sets whose batches are there when the training loop asks: packed on disk, or rendered."""
