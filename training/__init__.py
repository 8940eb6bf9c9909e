"""Offline subtree: rendered scenes, networks, losses and the training loop (PyTorch).

The runtime never imports it.
"""
