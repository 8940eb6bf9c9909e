"""What a grid says about each pixel's events as a whole: how many they are, and when they came.

Once the scene's motion is taken out, a static edge's events have the mean time of the window's
middle; those of what moves by itself show a gradient of it (Mitrokhin et al., 1803.04523).
"""

from __future__ import annotations

import numba
import numpy as np

MIN_EVENTS = 2  # below, a mean time says nothing


def time_features(grid: np.ndarray, norm_floor: float) -> np.ndarray:
    """(2, H, W) float32 of a `dimos` Q16 grid (2B, H, W), B >= 2: count and mean time.

    Count c of a pixel as c / (c + norm_floor), in [0, 1). Mean time in [-1, 1], from the window's
    begin to its end, 0 where c < MIN_EVENTS. Both come from the planes' sums, exactly: a split
    between two planes keeps an event's time.
    """
    out = np.empty((2, *grid.shape[1:]), np.float32)
    _count_and_mean_time(grid.reshape(len(grid), -1), np.float32(norm_floor * 65536),
                         out.reshape(2, -1))
    return out


@numba.njit(nogil=True, cache=True)
def _count_and_mean_time(grid, floor, out):
    bins = len(grid) // 2
    for cell in range(grid.shape[1]):
        events = moment = np.int64(0)  # of t* - middle, in half planes
        for plane in range(bins):
            both = np.int64(grid[plane, cell]) + np.int64(grid[bins + plane, cell])
            events += both
            moment += both * (2 * plane - (bins - 1))
        count = np.float32(events)
        out[0, cell] = count / (count + floor)
        mean = np.float32(moment) / np.float32(max(events, 1) * (bins - 1))
        out[1, cell] = mean if events >= MIN_EVENTS * 65536 else np.float32(0)
