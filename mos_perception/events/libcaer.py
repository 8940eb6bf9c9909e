"""`mono`, `libcaer` and `libcaer_cmp` words -> events, compiled. Layouts and rules: `reference.py`.

Each fills `events` (t: ns of sensor time) with those inside width x height and says what it saw.
Every word writes; the place advances if it was an event inside.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from mos_perception.events.arrays import EventArrays


class PacketCounts(NamedTuple):
    """What one packet held: events `kept` inside the sensor of those `found`; -1 for no time."""

    kept: int
    found: int
    bad_words: int
    first_ns: int
    last_ns: int


@numba.njit(nogil=True, cache=True)
def decode_mono(words: np.ndarray, width: int, height: int, time_base: int,
                events: EventArrays) -> PacketCounts:
    """uint64 words; `events` as long as `words`."""
    x, y, p, t = events
    n = 0
    last = np.int64(-1)
    for i in range(len(words)):
        word = words[i]
        u = np.int64((word >> np.uint64(32)) & np.uint64(0xFFFF))
        v = np.int64((word >> np.uint64(48)) & np.uint64(0x7FFF))
        time = time_base + np.int64(word & np.uint64(0xFFFFFFFF))
        x[n], y[n], p[n], t[n] = u, v, word >> np.uint64(63), time
        n += np.int64(u < width) & np.int64(v < height)
        last = max(last, time)
    first = np.int64(-1)
    if len(words):
        first = time_base + np.int64(words[0] & np.uint64(0xFFFFFFFF))
    return PacketCounts(n, len(words), 0, first, last)


@numba.njit(nogil=True, cache=True)
def decode_libcaer(words: np.ndarray, width: int, height: int, time_base: int,
                   events: EventArrays) -> PacketCounts:
    """uint64 words: pixel in the low half, us in the high half; `events` as long as `words`."""
    x, y, p, t = events
    n = 0
    high = previous = np.int64(0)
    last = np.int64(-1)
    for i in range(len(words)):
        word = words[i]
        us = np.int64(word >> np.uint64(32)) & 0x7FFFFFFF
        high += np.int64(us < previous) << 31
        previous = us
        time = time_base + (high + us) * 1000
        u = np.int64((word >> np.uint64(17)) & np.uint64(0x7FFF))
        v = np.int64((word >> np.uint64(2)) & np.uint64(0x7FFF))
        x[n], y[n], p[n], t[n] = u, v, (word >> np.uint64(1)) & np.uint64(1), time
        n += np.int64(u < width) & np.int64(v < height)
        last = time
    first = np.int64(-1)
    if len(words):
        first = time_base + (np.int64(words[0] >> np.uint64(32)) & 0x7FFFFFFF) * 1000
    return PacketCounts(n, len(words), 0, first, last)


@numba.njit(nogil=True, cache=True)
def decode_libcaer_cmp(words: np.ndarray, width: int, height: int, time_base: int,
                       events: EventArrays, state: np.ndarray) -> PacketCounts:
    """uint16 words; `events` 8 x as long + 8.

    `state` int64: column, base row, polarity carry over from packet to packet; time does not.
    """
    x, y, p, t = events
    n = found = bad = 0
    column, base, polarity = state[0], state[1], state[2]
    high = low = np.int64(0)
    first = last = np.int64(-1)
    base_us = time_base // 1000
    for i in range(len(words)):
        word = np.int64(words[i])
        code, value = word >> 12, word & 0x7FF
        now = (base_us + high + low) * 1000
        if code == 2:
            column = value
        elif code == 3 or code == 5:
            mask = word & 0xFF if code == 5 else np.int64(1)
            row, brighter = (base, polarity) if code == 5 else (value, (word >> 11) & 1)
            for k in range(8):
                hit = (mask >> k) & 1
                x[n], y[n], p[n], t[n] = column, row + k, brighter, now
                n += hit & np.int64(column < width) & np.int64(row + k < height)
                found += hit
            base += 8 if code == 5 else 0
            first, last = now if first < 0 else first, now
        elif code == 1:
            low = word & 0xFFF
            last = (base_us + high + low) * 1000
            first = last if first < 0 else first
        elif code == 0:
            high = (word & 0xFFF) << 12
        elif code == 4:
            base, polarity = value, (word >> 11) & 1
        else:
            bad += 1
    state[0], state[1], state[2] = column, base, polarity
    return PacketCounts(n, found, bad, first, last)
