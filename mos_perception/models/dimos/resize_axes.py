"""OpenCV's resizing, one axis at a time, as tables for kernels: which source pixels an output
takes, how much of each.

`cv2.resize` computes them in double, then works in float32 row by row; a kernel that follows these
tables in the same order gives its bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class AreaAxis:
    """INTER_AREA: output i is the sum of weight[k] x source[first[i] + k - begin[i]] for k in
    begin[i] .. begin[i + 1].

    `block`: sources per output where that is a whole number (their sum is then taken in integers),
    else 0.
    """

    first: np.ndarray
    begin: np.ndarray
    weight: np.ndarray
    block: int


@dataclass(frozen=True)
class LinearAxis:
    """INTER_LINEAR: output i lies `part[i]` of the way from source first[i] to the next."""

    first: np.ndarray
    part: np.ndarray


def area_axis(sources: int, size: int) -> AreaAxis:
    """From `sources` to `size` <= sources pixels (OpenCV's computeResizeAreaTab)."""
    scale = sources / size
    first, begin, weights = np.zeros(size, np.int32), [0], []
    for i in range(size):
        low, high = i * scale, i * scale + scale
        cell = min(scale, sources - low)
        end = min(int(np.floor(high)), sources - 1)
        start = min(int(np.ceil(low)), end)
        taken = [(start - 1, (start - low) / cell)] if start - low > 1e-3 else []
        taken += [(source, 1.0 / cell) for source in range(start, end)]
        if high - end > 1e-3:
            taken.append((end, min(high - end, 1.0, cell) / cell))
        first[i] = taken[0][0]
        weights += [weight for _, weight in taken]
        begin.append(len(weights))
    return AreaAxis(first, np.array(begin, np.int32), np.array(weights, np.float32),
                    sources // size if sources % size == 0 else 0)


def linear_axis(sources: int, size: int) -> LinearAxis:
    """From `sources` to `size` pixels, half-pixel centres."""
    place = ((np.arange(size) + 0.5) * (1 / (size / sources)) - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int32)
    part = place - first.astype(np.float32)
    outside = (first < 0) | (first >= sources - 1)
    return LinearAxis(np.clip(first, 0, sources - 1), np.where(outside, np.float32(0), part))
