"""Region and boundary scores of a mask: J and F of DAVIS (Perazzi et al. 2016;
davisvideochallenge/davis2017-evaluation).

Masks (H, W) bool. `void` pixels count for neither side.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

TOLERANCE = 0.008  # of the image's diagonal


def region_j(found: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None) -> float:
    """Intersection over union; 1 where both are empty."""
    if void is not None:
        found, truth = found & ~void, truth & ~void
    union = np.count_nonzero(found | truth)
    return np.count_nonzero(found & truth) / union if union else 1.0


def boundary_f(found: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None,
               tolerance: float = TOLERANCE) -> float:
    """F measure of the boundaries' precision and recall within ceil(`tolerance` x diagonal) px; 1
    where both are empty.
    """
    if void is not None:
        found, truth = found & ~void, truth & ~void
    reach = math.ceil(tolerance * math.hypot(*found.shape))
    edges = [boundary(mask) for mask in (found, truth)]
    counts = [np.count_nonzero(edge) for edge in edges]
    if not all(counts):
        return float(not any(counts))
    disk = _disk(reach)
    near = [cv2.dilate(edge.view(np.uint8), disk).view(bool) for edge in edges]
    precision = np.count_nonzero(edges[0] & near[1]) / counts[0]
    recall = np.count_nonzero(edges[1] & near[0]) / counts[1]
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels whose right, lower or lower right neighbour is on the other side of the
    mask's edge.
    """
    edge = np.zeros_like(mask)
    edge[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    edge[:-1] |= mask[:-1] ^ mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return edge


def _disk(radius: int) -> np.ndarray:
    y, x = np.mgrid[-radius:radius + 1, -radius:radius + 1]
    return (x * x + y * y <= radius * radius).astype(np.uint8)
