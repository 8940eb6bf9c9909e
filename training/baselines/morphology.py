"""From "something moves at these pixels" to masks; shared by all baselines. H W pixels."""

from __future__ import annotations

import cv2
import numpy as np


def components(moving: np.ndarray, min_area: float) -> np.ndarray:
    """(N, H, W) bool: the 4-connected parts of `moving` (H, W), largest first.

    Only those that hold the share `min_area` of the image or more.
    """
    count, labels = cv2.connectedComponents(moving.astype(np.uint8), connectivity=4)
    areas = np.bincount(labels.ravel(), minlength=count)
    largest_first = np.argsort(-areas, kind='stable')
    kept = [n for n in largest_first if n and areas[n] >= min_area * labels.size]
    return labels[None] == np.array(kept, labels.dtype)[:, None, None]


def open_and_close(moving: np.ndarray, opening: int, closing: int) -> np.ndarray:
    """(H, W) uint8: specks removed, then gaps closed; kernels in px at 160 px width, 0 = not."""
    moving = moving.astype(np.uint8)
    for operation, size in ((cv2.MORPH_OPEN, opening), (cv2.MORPH_CLOSE, closing)):
        if size:
            width = round(size * moving.shape[1] / 160) | 1
            kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
            moving = cv2.morphologyEx(moving, operation, kernel)
    return moving


def fill_holes(moving: np.ndarray) -> np.ndarray:
    """(H, W) uint8: the same with its holes filled."""
    contours, _ = cv2.findContours(moving, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(moving), contours, -1, 1, cv2.FILLED)
