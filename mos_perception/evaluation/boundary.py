"""Region and boundary scores of a mask: J and F of DAVIS (Perazzi et al. 2016;
davisvideochallenge/davis2017-evaluation).

Masks (H, W) bool. `void` pixels count for neither side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from mos_perception.masks import iou

TOLERANCE = 0.008  # of the image's diagonal


def region_j(found: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None) -> float:
    """Intersection over union; 1 where both are empty."""
    if void is not None:
        found, truth = found & ~void, truth & ~void
    share = iou(found, truth)
    return 1.0 if share is None else share


def boundary_f(found: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None,
               tolerance: float = TOLERANCE) -> float:
    """F measure of the boundaries' precision and recall within ceil(`tolerance` x diagonal) px; 1
    where both are empty.
    """
    if void is not None:
        found, truth = found & ~void, truth & ~void
    return outlines_f(Outline.of(found, tolerance), Outline.of(truth, tolerance))


@dataclass(frozen=True)
class Outline:
    """A mask's boundary (H, W) bool, how many pixels it has, and what lies within the tolerance."""

    edge: np.ndarray
    count: int
    near: np.ndarray

    @staticmethod
    def of(mask: np.ndarray, tolerance: float = TOLERANCE) -> Outline:
        """The outline of an (H, W) bool mask; `tolerance` as in `boundary_f`."""
        edge = boundary(mask)
        reach = math.ceil(tolerance * math.hypot(*mask.shape))
        near = cv2.dilate(edge.view(np.uint8), _disk(reach)).view(bool)
        return Outline(edge, int(np.count_nonzero(edge)), near)


def outlines_f(found: Outline, truth: Outline) -> float:
    """F of two outlines of one tolerance, void pixels taken out of both; 1 where both are empty."""
    if not found.count or not truth.count:
        return float(found.count == truth.count)
    precision = np.count_nonzero(found.edge & truth.near) / found.count
    recall = np.count_nonzero(truth.edge & found.near) / truth.count
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
