"""EVT3 words -> events, compiled. Layout and rules: `reference.py`, equal word for word.

The common words (row, event, low time) take no branch: each writes the event it might be at the
next free place, which advances only if it was one. Vectors write all pixels, the set ones first,
and advance by their number. Everything is uint64: signed indices would make numba test each one for
Python's counting from the end.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from mos_perception.events.arrays import EventArrays

U, H = np.uint64, np.uint16
SLACK = 12  # a vector writes this far beyond the last event
# What carries over between packets. READY: 0 nothing, 1 TIME_HIGH seen, 2 and TIME_LOW after it:
# times are valid.
HIGH, LOW, WRAPS, READY, ROW, BASE, POLARITY = range(7)
STATE_SIZE = 7
_US = 1000  # ns
_BITS = np.arange(256)[:, None] >> np.arange(8) & 1
WORDS_OF_A_CODE = U(0x1000)  # a wider sensor's limit would let other words pass for events
_COMMON = U(1 << 0 | 1 << 2 | 1 << 6)  # codes of the common words
COUNTS = _BITS.sum(1).astype(np.uint8)  # (256,) set bits of a byte
PLACES = np.argsort(-_BITS, axis=1, kind='stable').astype(np.uint16)  # (256, 8) these bits first


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
    for first in range(0, len(words), 4096):  # sums below 2^16: 16-bit lanes
        some = H(0)
        for i in range(first, min(first + 4096, len(words))):
            code = words[i] >> H(12)
            bits = words[i] & H(0xFFF if code == 4 else 0xFF if code == 5 else 0)
            bits = H(bits - ((bits >> H(1)) & H(0x555)))
            bits = H((bits & H(0x333)) + ((bits >> H(2)) & H(0x333)))
            bits = (bits + (bits >> H(4)) + (bits >> H(8))) & H(0xF)
            some = H(some + bits + H(code == 2))
        total += np.int64(some)
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
    """Fill `events` (t: ns of sensor time), count_evt3 + SLACK long; `state` must be ready.

    Events outside of rows x columns are left out.
    """
    x, y, p, t = events.x, events.y, events.p, events.t.view(U)
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
        if (_COMMON >> code) & U(1):
            value = word & U(0x7FF)
            x[n] = value
            y[n] = row
            p[n] = (word >> U(11)) & U(1)
            t[n] = now
            n += U(((word ^ U(0x2000)) & U(0xF7FF)) < min(limit, WORDS_OF_A_CODE))
            row ^= (row ^ value) & (U(0) - U(code == U(0)))
            limit = width & (U(0) - U(row < height))
            now ^= (now ^ (high + (word & U(0xFFF)) * U(_US))) & (U(0) - U(code == U(6)))
        elif code == U(4) or code == U(5):
            size = U(12) if code == U(4) else U(8)
            bits = word & ((U(1) << size) - U(1))
            if base + size > limit:  # the pixels beyond the edge; limit 0: the whole row
                bits &= (U(1) << (limit - base)) - U(1) if base < limit else U(0)
            for k in range(12):  # one array at a time: these become wide stores
                y[n + U(k)] = row
            for k in range(12):
                p[n + U(k)] = polarity
            for k in range(12):
                t[n + U(k)] = now
            for k in range(8):
                x[n + U(k)] = base + U(PLACES[bits & U(0xFF), k])
            n += U(COUNTS[bits & U(0xFF)])
            for k in range(4):
                x[n + U(k)] = base + U(8) + U(PLACES[bits >> U(8), k])
            n += U(COUNTS[bits >> U(8)])
            base += size
        elif code == U(3):
            base, polarity = word & U(0x7FF), (word >> U(11)) & U(1)
        elif code == U(8) and word != high_word:
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
