"""Bytes on disk to and from the values the node works with. Knows no pipeline."""
