"""Rotary position embedding over a grid (RoPE-2D, CroCo v2, Weinzaepfel et al. 2023).

The first half of a head's channels turns with y, the second with x, each in rotate-half form.
Angles are tables made once: a graph that is exported holds constants.
"""

from __future__ import annotations

import torch
from torch import Tensor


def grid_positions(height: int, width: int) -> Tensor:
    """(height * width, 2) whole (y, x), row by row."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    return torch.stack([y.flatten(), x.flatten()], 1)


def rope_table(positions: Tensor, channels: int, base: float) -> Tensor:
    """Cosines and sines (2, N, channels) for (N, 2) positions; `channels` divisible by 4."""
    half = channels // 2
    frequencies = 1.0 / base ** (torch.arange(0, half, 2).float() / half)
    angles = positions.float()[..., None] * frequencies
    angles = torch.cat([angles, angles], -1).flatten(1)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(tokens: Tensor, table: Tensor) -> Tensor:
    """Tokens (..., N, channels) turned by a `rope_table` of the same N and channels."""
    first, second = tokens.unflatten(-1, (2, 2, -1)).unbind(-2)
    turned = torch.stack([-second, first], -2).flatten(-3)
    return tokens * table[0] + turned * table[1]
