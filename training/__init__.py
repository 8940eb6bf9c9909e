"""Offline part, PyTorch: data, networks, losses, training, evaluation, export."""
