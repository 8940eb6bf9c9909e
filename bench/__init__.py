"""Reproducible benchmarks: one command each, a table and JSON, peers in the same run."""
