"""Losses, each a plain function checked on toy tensors.

Shapes: L layers, B batch, Q queries, N targets, M matches, P pixels. "As released" is explained in
`training/nets`.
"""
