"""DETR's decoder (Carion 2020): post-norm layers, learned query positions, sine positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sine_positions(x: Tensor, y: Tensor, width: int) -> Tensor:
    """Positions x, y in [0, 1], each (N,) -> (N, width).

    Sine and cosine of y then x, temperature 10000 (DETR).
    """
    steps = torch.arange(width // 4, dtype=torch.float32, device=x.device)
    frequencies = 2 * math.pi / 10000 ** (4 * steps / width)
    parts = []
    for coordinate in (y, x):
        phases = coordinate[:, None] * frequencies
        parts += [torch.sin(phases), torch.cos(phases)]
    return torch.cat(parts, 1)


def grid_positions(height: int, width: int, channels: int) -> Tensor:
    """(height * width, channels) sine positions of the cell centres, row by row."""
    rows = (torch.arange(height) + 0.5) / height
    columns = (torch.arange(width) + 0.5) / width
    y, x = torch.meshgrid(rows, columns, indexing='ij')
    return sine_positions(x.flatten(), y.flatten(), channels)


def released_positions(height: int, width: int, channels: int) -> Tensor:
    """(height * width, channels), row by row, as mmdet 3.3's SinePositionalEncoding normalises:
    cells count from 1, sine and cosine alternate, y comes first.
    """
    half = channels // 2
    period = 10000 ** (2 * (torch.arange(half) // 2) / half)
    parts = []
    for count in (height, width):
        cells = torch.arange(1, count + 1) / (count + 1e-6) * 2 * math.pi
        phases = cells[:, None] / period
        parts.append(torch.stack([phases[:, 0::2].sin(), phases[:, 1::2].cos()], 2).flatten(1))
    y, x = parts
    return torch.cat([y[:, None].expand(-1, width, -1), x[None].expand(height, -1, -1)],
                     2).flatten(0, 1)


class Attention(nn.Module):
    """Multi-head attention with separate projections of query, key and value."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, Q, d), (B, K, d), (B, K, d) -> (B, Q, d)."""
        def split(x: Tensor) -> Tensor:
            return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)
        q, k, v = split(self.query(query)), split(self.key(key)), split(self.value(value))
        weights = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), -1)
        return self.out((weights @ v).transpose(1, 2).reshape(query.shape))


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention, feed-forward; each added, then normalised."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(width, heads)
        self.cross_attention = Attention(width, heads)
        self.feed_forward = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(),
                                          nn.Dropout(dropout), nn.Linear(hidden, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, query_positions: Tensor, memory: Tensor,
                memory_positions: Tensor) -> Tensor:
        """x (B, Q, d), memory (B, K, d) -> (B, Q, d)."""
        placed = x + query_positions
        x = self.norms[0](x + self.dropout(self.self_attention(placed, placed, x)))
        read = self.cross_attention(x + query_positions, memory + memory_positions, memory)
        x = self.norms[1](x + self.dropout(read))
        return self.norms[2](x + self.dropout(self.feed_forward(x)))


class QueryDecoder(nn.Module):
    """Queries start at zero; each layer's output passes one shared layer norm."""

    def __init__(self, queries: int, width: int, heads: int, hidden: int, layers: int,
                 dropout: float, as_released: bool = False) -> None:
        """`as_released`: the memory's positions are mmdet's."""
        super().__init__()
        self.as_released = as_released
        # starting on a grid of anchors, not at random, spreads the queries over the image from the
        # first step
        columns = math.ceil(math.sqrt(queries))
        rows = math.ceil(queries / columns)
        self.query_positions = nn.Parameter(grid_positions(rows, columns, width)[:queries])
        self.layers = nn.ModuleList(DecoderLayer(width, heads, hidden, dropout)
                                    for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, memory: Tensor) -> Tensor:
        """Memory (B, d, h, w) -> (L, B, Q, d), one per layer."""
        batch, width, rows, columns = memory.shape
        if self.as_released:
            positions = released_positions(rows, columns, width).to(memory)[None]
        else:
            positions = F.layer_norm(grid_positions(rows, columns, width).to(memory),
                                     (width,))[None]
        tokens = memory.flatten(2).transpose(1, 2)
        queries = self.query_positions.expand(batch, -1, -1)
        x, outputs = torch.zeros_like(queries), []
        for layer in self.layers:
            x = layer(x, queries, tokens, positions)
            outputs.append(self.norm(x))
        return torch.stack(outputs)
