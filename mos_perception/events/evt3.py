"""EVT3 words -> events, compiled. Layout and rules: `reference.py`, which this equals word for word.

The common words (row, event, low time) take no branch: every word writes the event it might be at the next free
place, and the place only advances when it was one. Vectors write all their pixels and advance by the bits.
"""

from __future__ import annotations

import numba
import numpy as np

SLACK = 12  # a vector writes this far beyond the last event
# What carries over between packets. READY: 0 nothing, 1 TIME_HIGH seen, 2 TIME_LOW after it: times are valid.
HIGH, LOW, WRAPS, READY, ROW, BASE, POLARITY = range(7)
STATE = 7


@numba.njit(nogil=True, cache=True)
def count_evt3(words):
    """How many events the words can hold at most."""
    total = 0
    for i in range(len(words)):
        word = np.uint32(words[i])
        code = word >> np.uint32(12)
        bits = word & np.uint32(0xFFF if code == 4 else 0xFF)
        bits = bits - ((bits >> np.uint32(1)) & np.uint32(0x555))
        bits = (bits & np.uint32(0x333)) + ((bits >> np.uint32(2)) & np.uint32(0x333))
        bits = (bits + (bits >> np.uint32(4)) + (bits >> np.uint32(8))) & np.uint32(0xF)
        total += np.int64(bits) if (code == 4 or code == 5) else np.int64(code == 2)
    return total


@numba.njit(nogil=True, cache=True)
def _time_high(new, state):
    """Take a TIME_HIGH; a value over 10 smaller is a wrap, a little smaller one bit noise."""
    if state[READY] > 0 and new < state[HIGH] - 10:
        state[WRAPS] += 1
    state[HIGH] = new
    state[READY] = max(state[READY], 1)
    return (state[WRAPS] << 24) + (new << 12)


@numba.njit(nogil=True, cache=True)
def decode_evt3(words, width, height, state, x, y, p, t):
    """Fill x, y, p, t (int64 ns sensor time), each `count_evt3` + SLACK long; updates `state`.

    Returns (events, out of bounds, unknown words, first time word or -1, last time word or -1).
    """
    n = np.int64(0)
    outside = np.int64(0)
    bad = np.int64(0)
    first = last = np.int64(-1)
    row, base, polarity = state[ROW], state[BASE], np.uint8(state[POLARITY])
    high, low = (state[WRAPS] << 24) + (state[HIGH] << 12), state[LOW]
    ready, has_high = np.int64(state[READY] == 2), np.int64(state[READY] > 0)
    now = (high + low) * 1000
    for i in range(len(words)):
        word = np.int64(words[i])
        code = word >> 12
        if (0b1000101 >> code) & 1:  # ADDR_Y, ADDR_X, TIME_LOW: no branch between them
            value = word & 0x7FF
            event = np.int64(code == 2) & ready
            inside = np.int64(value < width) & np.int64(row < height)
            x[n] = value
            y[n] = row
            p[n] = (word >> 11) & 1
            t[n] = now
            n += event & inside
            outside += event & (inside ^ 1)
            row = value if code == 0 else row
            is_time = np.int64(code == 6)
            low = word & 0xFFF if code == 6 else low
            now = (high + low) * 1000
            ready |= is_time & has_high
            last = now if is_time & has_high else last
            first = last if first < 0 else first
        elif code == 4 or code == 5:  # VECT_12, VECT_8
            size = 12 if code == 4 else 8
            mask = word & ((1 << size) - 1)
            if base + 12 <= width and row < height and ready:
                for k in range(12):
                    y[n + k] = row
                    p[n + k] = polarity
                    t[n + k] = now
                for k in range(12):
                    x[n] = base + k
                    n += (mask >> k) & 1
            elif ready:
                for k in range(size):
                    if (mask >> k) & 1:
                        if base + k < width and row < height:
                            x[n], y[n], p[n], t[n] = base + k, row, polarity, now
                            n += 1
                        else:
                            outside += 1
            base += size
        elif code == 3:  # VECT_BASE_X
            base, polarity = word & 0x7FF, np.uint8((word >> 11) & 1)
        elif code == 8:
            high = _time_high(word & 0xFFF, state)
            has_high = 1
            now = (high + low) * 1000
        elif code == 1 or code == 9 or code == 11 or code == 12 or code == 13:
            bad += 1
    state[READY] = has_high + ready
    state[LOW], state[ROW], state[BASE], state[POLARITY] = low, row, base, polarity
    return n, outside, bad, first, last
