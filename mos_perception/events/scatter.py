"""Adding events into a Q16 grid: the compiled loops behind `voxel.py`.

Fixed point makes the sum independent of order, so threads and devices agree to the last bit.
Time position of an event: `q = ((t - t0) * m) >> shift` with `m = ceil((k << (16 + shift)) / span)`,
that is `k * (t - t0) / span` in Q16, at most 2^-16 too high and exact at both edges.

Two loops give the same grid. `_direct` takes any order of events. `_dense` needs sorted times: it sums one
run of events between two planes into a scratch image that holds both planes' shares of a pixel in one
int32, then unpacks it: a fraction of the memory traffic, and runs of planes go to different threads.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np

from mos_perception.datatypes import Events

_PARALLEL_FROM = 500_000  # events (3 ms of work); below it a busy second core costs more than an idle one saves
_HELPERS = ThreadPoolExecutor(thread_name_prefix='voxel')  # starts no thread before it is used


@dataclass(frozen=True)
class Layout:
    """Where events go. `columns` (W,) and `rows` (H,) int32: cell = rows[y] + columns[x] < `area`.

    `nearest`: the whole event to plane floor(q); else split between floor(q) and the next. `signed`: darker events
    count -1 in the same planes; else +1 in `bins` planes of their own.
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


@numba.njit(nogil=True, cache=True)
def _direct(grid, x, y, p, t, t0, low, span, m, shift, columns, rows, area, bins, mask, dark_offset, dark_sign):
    """Any order of events. Returns the OR of all magnitudes written: bit 30 shows before int32 wraps."""
    width, height = np.uint64(len(columns)), np.uint64(len(rows))
    written = np.int64(0)
    for i in range(len(t)):
        dt = t[i] - t0
        u, v = np.uint64(x[i]), np.uint64(y[i])
        if dt < low or dt > span or u >= width or v >= height:
            continue
        q = (dt * m) >> shift
        dark = np.int64(p[i] <= 0)
        sign = 1 + dark * (dark_sign - 1)
        cell = min(q >> 16, bins - 1) * area + rows[v] + columns[u] + dark * dark_offset
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
    """Add a scratch image to the planes on both sides of its run and clear it; returns magnitudes as `_direct`."""
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
def _dense(grid, x, y, p, t, starts, plane_from, plane_to, t0, low, span, m, shift, columns, rows, area, bins, mask,
           dark_offset, dark_sign):
    """Add planes `plane_from <= plane < plane_to` from sorted events; those of plane b are starts[b]:starts[b+1].

    A scratch pixel: events (signed) in bits 0..7, their second shares above; nearly full, it is added at once.
    Returns (magnitudes as in `_direct`, OR of the time steps: negative if not sorted).
    """
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
            dt = t[i] - t0
            u, v = np.uint64(x[i]), np.uint64(y[i])
            if dt < low or dt > span or u >= width or v >= height:
                continue
            dark = np.int64(p[i] <= 0)
            cell = rows[v] + columns[u] + dark * dark_cell
            share = ((dt * m) >> shift) & mask
            value = scratch[np.uint64(cell)] + (1 + (share << 8)) * (1 + dark * (dark_sign - 1))
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
    """(m, shift) of the module's formula; `span * m` stays below 2^62 for any window under an hour."""
    shift = 45 - max(k, 1).bit_length()
    return -(-(k << (16 + shift)) // span), shift


def scatter(events: Events, t0: int, span: int, closed: bool, layout: Layout, threads: int) -> np.ndarray:
    """Sum `events` with `t0 < t <= t0 + span` (`t0 <= t` if `closed`) into a flat Q16 grid (cells,).

    int32; int64 where a sum does not fit. Neither the order of `events` nor `threads` changes the result.
    """
    kinds = {'x': np.uint16, 'y': np.uint16, 'p': np.uint8, 't': np.int64}
    arrays = tuple(_read_only(getattr(events, name), kind) for name, kind in kinds.items())
    m, shift = time_scale(layout.bins if layout.nearest else layout.bins - 1, span)
    rest = (t0, 0 if closed else 1, span, m, shift, layout.columns, layout.rows, layout.area, layout.bins,
            0 if layout.nearest else 0xFFFF, 0 if layout.signed else layout.bins * layout.area,
            -1 if layout.signed else 1)
    grid = np.zeros(layout.cells, np.int32)
    if 8 * len(events) > layout.cells:  # unpacking passes over every cell
        written, steps = _dense_threads(grid, arrays, rest, threads if len(events) >= _PARALLEL_FROM else 1)
        if steps >= 0 and written < 1 << 30:
            return grid
        grid = np.zeros(layout.cells, np.int32)
    if _direct(grid, *arrays, *rest) < 1 << 30:
        return grid
    wide = np.zeros(layout.cells, np.int64)
    _direct(wide, *arrays, *rest)
    narrow = wide.astype(np.int32)
    return narrow if np.array_equal(narrow, wide) else wide


def _read_only(values: np.ndarray, kind: type) -> np.ndarray:
    """A view (a copy if need be) of the one array type that the loops are compiled for."""
    view = np.require(values, kind, 'AC').view()
    view.flags.writeable = False
    return view


def _dense_threads(grid: np.ndarray, arrays: tuple, rest: tuple, threads: int) -> tuple[int, int]:
    """`_dense` with its planes dealt to threads in runs of equal length; this thread takes the first.

    A run that no helper has begun when this thread is done is done here: on a busy machine, or in a forked child
    where the helpers do not exist, the grid is late but never stuck.
    """
    t, t0, m, shift, bins = arrays[3], rest[0], rest[3], rest[4], rest[8]
    edges = [t0 - (-(plane << (16 + shift)) // m) for plane in range(1, bins)]
    starts = np.array([0, *np.searchsorted(t, np.array(edges, np.int64)), len(t)], np.int64)
    groups = min(threads, bins)

    def work(group: int) -> tuple[int, int]:
        return _dense(grid, *arrays, starts, bins * group // groups, bins * (group + 1) // groups, *rest)

    helped = [_HELPERS.submit(work, group) for group in range(1, groups)]
    outcomes = [work(0)]
    outcomes += [work(group) if helper.cancel() else helper.result() for group, helper in enumerate(helped, 1)]
    written, steps = np.bitwise_or.reduce(np.array(outcomes, np.int64), axis=0)
    return int(written), int(steps)
