"""Adding events into a Q16 grid: the compiled loops behind `voxel.py`.

Fixed point makes the sum independent of order, so threads and devices agree to the last bit.
Time position of an event: `q = ((t - t0) * m) >> shift`, `m = ceil((k << (16 + shift)) / span)`:
that is `k * (t - t0) / span` in Q16, at most 2^-16 too high and exact at both edges.

Two loops give the same grid. `_direct` takes any order of events. `_dense` needs sorted times: it
sums one run of events between two planes into a scratch image that holds both planes' shares of a
pixel in one int32, then unpacks it: a fraction of the memory traffic, and runs of planes go to
different threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numba
import numpy as np

from mos_perception.datatypes import Events
from mos_perception.events.arrays import EventArrays

PARALLEL_FROM = 500_000  # events (3 ms); below, a busy second core costs more than it saves
Result = TypeVar('Result')
_HELPERS = ThreadPoolExecutor(thread_name_prefix='voxel')  # starts no thread before it is used


@dataclass(frozen=True)
class VoxelLayout:
    """Where events go. `columns` (W,) and `rows` (H,) int32: cell = rows[y] + columns[x] < `area`.

    `nearest`: the whole event to plane floor(q); else split between floor(q) and the next.
    `signed`: darker events count -1 in the same planes; else +1 in `bins` planes of their own.
    """

    columns: np.ndarray
    rows: np.ndarray
    area: int
    bins: int
    nearest: bool
    signed: bool

    @property
    def cells(self) -> int:
        """Cells of the grid."""
        return self.area * self.bins * (1 if self.signed else 2)


class ScatterRule(NamedTuple):
    """What the loops do to one event; the fields of `VoxelWindow` in `voxel.h`."""

    t0: int               # ns
    low: int              # first t - t0 that counts: 1, or 0 for a closed window
    span: int             # ns
    m: int                # time_scale
    shift: int
    columns: np.ndarray   # (W,) int32
    rows: np.ndarray      # (H,) int32
    area: int             # cells of a plane
    bins: int             # planes of one polarity
    mask: int             # 0xFFFF splits an event between two planes, 0 puts it whole into one
    dark_offset: int      # cells from brighter to darker planes
    dark_sign: int        # -1 or +1

    @staticmethod
    def of(layout: VoxelLayout, t0_ns: int, span_ns: int, closed: bool) -> ScatterRule:
        """The rule for the window (t0, t0 + span] (`closed`: [t0, t0 + span])."""
        m, shift = time_scale(layout.bins if layout.nearest else layout.bins - 1, span_ns)
        return ScatterRule(
            t0=t0_ns, low=0 if closed else 1, span=span_ns, m=m, shift=shift,
            columns=layout.columns, rows=layout.rows, area=layout.area, bins=layout.bins,
            mask=0 if layout.nearest else 0xFFFF,
            dark_offset=0 if layout.signed else layout.bins * layout.area,
            dark_sign=-1 if layout.signed else 1)

    def run_starts(self, t: np.ndarray) -> np.ndarray:
        """(bins + 1,) int64: the events of plane b are starts[b]:starts[b + 1] of sorted times."""
        edges = [self.t0 - (-(plane << (16 + self.shift)) // self.m)
                 for plane in range(1, self.bins)]
        inner = np.searchsorted(t, np.array(edges, np.int64))
        return np.array([0, *inner, len(t)], np.int64)


    def planes(self, t: np.ndarray) -> slice:
        """The planes that events at times `t` (E,) ns can add to."""
        if not len(t):
            return slice(0, 0)
        ends = np.array([t.min(), t.max()], np.int64) - self.t0
        first, last = ((int(dt) * self.m >> self.shift) >> 16 for dt in ends.clip(0, self.span))
        return slice(first, last + 2)


@numba.njit(nogil=True, cache=True)
def _direct(grid, events, rule):
    """Any order of events. Returns the OR of all magnitudes written: bit 30 shows before a wrap."""
    x, y, p, t = events
    columns, rows, area, mask = rule.columns, rule.rows, rule.area, rule.mask
    width, height = np.uint64(len(columns)), np.uint64(len(rows))
    written = np.int64(0)
    for i in range(len(t)):
        dt = t[i] - rule.t0
        u, v = np.uint64(x[i]), np.uint64(y[i])
        if dt < rule.low or dt > rule.span or u >= width or v >= height:
            continue
        q = (dt * rule.m) >> rule.shift
        dark = np.int64(p[i] <= 0)
        sign = 1 + dark * (rule.dark_sign - 1)
        pixel = rows[v] + columns[u] + dark * rule.dark_offset
        cell = min(q >> 16, rule.bins - 1) * area + pixel
        share = q & mask
        value = grid[np.uint64(cell)] + (65536 - share) * sign
        grid[np.uint64(cell)] = value
        written |= value ^ (value >> 63)
        if share:
            value = grid[np.uint64(cell + area)] + share * sign
            grid[np.uint64(cell + area)] = value
            written |= value ^ (value >> 63)
    return written


@numba.njit(nogil=True, cache=True)
def _unpack(scratch, left, right):
    """Add a scratch image to the planes on both sides of its run and clear it; as `_direct`."""
    written = np.int32(0)
    for c in range(len(scratch)):
        events = np.int32(np.int8(scratch[c]))
        shares = np.int32(np.int32(scratch[c] - events) >> np.int32(8))
        before = np.int32(left[c] + events * np.int32(65536) - shares)
        after = np.int32(right[c] + shares)
        left[c] = before
        right[c] = after
        scratch[c] = 0
        written |= np.int32(before ^ np.int32(before >> np.int32(31)))
        written |= np.int32(after ^ np.int32(after >> np.int32(31)))
    return np.int64(written)


@numba.njit(nogil=True, cache=True)
def _dense(grid, events, starts, plane_from, plane_to, rule):
    """Add planes `plane_from <= plane < plane_to` from sorted events; `starts`: `run_starts`.

    A scratch pixel: events (signed) in bits 0..7, their second shares above; nearly full, it is
    added at once. Returns (magnitudes as `_direct`, OR of the time steps: negative if not sorted).
    """
    x, y, p, t = events
    columns, rows, area, mask = rule.columns, rule.rows, rule.area, rule.mask
    dark_offset, dark_sign = rule.dark_offset, rule.dark_sign
    width, height = np.uint64(len(columns)), np.uint64(len(rows))
    images = 1 if dark_offset == 0 else 2
    scratch = np.zeros(images * area, np.int32)
    unused = np.zeros(area, np.int32)  # stands in for planes that are not ours
    dark_cell = (images - 1) * area
    steps = np.int64(0)
    written = np.int64(0)
    plane = max(plane_from - 1, 0) if mask else plane_from
    previous = t[max(starts[plane] - 1, 0)]
    while plane < plane_to:
        has_left, has_right = plane >= plane_from, mask != 0 and plane + 1 < plane_to
        for i in range(starts[plane], starts[plane + 1]):
            steps |= t[i] - previous
            previous = t[i]
            dt = t[i] - rule.t0
            u, v = np.uint64(x[i]), np.uint64(y[i])
            if dt < rule.low or dt > rule.span or u >= width or v >= height:
                continue
            dark = np.int64(p[i] <= 0)
            cell = rows[v] + columns[u] + dark * dark_cell
            share = ((dt * rule.m) >> rule.shift) & mask
            vote = (1 + (share << 8)) * (1 + dark * (dark_sign - 1))
            value = scratch[np.uint64(cell)] + vote
            scratch[np.uint64(cell)] = value
            if ((value + 64) & 0xFF) >= 128 or abs(value) >= 1 << 30:
                at = cell + dark * (dark_offset - dark_cell) + plane * area
                left = grid[at:at + 1] if has_left else unused[:1]
                right = grid[at + area:at + area + 1] if has_right else unused[:1]
                written |= _unpack(scratch[cell:cell + 1], left, right)
        for image in range(images):
            at = image * dark_offset + plane * area
            left = grid[at:at + area] if has_left else unused
            right = grid[at + area:at + 2 * area] if has_right else unused
            written |= _unpack(scratch[image * area:(image + 1) * area], left, right)
        plane += 1
    return written, steps


def time_scale(k: int, span: int) -> tuple[int, int]:
    """(m, shift) of the module's formula; `span * m` is below 2^62 for any window under an hour."""
    shift = 45 - max(k, 1).bit_length()
    return -(-(k << (16 + shift)) // span), shift


def scatter(events: Events, rule: ScatterRule, layout: VoxelLayout, threads: int) -> np.ndarray:
    """Sum the events that `rule` lets in into a flat Q16 grid (cells,).

    int32; int64 where a sum does not fit. Neither the order of `events` nor `threads` changes it.
    """
    arrays = EventArrays.of(events)
    grid = np.zeros(layout.cells, np.int32)
    if 8 * len(events) > layout.cells:  # unpacking passes over every cell
        starts = rule.run_starts(arrays.t)

        def add_planes(first: int, last: int) -> tuple[int, int]:
            return _dense(grid, arrays, starts, first, last, rule)

        groups = threads if len(events) >= PARALLEL_FROM else 1
        results = in_threads(add_planes, layout.bins, groups)
        written, steps = np.bitwise_or.reduce(np.array(results, np.int64), axis=0)
        if steps >= 0 and written < 1 << 30:
            return grid
        grid = np.zeros(layout.cells, np.int32)
    if _direct(grid, arrays, rule) < 1 << 30:
        return grid
    wide = np.zeros(layout.cells, np.int64)
    _direct(wide, arrays, rule)
    narrow = wide.astype(np.int32)
    return narrow if np.array_equal(narrow, wide) else wide


def in_threads(work: Callable[[int, int], Result], count: int, threads: int) -> list[Result]:
    """`work(first, last)` for runs of equal length of `count` things; this thread takes the first.

    A run that no helper has begun when this thread is done is done here: on a busy machine, or in
    a forked child where the helpers do not exist, the result is late but never stuck.
    """
    groups = max(min(threads, count), 1)
    edges = [count * group // groups for group in range(groups + 1)]
    runs = list(zip(edges[:-1], edges[1:]))
    helped = [_HELPERS.submit(work, first, last) for first, last in runs[1:]]
    results = [work(*runs[0])]
    for helper, run in zip(helped, runs[1:]):
        results.append(work(*run) if helper.cancel() else helper.result())
    return results
