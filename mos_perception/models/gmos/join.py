"""Instances that are one object: a network's queries share out what moves by place, and large or
half covered objects come in parts.

Parts lie near each other and move alike. Legend: N instances, G gaps in time, h w of the evidence.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from scipy.sparse.csgraph import connected_components

from mos_perception.datatypes import Instances
from mos_perception.masks import mask_boxes
from mos_perception.motion.evidence import residual_px

SPARSE = 2          # every second pixel of the evidence is looked at
NEAR = 3            # of those between two parts, at most
LEAST = 3           # of those in a part: of fewer no motion is known
LEAST_PX = 1.0      # that something goes over a gap: slower things are all alike
ALIKE_PX, ALIKE = 0.1, 0.2  # px, and share of the way, by which two motions may differ
GAPS = 2            # in which they must be alike: the others may look past a start, or a cover


def joined(instances: Instances, evidence: np.ndarray) -> Instances:
    """The instances, parts of one object as one, which has the rest from its largest part.

    `evidence` (G * 8, h, w) of their frame, as `motion.evidence` makes it.
    """
    if len(instances) < 2:
        return instances
    seen = evidence[:, ::SPARSE, ::SPARSE]
    parts = _sampled(instances.masks, seen.shape[1:])
    together = _near(parts) & _alike(_motions(parts, residual_px(seen)))
    count, objects = connected_components(together, directed=False)
    if count == len(instances):
        return instances
    areas = instances.masks.sum((1, 2))
    largest = np.array([max(np.flatnonzero(objects == one), key=lambda row: areas[row])
                        for one in range(count)])
    order = np.sort(largest)  # best first, as they were
    masks = np.stack([instances.masks[objects == objects[row]].any(0) for row in order])
    return replace(instances.of(order), masks=masks, boxes=mask_boxes(masks))


def _sampled(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N, h, w) bool: the nearest pixels of (N, H, W)."""
    rows, columns = ((np.arange(few) * many // few) for few, many in zip(size, masks.shape[1:]))
    return masks[:, rows[:, None], columns]


def _motions(parts: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """(N, G, 2) px: how each of (N, h, w) goes against the camera over each gap, by the median;
    NaN where it is too small to tell.
    """
    found = np.full((len(parts), *residual.shape[:2]), np.nan, np.float32)
    for row, part in enumerate(parts):
        if np.count_nonzero(part) >= LEAST:
            found[row] = np.median(residual[:, :, part], 2)
    return found


def _alike(motions: np.ndarray) -> np.ndarray:
    """(N, N) bool of (N, G, 2)."""
    ways = np.linalg.norm(motions, axis=2)
    longer = np.maximum(ways[:, None], ways)
    apart = np.linalg.norm(motions[:, None] - motions, axis=3)
    alike = (longer >= LEAST_PX) & (apart <= ALIKE_PX + ALIKE * longer)
    return np.count_nonzero(alike & ~_repeated(motions), 2) >= GAPS


def _repeated(motions: np.ndarray) -> np.ndarray:
    """(G,) bool of (N, G, 2): the gap is its opposite turned round, as where there is no frame."""
    before, after = np.split(motions, 2, 1)
    turned = ((before == -after) | np.isnan(before)).all((0, 2))
    return np.concatenate([np.zeros_like(turned), turned])


def _near(parts: np.ndarray) -> np.ndarray:
    """(N, N) bool of (N, h, w)."""
    around = np.ones((2 * NEAR + 1, 2 * NEAR + 1), np.uint8)
    wide = np.array([cv2.dilate(part.view(np.uint8), around) for part in parts], bool)
    return np.einsum('ap,bp->ab', wide.reshape(len(parts), -1), parts.reshape(len(parts), -1))
