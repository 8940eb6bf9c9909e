"""Seconds and nanoseconds of a clip: its first frame is taken at second 0, which is
`FIRST_STAMP_NS`."""

from __future__ import annotations

import numpy as np

FIRST_STAMP_NS = 1_000_000_000


def to_ns(seconds: float) -> int:
    """A length of time, s, in ns: rounded."""
    return round(seconds * 1e9)


def all_to_ns(seconds: np.ndarray) -> np.ndarray:
    """Lengths of time (T,), s, in ns: rounded, int64."""
    return np.round(seconds * 1e9).astype(np.int64)


def whole_ns(seconds: float) -> int:
    """A length of time, s, in whole ns: rounded down."""
    return int(seconds * 1e9)


def to_s(length_ns: int | np.ndarray) -> float | np.ndarray:
    """A length of time, ns, in s."""
    return length_ns * 1e-9


def stamps_ns(offsets_s: np.ndarray) -> np.ndarray:
    """(T,) int64 stamps of what happens `offsets_s` (T,) s after the first frame."""
    return FIRST_STAMP_NS + all_to_ns(offsets_s)


def offsets_s(stamps: np.ndarray) -> np.ndarray:
    """(T,) s after the first frame, of `stamps` (T,) ns."""
    return to_s(stamps - FIRST_STAMP_NS)
