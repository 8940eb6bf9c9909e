"""Events of a window -> voxel grid. The one definition: robot, replay and training all use it.

Formulations, for a window (t0, t1] cut into B bins, t* = (t - t0) / (t1 - t0) * (B - 1):

- `dimos`  (2B, H, W) counts: B planes of brighter events, then B of darker ones; each event is
           split between the planes beside t* with weights 1-f and f (DIMOS' released code,
           utils/event_utils.py).
- `e2vid`  (B, H, W) signed: the same split of p = +1 / -1 (Zhu 2019; E2VID; DSEC).
- `counts` (2B, H, W) counts: each event whole in plane floor((t - t0) / (t1 - t0) * B), the end
           in the last (RVT).
- `compensated` (2B + 2, H, W): `dimos`, then each pixel's count and mean time (`features.py`); for
           events moved with the scene, B >= 2.

Sums are int32 Q16 (65536 = one event): exact, so no order, thread count or device changes them, and
the grid adds up to 65536 x the events in the window and on the sensor (`e2vid`: x the sum of their
signs). With a `motion` events are moved along it first, which drops what leaves the sensor
(`moved.py`).
"""

from __future__ import annotations

import os

import cv2
import numba
import numpy as np

from mos_perception.datatypes import Events, EventWindow
from mos_perception.errors import ConfigError
from mos_perception.events.features import time_features
from mos_perception.events.moved import MotionRule, scatter_moved
from mos_perception.events.scatter import ScatterRule, VoxelLayout, scatter
from mos_perception.motion.event_compensation import EventMotion

ONE = 1 << 16  # one event, in Q16
FORMULATIONS = ('dimos', 'e2vid', 'counts', 'compensated')
RESIZES = ('bin', 'linear')
NORMALISATIONS = ('max', 'std', 'none')


def channels(formulation: str, bins: int) -> int:
    """Planes of the network's tensor. Raises ConfigError for a formulation or bins out of range."""
    _choice('formulation', formulation, FORMULATIONS)
    least = 2 if formulation == 'compensated' else 1
    if not least <= bins <= 1024:
        raise ConfigError(f'voxel bins is {bins}: must be within [{least}, 1024] for '
                          f'{formulation!r}')
    planes = {'e2vid': bins, 'compensated': 2 * bins + 2}
    return planes.get(formulation, 2 * bins)


def sums(formulation: str, bins: int) -> int:
    """Planes of the Q16 grid that `accumulate` makes. Raises ConfigError as `channels`."""
    return channels(formulation, bins) - (2 if formulation == 'compensated' else 0)


def accumulate(events: Events, t0_ns: int, t1_ns: int, *, formulation: str, bins: int,
               size: tuple[int, int], out_size: tuple[int, int] | None = None,
               closed: bool = False, motion: EventMotion | None = None,
               threads: int = 0) -> np.ndarray:
    """The Q16 grid (`sums`, H, W) of the events with `t0 < t <= t1` (`t0 <= t` if `closed`).

    In any order; moved along `motion`, if there is one, to where they would be at its time.
    `size` (height, width) of the sensor: events outside it do not count. `out_size` of the grid,
    default `size`; pixel x lands in column x * W_out // W. `threads` 0 = one per core; the result
    does not depend on it. int32, or int64 where a sum does not fit (32768 events of one sign in one
    cell). Raises ConfigError.
    """
    count = sums(formulation, bins)
    height, width = out_size or size
    if min(*size, height, width) < 1:
        raise ConfigError(f'voxel size {size} -> {out_size}: every side must be at least 1 px')
    span = int(t1_ns) - int(t0_ns)
    if len(events) == 0 or span <= 0:
        return np.zeros((count, height, width), np.int32)
    threads = threads or len(os.sched_getaffinity(0))
    # Moved events vote for the sensor's pixels; a larger grid has cells without any.
    cells = (height, width) if motion is None else (min(height, size[0]), min(width, size[1]))
    layout = layout_of(formulation, bins, size, cells)
    rule = ScatterRule.of(layout, int(t0_ns), span, closed)
    if motion is None:
        return scatter(events, rule, layout, threads).reshape(count, height, width)
    moved = MotionRule.of(motion, int(t0_ns), int(t1_ns), size)
    grid = scatter_moved(events, rule, layout, moved, cells, threads).reshape(count, *cells)
    return grid if cells == (height, width) else _enlarged(grid, (height, width))


def _enlarged(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(C, *size): cell (y, x) of (C, H, W) goes to (y * size[0] // H, x * size[1] // W)."""
    out = np.zeros((len(grid), *size), grid.dtype)
    rows, columns = (np.arange(old) * new // old for old, new in zip(grid.shape[1:], size))
    out[:, rows[:, None], columns] = grid
    return out


def layout_of(formulation: str, bins: int, size: tuple[int, int],
              out_size: tuple[int, int]) -> VoxelLayout:
    """Where the events of a sensor `size` go in a grid of `out_size`, (height, width) each."""
    (rows, columns), (height, width) = size, out_size
    return VoxelLayout(
        columns=(np.arange(columns) * width // columns).astype(np.int32),
        rows=(np.arange(rows) * height // rows * width).astype(np.int32),
        area=height * width, bins=bins, nearest=formulation == 'counts',
        signed=formulation == 'e2vid')


def voxelize(window: EventWindow | Events, t0_ns: int | None = None, t1_ns: int | None = None, *,
             formulation: str = 'dimos', bins: int = 5, size: tuple[int, int] | None = None,
             out_size: tuple[int, int] | None = None, resize: str = 'bin', normalise: str = 'max',
             norm_floor: float = 1.0, as_released: bool = False,
             motion: EventMotion | None = None, threads: int = 0) -> np.ndarray:
    """The network's voxel tensor (C, H_out, W_out) float32, events per cell before normalisation.

    Edges and sensor size come from an EventWindow, or are given with plain Events. `resize`: `bin`
    sums at the output size and keeps every event; `linear` resizes the native grid as cv2 does.
    `normalise`: `max` divides by max(largest magnitude, `norm_floor`), where the floor keeps a
    quiet window's noise small; `std` subtracts the mean of the non-zero cells and divides by their
    deviation (E2VID); `none`; the two last planes of `compensated` have their own scale and need
    `bin`. `motion`: see `accumulate`. `as_released` (dimos only): DIMOS to the letter: edges are
    the first and last event, `linear`, v / (max + 1e-5); under two distinct times: zeros. Raises
    ConfigError.
    """
    _choice('resize', resize, RESIZES)
    _choice('normalise', normalise, NORMALISATIONS)
    if isinstance(window, EventWindow):
        t0_ns, t1_ns, events = window.t0_ns, window.t1_ns, window.events
        size = (window.height, window.width)
    else:
        events = window
    if t0_ns is None or t1_ns is None or size is None:
        raise ConfigError('voxelize: plain Events need t0_ns, t1_ns and size; or pass an '
                          'EventWindow')
    if as_released:
        return _dimos_as_released(events, formulation, bins, size, out_size or size)
    native = resize == 'linear'
    grid = accumulate(events, t0_ns, t1_ns, formulation=formulation, bins=bins, size=size,
                      out_size=size if native else out_size, motion=motion, threads=threads)
    out = np.empty((channels(formulation, bins), *(out_size or size)), np.float32)
    if formulation == 'compensated':
        _choice('resize of compensated events', resize, ('bin',))
        out[-2:] = time_features(grid, norm_floor)
    if native and out_size not in (None, size):
        _normalise(_linear(grid, out_size), out, normalise, norm_floor, 1.0)
    else:
        _normalise(grid, out[:len(grid)], normalise, norm_floor, 1.0 / ONE)
    return out


def _dimos_as_released(events: Events, formulation: str, bins: int, size: tuple[int, int],
                       out_size: tuple[int, int]) -> np.ndarray:
    """utils/event_utils.py and ToTensor of DIMOS' released code: see `voxelize`."""
    _choice('formulation as released', formulation, ('dimos',))
    t0, t1 = (int(events.t.min()), int(events.t.max())) if len(events) else (0, 0)
    grid = accumulate(events, t0, t1, formulation='dimos', bins=bins, size=size, closed=True)
    values = _linear(grid, out_size)
    return values / (values.max() + np.float32(1e-5))


def _linear(grid: np.ndarray, out_size: tuple[int, int]) -> np.ndarray:
    """(C, H, W) Q16 -> (C, *out_size) float32 events per cell, bilinear with half-pixel centres."""
    values = grid.astype(np.float32) / np.float32(ONE)
    if out_size == values.shape[1:]:
        return values
    return np.stack([
        cv2.resize(plane, out_size[::-1], interpolation=cv2.INTER_LINEAR) for plane in values])


@numba.njit(nogil=True, cache=True)
def _scaled(grid, shift, scale, out):
    """out = (grid - shift) * scale where the grid is not zero, else 0; flat arrays."""
    for i in range(grid.size):
        value = np.float32(grid[i])
        out[i] = (value - shift) * scale if value != 0 else np.float32(0)


@numba.njit(nogil=True, cache=True)
def _largest(grid):
    """Largest magnitude of a flat array."""
    low = high = grid[0] * 0
    for i in range(grid.size):
        low, high = min(low, grid[i]), max(high, grid[i])
    return max(high, -low)


def _normalise(grid: np.ndarray, out: np.ndarray, normalise: str, norm_floor: float,
               unit: float) -> None:
    """`out` = `grid * unit` after normalisation, scale and unit in one pass."""
    flat = grid.reshape(-1)
    shift, scale = 0.0, unit
    if normalise == 'max':
        scale = unit / max(float(_largest(flat)) * unit, norm_floor)
    elif normalise == 'std':
        cells = flat[flat != 0].astype(np.float64)
        shift = float(cells.mean()) if cells.size else 0.0
        deviation = float(cells.std()) if cells.size else 0.0
        scale = 1.0 / deviation if deviation > 0 else unit
    _scaled(flat, np.float32(shift), np.float32(scale), out.reshape(-1))


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f'voxel {name} is {value!r}: must be one of {", ".join(choices)}')
