"""Edges of a coarse probability map brought to those of the image: the guided filter.

He, Sun, Tang 2010, "Guided Image Filtering": in every window the map is a linear function of the
image; once per colour, their mean taken.
"""

from __future__ import annotations

import cv2
import numpy as np

RADIUS = 6 / 224   # of the image's width
EPSILON = 0.01     # variance of the normalised image (std 1) below which nothing is an edge


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
    return (mean(slope) * colours + mean(offset)).mean(2)
