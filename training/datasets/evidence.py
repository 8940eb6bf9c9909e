"""Motion evidence as training sets hold it: int8 in steps of 6 / 127, and what augmentation does.

Arrays (..., C, H, W), C = 8 planes per gap in the order of `motion.evidence`.
"""

from __future__ import annotations

import numpy as np

from mos_perception.motion.evidence import HORIZONTAL, PER_GAP, VERTICAL, mirrored

STEP = 6 / 127


def quantised(planes: np.ndarray) -> np.ndarray:
    """int8 of float planes in [-6, 6]."""
    return np.rint(planes / STEP).astype(np.int8)


def flipped(planes: np.ndarray, axis: int) -> np.ndarray:
    """(C, H, W) int8 mirrored top to bottom (0) or left to right (1): flow turns round with it."""
    planes = np.flip(planes, 1 + axis).copy()
    for channel in VERTICAL if axis == 0 else HORIZONTAL:
        planes[channel::PER_GAP] *= -1
    return planes


def looking_back(planes: np.ndarray) -> np.ndarray:
    """(C, H, W) as if nothing came after the frame: the gaps after it are those before, turned."""
    before = planes[:len(planes) // 2].reshape(-1, PER_GAP, *planes.shape[1:])
    return np.concatenate([before, mirrored(before)]).reshape(planes.shape)
