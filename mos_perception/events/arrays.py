"""The arrays that the compiled loops read and fill, by name: numba takes a named tuple as it is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mos_perception.datatypes import Events


class EventArrays(NamedTuple):
    """Events as parallel arrays (E,): x, y uint16 px, p uint8, t int64 ns."""

    x: np.ndarray
    y: np.ndarray
    p: np.ndarray
    t: np.ndarray

    @staticmethod
    def allocate(count: int) -> EventArrays:
        """Uninitialised room for `count` events."""
        return EventArrays(
            np.empty(count, np.uint16), np.empty(count, np.uint16), np.empty(count, np.uint8),
            np.empty(count, np.int64))

    @staticmethod
    def of(events: Events) -> EventArrays:
        """Views (copies if need be) of the one array type that the loops are compiled for."""
        return EventArrays(
            read_only(events.x, np.uint16), read_only(events.y, np.uint16),
            read_only(events.p, np.uint8), read_only(events.t, np.int64))

    def first(self, count: int) -> EventArrays:
        """The first `count` events; a copy if much of the room would stay unused."""
        if len(self.t) - count <= 64:
            return EventArrays(*(values[:count] for values in self))
        return EventArrays(*(values[:count].copy() for values in self))


def read_only(values: np.ndarray, kind: type) -> np.ndarray:
    """`values` as an aligned, contiguous, read-only array of `kind`."""
    view = np.require(values, kind, 'AC').view()
    view.flags.writeable = False
    return view
