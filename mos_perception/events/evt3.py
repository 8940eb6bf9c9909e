"""EVT3 words -> events, compiled. Layout and rules: `reference.py`, equal word for word.

The common words (row, event, low time, repeated high time) take no branch: each writes the event it
might be at the next free place, which advances only if it was one. Vectors write all pixels and
advance by the bits. Everything is uint64: signed indices would make numba test each one for
Python's counting from the end.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from mos_perception.events.arrays import EventArrays

U = np.uint64
SLACK = 12  # a vector writes this far beyond the last event
# What carries over between packets. READY: 0 nothing, 1 TIME_HIGH seen, 2 and TIME_LOW after it:
# times are valid.
HIGH, LOW, WRAPS, READY, ROW, BASE, POLARITY = range(7)
STATE_SIZE = 7
_US = 1000  # ns


class FoundTime(NamedTuple):
    """`consumed` words, `bad_words` unknown among them, up to the first valid time or -1."""

    consumed: int
    bad_words: int
    time_ns: int


class Evt3Counts(NamedTuple):
    """Events `kept` inside the sensor, unknown words, the last time that a TIME_LOW completed."""

    kept: int
    bad_words: int
    last_ns: int


@numba.njit(nogil=True, cache=True)
def count_evt3(words: np.ndarray) -> int:
    """How many events the words hold, inside the sensor or not."""
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


@numba.njit(nogil=True, cache=True)
def now_ns(state: np.ndarray) -> int:
    """Sensor time of the state."""
    return ((state[WRAPS] << 24) + (state[HIGH] << 12) + state[LOW]) * _US


@numba.njit(nogil=True, cache=True)
def seek_time(words: np.ndarray, state: np.ndarray) -> FoundTime:
    """Apply words to `state` up to and with the first TIME_LOW that makes a valid time.

    Until times are valid nothing is an event.
    """
    bad = 0
    for i in range(len(words)):
        word = np.int64(words[i])
        code = word >> 12
        if code == 0:
            state[ROW] = word & 0x7FF
        elif code == 3:
            state[BASE], state[POLARITY] = word & 0x7FF, (word >> 11) & 1
        elif code == 4 or code == 5:
            state[BASE] += 12 if code == 4 else 8
        elif code == 8:
            _time_high(word & 0xFFF, state)
        elif code == 6 and state[READY] > 0:
            state[LOW], state[READY] = word & 0xFFF, 2
            return FoundTime(i + 1, bad, now_ns(state))
        elif code == 1 or code == 9 or code == 11 or code == 12 or code == 13:
            bad += 1
    return FoundTime(len(words), bad, -1)


@numba.njit(nogil=True, cache=True)
def decode_evt3(words: np.ndarray, columns: int, rows: int, state: np.ndarray,
                events: EventArrays) -> Evt3Counts:
    """Fill `events` (t: uint64 ns of sensor time), count_evt3 + SLACK long; `state` must be ready.

    Events outside of rows x columns are left out.
    """
    x, y, p, t = events
    n, width, height = U(0), U(columns), U(rows)
    bad = 0
    row, base, polarity = U(state[ROW]), U(state[BASE]), U(state[POLARITY])
    high_word, now = U(0x8000) | U(state[HIGH]), U(now_ns(state))
    high = now - U(state[LOW]) * U(_US)
    last = mixed = U(0)  # mixed: a new TIME_HIGH with the TIME_LOW from before it
    limit = width if row < height else U(0)
    for i in range(len(words)):
        word = U(words[i])
        code = word >> U(12)
        if code == U(0) or code == U(2) or code == U(6) or word == high_word:
            value = word & U(0x7FF)
            x[n] = value
            y[n] = row
            p[n] = (word >> U(11)) & U(1)
            t[n] = now
            n += U(((word ^ U(0x2000)) & U(0xF7FF)) < limit)
            row ^= (row ^ value) & (U(0) - U(code == U(0)))
            limit = width & (U(0) - U(row < height))
            now ^= (now ^ (high + (word & U(0xFFF)) * U(_US))) & (U(0) - U(code == U(6)))
        elif code == U(4) or code == U(5):
            size = U(12) if code == U(4) else U(8)
            bits = word & ((U(1) << size) - U(1))
            if base + size > limit:  # the pixels beyond the edge; limit 0: the whole row
                bits &= (U(1) << (limit - base)) - U(1) if base < limit else U(0)
            for k in range(12):
                y[n + U(k)] = row
                p[n + U(k)] = polarity
                t[n + U(k)] = now
            for k in range(12):
                x[n] = base + U(k)
                n += (bits >> U(k)) & U(1)
            base += size
        elif code == U(3):
            base, polarity = word & U(0x7FF), (word >> U(11)) & U(1)
        elif code == U(8):
            last = last if now == mixed else now
            low = now - high
            _time_high(np.int64(word & U(0xFFF)), state)
            high_word, high = word, U(now_ns(state) - state[LOW] * _US)
            mixed = now = high + low
        elif code == U(1) or code == U(9) or code == U(11) or code == U(12) or code == U(13):
            bad += 1
    state[LOW] = (now - high) // U(_US)
    state[ROW], state[BASE], state[POLARITY] = row, base, polarity
    return Evt3Counts(np.int64(n), bad, np.int64(last if now == mixed else now))
