"""What the colours say: a histogram of what moved and one of what stood beside it, learned on the
go from the network's own masks, and their log-odds as a further input of the network.

Motion alone loses an object's parts that rest and its exact outline; its colours are known by then.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

from mos_perception.models.outputs import sigmoid

LIMIT = 3.0        # |log-odds| above it say no more
_BINS = 16         # per channel of RGB
_SIGMA = 0.7       # of the histograms' smoothing, in bins
_MEMORY = 0.97     # of a histogram, kept from answer to answer
_FLOOR = 1e-5      # of a bin's share: colours seen nowhere have log-odds 0
_NEAR = 20 / 224   # of the image's width: background nearer than this to what moves counts in full
_FAR_WEIGHT = 0.1


def colour_bins(image: np.ndarray) -> np.ndarray:
    """(H, W) int64 in [0, 4096): the bin of each pixel of an image (3, H, W) uint8."""
    red, green, blue = (image // (256 // _BINS)).astype(np.int64)
    return (red * _BINS + green) * _BINS + blue


class ColourModel:
    """The two histograms of one camera. `reset` forgets them."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all colours."""
        self._moving = np.zeros(_BINS ** 3)
        self._beside = np.zeros(_BINS ** 3)

    def learn(self, bins: np.ndarray, logits: np.ndarray) -> None:
        """Take the `colour_bins` (H, W) of a frame and its foreground logits (H, W)."""
        moving = sigmoid(2 * logits)  # doubled: sure pixels count
        side = 2 * round(_NEAR * bins.shape[1]) + 1
        near = cv2.blur(moving, (side, side))
        beside = (1 - moving) * np.minimum(1, 10 * near + _FAR_WEIGHT)
        for histogram, weights in ((self._moving, moving), (self._beside, beside)):
            histogram *= _MEMORY
            histogram += np.bincount(bins.ravel(), weights.ravel(), _BINS ** 3)

    def log_odds(self, bins: np.ndarray) -> np.ndarray:
        """(H, W) float32 in [-LIMIT, LIMIT] of the `colour_bins` (H, W); zeros at the start."""
        if not self._moving.any():
            return np.zeros(bins.shape, np.float32)
        shares = [gaussian_filter(histogram.reshape(_BINS, _BINS, _BINS), _SIGMA)
                  for histogram in (self._moving, self._beside)]
        moving, beside = (share / share.sum() + _FLOOR for share in shares)
        odds = np.log(moving / beside).clip(-LIMIT, LIMIT).astype(np.float32)
        return cv2.blur(odds.ravel()[bins], (3, 3))
