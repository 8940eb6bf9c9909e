"""Event packets at more events per second than any sensor sends, cheap to make."""

from __future__ import annotations

import numpy as np

VECTORS = 9                        # of 12 events each, in every microsecond
EVENTS_PER_US = 12 * VECTORS       # 108 Mev/s
COLUMNS = EVENTS_PER_US            # the narrowest sensor that holds them


def flood_payload(start_us: int, length_us: int, row: int = 50) -> bytes:
    """EVT3 words: in each microsecond of [start_us, start_us + length_us) a whole row fires.

    `start_us` is sensor time. The sensor must be COLUMNS wide or wider, and have that row.
    """
    us = np.arange(start_us, start_us + length_us)
    words = np.empty((length_us, 4 + VECTORS), '<u2')
    words[:, 0] = 8 << 12 | us >> 12 & 0xFFF
    words[:, 1] = 6 << 12 | us & 0xFFF
    words[:, 2] = row
    words[:, 3] = 3 << 12 | 1 << 11  # from column 0, brighter
    words[:, 4:] = 4 << 12 | 0xFFF
    return words.tobytes()
