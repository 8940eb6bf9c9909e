"""Adding events into a Q16 grid: the compiled loops behind `voxel.py`.

Fixed point makes the sum independent of order, so threads and devices agree to the last bit.
Time position of an event: `q = ((t - t0) * m) >> shift`, `m = ceil((k << (16 + shift)) / span)`:
that is `k * (t - t0) / span` in Q16, at most 2^-16 too high and exact at both edges.

Two loops give the same grid. `_direct` takes any order of events. `_dense` needs sorted times: it
sums one run of events between two planes into a scratch image that holds both planes' shares of a
pixel in one int32, then writes a plane from the images of the runs on both its sides: a fraction of
the memory traffic, and runs of planes go to different threads.
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
U = np.uint64
BLOCK = 256  # events
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


class Runs(NamedTuple):
    """Events `starts[b]:starts[b + 1]` go to plane b: `times[b] <= t < times[b] + lengths[b]`."""

    starts: np.ndarray    # (bins + 1,) int64
    times: np.ndarray     # (bins,) int64 ns
    lengths: np.ndarray   # (bins,) int64 ns


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

    def runs(self, t: np.ndarray) -> Runs | None:
        """The run of each plane in sorted times (E,) ns; None where they show not to be sorted."""
        inner = (-(-(plane << (16 + self.shift)) // self.m) for plane in range(1, self.bins))
        edges = np.array([self.low, *inner, self.span + 1], np.int64)
        times, last = self.t0 + edges[:-1], self.t0 + self.span
        starts = np.append(t.searchsorted(times), t.searchsorted(last, 'right'))
        before, after = t[:starts[0]], t[starts[-1]:]
        if (np.diff(starts) < 0).any() or (before >= times[0]).any() or (after <= last).any():
            return None
        return Runs(starts, times, np.diff(edges))

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
def _second(pixel):
    """What the events of a scratch pixel give to the plane after their run."""
    return np.int32(np.int32(pixel + np.int32(128)) >> np.int32(8))


@numba.njit(nogil=True, cache=True)
def _first(pixel):
    """What they give to the plane before it."""
    return np.int32(np.int32(np.int8(pixel)) * np.int32(65536) - _second(pixel))


@numba.njit(nogil=True, cache=True)
def _unpack(before, after, plane):
    """Write a plane from the scratch images of the runs before (cleared) and after it."""
    for c in range(len(plane)):
        plane[c] = np.int32(_second(before[c]) + _first(after[c]))
        before[c] = 0


@numba.njit(nogil=True, cache=True)
def _add(grid, cell, amount):
    """Returns the magnitude written, as `_direct`."""
    value = grid[cell] + np.int64(amount)
    grid[cell] = value
    return value ^ (value >> 63)


@numba.njit(nogil=True, cache=True)
def _add_run(scratch, events, plane, runs, rule, full, count):
    """Add a run to its scratch image (images * area,): events (signed) in bits 0..7, shares above.

    Cells and shares of a block come first, without a wait for the image that is larger than the
    cache. A pixel that could overflow moves to `full`, (cell, pixel) each. Returns `count` of them
    after this, or -1 where a time is outside the run: the events are not sorted.
    """
    x, y, p, t = events
    columns, rows, signed = rule.columns, rule.rows, rule.dark_sign < 0
    width, height, dark_cell = U(len(columns)), U(len(rows)), 0 if signed else rule.area
    start, length = runs.times[plane], U(runs.lengths[plane])
    # The share: bits shift..shift + 15 of (t - t0) * m, at the top of 64; what is above falls.
    m = U(rule.m) << U(48 - rule.shift) if rule.mask else U(0)
    offset = U(start - rule.t0) * m
    cells, pixels = np.empty(BLOCK, np.uint32), np.empty(BLOCK, np.int32)
    first, last = U(runs.starts[plane]), U(runs.starts[plane + 1])
    while first < last:
        end, found = min(first + U(BLOCK), last), U(0)
        for i in range(first, end):
            dt, u, v = U(t[i] - start), U(x[i]), U(y[i])
            if dt >= length:
                return -1
            if u >= width or v >= height:
                continue
            dark = p[i] == 0
            pixel = np.int64((dt * m + offset) >> U(48) << U(8) | U(1))
            pixels[found] = -pixel if dark and signed else pixel
            cells[found] = rows[v] + columns[u] + (dark_cell if dark else 0)
            found += U(1)
        for k in range(found):
            cell = U(cells[k])
            pixel = scratch[cell] + pixels[k]
            scratch[cell] = pixel
            if (pixel + 0x40000040) & 0x80000080:  # beyond 64 events or 64 * 65536 of shares
                full[count, 0], full[count, 1], scratch[cell] = np.int64(cell), pixel, 0
                count += 1
        first = end
    return count


@numba.njit(nogil=True, cache=True)
def _dense(grid, events, runs, plane_from, plane_to, rule):
    """Write planes `plane_from <= plane < plane_to` from sorted events.

    Returns magnitudes as `_direct`, or -1 where the events are not sorted.
    """
    area, dark_offset = rule.area, rule.dark_offset
    images = 1 if dark_offset == 0 else 2
    scratch = np.zeros((2, images * area), np.int32)  # of the runs before and after a plane
    lead = max(plane_from - 1, 0) if rule.mask else plane_from
    # It takes 64 events to fill a pixel.
    full = np.empty((max(runs.starts[plane_to] - runs.starts[lead], 0) // 64 + 1, 2), np.int64)
    count = first = last = 0  # of full pixels: all, up to our first plane, up to our last
    for plane in range(lead, plane_to):
        before, after, last = scratch[(plane + 1) & 1], scratch[plane & 1], count
        count = _add_run(after, events, plane, runs, rule, full, count)
        if count < 0:
            return np.int64(-1)
        for k in range(last, count):
            full[k, 0] += plane * area + (dark_offset - area if full[k, 0] >= area else 0)
        if plane < plane_from:
            first = count
            continue
        for image in range(images):
            at, cells = plane * area + image * dark_offset, slice(image * area, (image + 1) * area)
            _unpack(before[cells], after[cells], grid[at:at + area])
    written = np.int64(0)
    for k in range(first, count):
        written |= _add(grid, full[k, 0], _first(full[k, 1]))
    for k in range(last):
        written |= _add(grid, full[k, 0] + area, _second(full[k, 1]))
    return written


def time_scale(k: int, span: int) -> tuple[int, int]:
    """(m, shift) of the module's formula; `span * m` is below 2^62 for any window under an hour."""
    shift = 45 - max(k, 1).bit_length()
    return -(-(k << (16 + shift)) // span), shift


def scatter(events: Events, rule: ScatterRule, layout: VoxelLayout, threads: int) -> np.ndarray:
    """Sum the events that `rule` lets in into a flat Q16 grid (cells,).

    int32; int64 where a sum does not fit. Neither the order of `events` nor `threads` changes it.
    """
    arrays = EventArrays.of(events)
    # `_dense` passes over every cell.
    runs = rule.runs(arrays.t) if 8 * len(events) > layout.cells else None
    if runs is not None:
        grid = np.empty(layout.cells, np.int32)

        def write_planes(first: int, last: int) -> int:
            return _dense(grid, arrays, runs, first, last, rule)

        groups = threads if len(events) >= PARALLEL_FROM else 1
        if all(0 <= written < 1 << 30 for written in in_threads(write_planes, layout.bins, groups)):
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
