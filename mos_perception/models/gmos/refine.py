"""Edges of a coarse probability map brought to those of the image: the guided filter.

He, Sun, Tang 2010, "Guided Image Filtering": in every window the map is a linear function of the
image; once per colour, their mean taken. A thing not much larger than the window it would blur
away: that keeps what it has.
"""

from __future__ import annotations

import cv2
import numpy as np

RADIUS = 6 / 224   # of the image's width
EPSILON = 0.01     # variance of the normalised image (std 1) below which nothing is an edge
SMALL = 3.0        # windows of area: a smaller thing loses nothing


def to_image_edges(probability: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(H, W) float32 in about [0, 1], from a map (h, w) and the network's image (3, H, W)."""
    height, width = image.shape[1:]
    coarse = cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR)
    side = 2 * max(1, round(RADIUS * width)) + 1
    colours = np.ascontiguousarray(image.transpose(1, 2, 0))

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, (side, side))

    plane = coarse[..., None]
    centre, level = mean(colours), mean(coarse)[..., None]
    slope = mean(colours * plane) - centre * level
    slope /= mean(colours * colours) - centre * centre + np.float32(EPSILON)
    offset = level - slope * centre
    refined = (mean(slope) * colours + mean(offset)).mean(2)
    return np.where(_small_things(coarse > 0.5, side), np.maximum(coarse, refined), refined)


def _small_things(found: np.ndarray, side: int) -> np.ndarray:
    """(H, W) bool: nearer than a window of `side` px to a small part of a mask, and to no other."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(found.view(np.uint8), connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] < SMALL * side * side
    small[0] = False
    window = np.ones((side, side), np.uint8)
    near, others = (cv2.dilate(mask.view(np.uint8), window) > 0
                    for mask in (small[labels], found & ~small[labels]))
    return near & ~others
