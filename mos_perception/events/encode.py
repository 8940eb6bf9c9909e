"""Events -> payload bytes of an EventPacket: for demo bags, tests and benchmarks.

Every payload starts with its own time and row words, so it can be decoded alone. Layouts:
`reference.py`.
"""

from __future__ import annotations

import numpy as np

from mos_perception.datatypes import Events

_CODES = 0, 2, 3, 4, 6, 8
_ADDR_Y, _ADDR_X, _BASE_X, _VECT_12, _TIME_LOW, _TIME_HIGH = (code << 12 for code in _CODES)


def encode_evt3(events: Events, *, until_us: int | None = None, vectors: bool = False) -> bytes:
    """EVT3 words of `events` (t: ns of sensor time, sorted, kept to the microsecond; x, y < 2048).

    `until_us` appends time words that say: the sensor was watched up to then, so that a quiet
    sensor still moves the watermark. `vectors` packs pixels of one row, time and polarity into
    VECT_12 words: events of one microsecond are reordered and equal ones merge. Gaps between events
    must stay under 16 s, where the sensor clock wraps.
    """
    us, y, x, p = _as((events.t // 1000, events.y, events.x, events.p > 0), np.int64)
    if vectors and len(us):
        us, y, x, p, mask = _rows_of_twelve(us, y, x, p)
    columns = [np.where(_changed(us >> 12), _TIME_HIGH | us >> 12 & 0xFFF, -1),
               np.where(_changed(us), _TIME_LOW | us & 0xFFF, -1),
               np.where(_changed(y), _ADDR_Y | y, -1)]
    if vectors and len(us):
        follows = (x[1:] == x[:-1] + 12) & ~(_changed(us) | _changed(y) | _changed(p))[1:]
        starts = np.concatenate([[True], ~follows])
        columns += [np.where(starts, _BASE_X | p << 11 | x, -1), _VECT_12 | mask]
    else:
        columns += [_ADDR_X | p << 11 | x]
    words = np.stack(columns, 1).reshape(-1)
    tail = []
    if until_us is not None:
        tail = [_TIME_HIGH | until_us >> 12 & 0xFFF, _TIME_LOW | until_us & 0xFFF]
    return np.concatenate([words[words >= 0], np.array(tail, np.int64)]).astype('<u2').tobytes()


def encode_mono(events: Events, time_base_ns: int) -> bytes:
    """`mono` words: t - time_base_ns must be within 32 bits (4.29 s); x < 65536, y < 32768."""
    values = (events.t - time_base_ns, events.x, events.y, events.p > 0)
    dt, x, y, p = _as(values, np.uint64)
    words = dt | x << np.uint64(32) | y << np.uint64(48) | p << np.uint64(63)
    return words.astype('<u8').tobytes()


def encode_libcaer(events: Events, time_base_ns: int) -> bytes:
    """`libcaer` words: (t - time_base_ns) in whole microseconds must be within 31 bits."""
    x, y, p = _as((events.x, events.y, events.p > 0), np.uint32)
    words = np.empty((len(events), 2), '<u4')
    words[:, 0] = x << np.uint32(17) | y << np.uint32(2) | p << np.uint32(1)
    words[:, 1] = (events.t - time_base_ns) // 1000
    return words.tobytes()


def encode_libcaer_cmp(events: Events, time_base_ns: int) -> bytes:
    """`libcaer_cmp` words, one ADDR_Y per event.

    (t - time_base_ns) in us must be within 24 bits (16.7 s).
    """
    values = ((events.t - time_base_ns) // 1000, events.x, events.y, events.p > 0)
    us, x, y, p = _as(values, np.int64)
    columns = [np.where(_changed(us >> 12), us >> 12, -1),
               np.where(_changed(us), 1 << 12 | us & 0xFFF, -1),
               np.where(_changed(x), 2 << 12 | x, -1), 3 << 12 | p << 11 | y]
    words = np.stack(columns, 1).reshape(-1)
    return words[words >= 0].astype('<u2').tobytes()


def _as(arrays: tuple[np.ndarray, ...], kind: type) -> list[np.ndarray]:
    return [np.asarray(values).astype(kind) for values in arrays]


def _changed(values: np.ndarray) -> np.ndarray:
    """True where a value differs from the one before; the first always."""
    return np.concatenate([np.ones(min(len(values), 1), bool), values[1:] != values[:-1]])


def _rows_of_twelve(us: np.ndarray, y: np.ndarray, x: np.ndarray,
                    p: np.ndarray) -> tuple[np.ndarray, ...]:
    """Groups of one (time, row, polarity, x // 12): us, y, base x, p and 12-bit mask of each."""
    key = np.stack([us, y, p, x // 12])
    order = np.lexsort(key[::-1])
    key, x = key[:, order], x[order]
    starts = np.flatnonzero(np.concatenate([[True], (key[:, 1:] != key[:, :-1]).any(0)]))
    mask = np.bitwise_or.reduceat(1 << (x - key[3] * 12), starts)
    us, y, p, block = key[:, starts]
    return us, y, block * 12, p, mask
