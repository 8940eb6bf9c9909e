"""Events moved with the scene, then added into a Q16 grid: the compiled loops behind `voxel.py`.

All integers, so that every machine and the CUDA kernels (`voxel.h`) agree to the last bit: the
displacement of a pixel is in 1/32 px, the age of an event in 2^-14 of the motion's span, its new
place in 1/256 px. It votes for the four pixels around that place with bilinear weights; a vote
outside the sensor is dropped. Each vote is shared between two planes as in `scatter.py`, the
second share rounded down. Without motion the grid is `scatter.py`'s.

Events go through in blocks, one simple loop after the other over arrays that stay in the cache:
the compiler vectorises those that look nothing up.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from mos_perception.datatypes import Events
from mos_perception.errors import ConfigError
from mos_perception.events.arrays import EventArrays
from mos_perception.events.scatter import ScatterRule, VoxelLayout, in_threads, time_scale
from mos_perception.motion.event_compensation import NODE_PX, EventMotion, node_count

NODE_BITS = NODE_PX.bit_length() - 1
DISPLACEMENT_BITS = 5
AGE_BITS = 14
PLACE_BITS = 8
_TO_PLACE = DISPLACEMENT_BITS + AGE_BITS - PLACE_BITS
_BLOCK = 256
PARALLEL_FROM = 200_000  # events
_I4 = np.int32
_U8 = np.uint64


# voxel.h's VoxelMotion
MOTION_HEADER = np.dtype([('t', '<i8'), ('m', '<i8'), ('nodes', '<u8'), ('columns', '<i4'),
                          ('shift', '<i4')])


class MotionRule(NamedTuple):
    """An EventMotion as the loops take it; the fields of `VoxelMotion` in `voxel.h`."""

    nodes: np.ndarray  # (rows * columns,) int32: x displacement in the high half, y in the low
    columns: int       # nodes of a row
    t: int             # ns
    m: int             # age = ((t - t of the event) * m) >> shift
    shift: int

    @staticmethod
    def of(motion: EventMotion, t0_ns: int, t1_ns: int, size: tuple[int, int]) -> MotionRule:
        """The rule for events in [t0, t1] of a sensor `size` (h, w). Raises ConfigError."""
        if motion.displacement.shape != (*node_count(size), 2):
            raise ConfigError(f'event motion has {motion.displacement.shape} displacements, a '
                              f'sensor of (height, width) {size} needs {(*node_count(size), 2)}')
        motion = motion.over(t0_ns, t1_ns)
        limit = (1 << 15) - 1
        steps = np.rint(motion.displacement.astype(np.float64) * (1 << DISPLACEMENT_BITS))
        right, down = np.moveaxis(np.clip(steps, -limit, limit).astype(np.int32), 2, 0)
        m, shift = time_scale(1, motion.span_ns)
        nodes = (right << 16 | down & 0xFFFF).reshape(-1)
        return MotionRule(nodes, right.shape[1], motion.t_ns, m, shift + 16 - AGE_BITS)


@numba.njit(nogil=True, cache=True)
def displacement_table(nodes: np.ndarray, columns: int, height: int, width: int) -> np.ndarray:
    """(height * width,) int32: displacement of each pixel, packed as the nodes are."""
    table = np.empty(height * width, np.int32)
    half = _I4(1 << (2 * NODE_BITS - 1))
    for v in range(height):
        below = _I4(v & (NODE_PX - 1))
        above = _I4(NODE_PX) - below
        row = (v >> NODE_BITS) * columns
        for node in range(columns - 1):
            a, b = nodes[row + node], nodes[row + node + 1]
            c, d = nodes[row + columns + node], nodes[row + columns + node + 1]
            x = _I4((a >> 16) * above + (c >> 16) * below)
            y = _I4(np.int16(a) * above + np.int16(c) * below)
            dx = _I4((b >> 16) * above + (d >> 16) * below - x)
            dy = _I4(np.int16(b) * above + np.int16(d) * below - y)
            x, y = _I4((x << NODE_BITS) + half), _I4((y << NODE_BITS) + half)
            first = v * width + (node << NODE_BITS)
            for k in range(min(NODE_PX, width - (node << NODE_BITS))):
                right = _I4(_I4(x + _I4(dx * _I4(k))) >> _I4(2 * NODE_BITS))
                down = _I4(_I4(y + _I4(dy * _I4(k))) >> _I4(2 * NODE_BITS))
                table[first + k] = _I4(right << _I4(16)) | (down & _I4(0xFFFF))
    return table


def axis_table(sources: int, size: int) -> np.ndarray:
    """(sources + 1,) int32: where the votes between pixels i - 1 and i of an axis go.

    The axis of a sensor has `sources` pixels, that of the grid `size` cells, no more. An entry is
    `cell << 9 | constant | (slope + 1) << 1 | next`: of a place f / 256 px after pixel i - 1,
    `cell` takes `constant + slope * f` and the cell after it `next * f`. Nothing goes to a pixel
    outside the sensor; two pixels of one cell give it the whole.
    """
    cells = np.arange(sources) * size // sources
    splits = cells[1:] > cells[:-1]
    code = np.concatenate([[2 << 1], np.where(splits, 256 | 1, 256 | 1 << 1), [256]])
    return (np.concatenate([cells[:1], cells]) << 9 | code).astype(np.int32)


class Block(NamedTuple):
    """What the loops hand on about each event of a block: (events,) int32 each."""

    inside: np.ndarray        # 1: counts; 0: outside of window or sensor, before or after the move
    age: np.ndarray
    share: np.ndarray         # Q16 for the plane after
    plane: np.ndarray         # first cell of the plane before
    sign: np.ndarray
    displacement: np.ndarray  # packed
    x: np.ndarray             # 1 + the pixel left of the new place
    y: np.ndarray
    right: np.ndarray         # how far right of that pixel, of 256
    down: np.ndarray
    column: np.ndarray        # entries of `axis_table`
    row: np.ndarray
    cell: np.ndarray


@numba.njit(nogil=True, cache=True)
def _new_block():
    m = np.empty((13, _BLOCK), np.int32)
    return Block(m[0], m[1], m[2], m[3], m[4], m[5], m[6], m[7], m[8], m[9], m[10], m[11], m[12])


@numba.njit(nogil=True, cache=True)
def _look_at_times(block, t, p, rule, motion):
    mask, last, area, dark_offset = _I4(rule.mask), rule.bins - 1, rule.area, rule.dark_offset
    inside, age, share, plane, sign = block.inside, block.age, block.share, block.plane, block.sign
    for i in range(len(t)):
        dt = t[i] - rule.t0
        q = (dt * rule.m) >> rule.shift
        dark = np.int64(p[i] == 0)
        timely = _I4((dt >= rule.low) & (dt <= rule.span))
        inside[i] = timely
        age[i] = _I4(((motion.t - t[i]) * motion.m) >> motion.shift)
        share[i] = _I4(q) & mask
        plane[i] = _I4(min(q >> 16, last) * area + dark * dark_offset) & -timely
        sign[i] = _I4(1 + dark * (rule.dark_sign - 1))


@numba.njit(nogil=True, cache=True)
def _look_up_displacements(block, x, y, table, height, width):
    inside, displacement = block.inside, block.displacement
    for i in range(len(x)):
        u, v = _U8(x[i]), _U8(y[i])
        if u < width and v < height:
            displacement[i] = table[v * width + u]
        else:
            inside[i] = 0


@numba.njit(nogil=True, cache=True)
def _move(block, x, y, height, width):
    inside, age, displacement = block.inside, block.age, block.displacement
    one, half = _I4(1 << PLACE_BITS), _I4(1 << (_TO_PLACE - 1))
    for i in range(len(x)):
        packed = displacement[i]
        dx, dy = packed >> _I4(16), _I4(packed << _I4(16)) >> _I4(16)
        to_right = _I4(_I4(_I4(age[i] * dx) + half) >> _I4(_TO_PLACE))
        downward = _I4(_I4(_I4(age[i] * dy) + half) >> _I4(_TO_PLACE))
        place_x = _I4(_I4(x[i]) * one) + to_right + one
        place_y = _I4(_I4(y[i]) * one) + downward + one
        u, v = place_x >> _I4(PLACE_BITS), place_y >> _I4(PLACE_BITS)
        good = inside[i] & _I4((u >= 0) & (u <= width) & (v >= 0) & (v <= height))
        keep = _I4(0) - good  # outside: votes of nothing
        inside[i] = good
        block.x[i], block.y[i] = u & keep, v & keep
        block.right[i] = place_x & (one - _I4(1))
        block.down[i] = place_y & (one - _I4(1))


@numba.njit(nogil=True, cache=True)
def _look_up_cells(block, count, columns, rows):
    x, y, column, row = block.x, block.y, block.column, block.row
    for i in range(count):
        column[i] = columns[_U8(x[i])]
        row[i] = rows[_U8(y[i])]


@numba.njit(nogil=True, cache=True)
def _weigh(block, count, votes, row_cells):
    """votes (8, events): of the cell, the one right of it, below it, right below; plane after."""
    for i in range(count):
        column, row, f, g = block.column[i], block.row[i], block.right[i], block.down[i]
        block.cell[i] = block.plane[i] + _I4((row >> _I4(9)) * row_cells) + (column >> _I4(9))
        near = _I4((column & _I4(256)) + _I4(_I4(((column >> _I4(1)) & _I4(3)) - _I4(1)) * f))
        next_ = _I4((column & _I4(1)) * f)
        above = _I4((row & _I4(256)) + _I4(_I4(((row >> _I4(1)) & _I4(3)) - _I4(1)) * g))
        above = _I4(above * block.inside[i])
        below = _I4(_I4((row & _I4(1)) * g) * block.inside[i])
        share, sign = np.uint32(block.share[i]), block.sign[i]
        for k in range(4):
            weight = _I4((next_ if k & 1 else near) * (below if k & 2 else above))
            after = _I4(np.uint32(np.uint32(weight) * share) >> np.uint32(16))
            votes[k, i] = _I4(_I4(weight - after) * sign)
            votes[4 + k, i] = _I4(after * sign)


@numba.njit(nogil=True, cache=True)
def _vote(grid, cell, votes, row_cells, area):
    """Returns the OR of all magnitudes written: bit 30 shows before a wrap."""
    written = np.int64(0)
    for i in range(len(cell)):
        a = _U8(cell[i])
        for plane in range(2):
            b, k = a + row_cells, 4 * plane
            here, right = grid[a] + votes[k, i], grid[a + _U8(1)] + votes[k + 1, i]
            grid[a], grid[a + _U8(1)] = here, right
            below, beside = grid[b] + votes[k + 2, i], grid[b + _U8(1)] + votes[k + 3, i]
            grid[b], grid[b + _U8(1)] = below, beside
            written |= (here ^ (here >> 63)) | (right ^ (right >> 63))
            written |= (below ^ (below >> 63)) | (beside ^ (beside >> 63))
            a += area
    return written


@numba.njit(nogil=True, cache=True)
def _add(grid, events, rule, motion, table, columns, rows, row_cells):
    """Votes of all events, block by block; returns as `_vote`."""
    height, width = len(rule.rows), len(rule.columns)
    block, votes = _new_block(), np.empty((8, _BLOCK), np.int32)
    written = np.int64(0)
    for first in range(0, len(events.t), _BLOCK):
        last = min(first + _BLOCK, len(events.t))
        x, y = events.x[first:last], events.y[first:last]
        _look_at_times(block, events.t[first:last], events.p[first:last], rule, motion)
        _look_up_displacements(block, x, y, table, _U8(height), _U8(width))
        _move(block, x, y, _I4(height), _I4(width))
        _look_up_cells(block, last - first, columns, rows)
        _weigh(block, last - first, votes, _I4(row_cells))
        written |= _vote(grid, block.cell[:last - first], votes, _U8(row_cells), _U8(rule.area))
    return written


def scatter_moved(events: Events, rule: ScatterRule, layout: VoxelLayout, motion: MotionRule,
                  out_size: tuple[int, int], threads: int) -> np.ndarray:
    """Sum the events that `rule` lets in, moved by `motion`, into a flat Q16 grid (cells,).

    `out_size` (height, width) of a plane, no larger than the sensor. int32; int64 where a sum does
    not fit. Neither the order of `events` nor `threads` changes it.
    """
    arrays, size = EventArrays.of(events), (len(rule.rows), len(rule.columns))
    table = displacement_table(motion.nodes, motion.columns, *size)
    rows, columns = (axis_table(*axis) for axis in zip(size, out_size))
    # The loops add nothing to the cells after the last.
    padded = layout.cells + layout.area + out_size[1] + 1

    def add(first: int, last: int, kind: type = np.int32) -> tuple[np.ndarray, int, slice]:
        part, grid = EventArrays(*(values[first:last] for values in arrays)), np.zeros(padded, kind)
        written = _add(grid, part, rule, motion, table, columns, rows, out_size[1])
        planes = grid[:layout.cells].reshape(-1, layout.bins, layout.area)
        return planes, written, rule.planes(part.t)

    parts = in_threads(add, len(events), threads if len(events) >= PARALLEL_FROM else 1)
    grid, most, _ = parts[0]
    for more, written, touched in parts[1:]:
        grid[:, touched] += more[:, touched]
        most = max(most, written)
    if most < (1 << 30) // len(parts):
        return grid.reshape(-1)
    wide = add(0, len(events), np.int64)[0].reshape(-1)
    narrow = wide.astype(np.int32)
    return narrow if np.array_equal(narrow, wide) else wide
