"""The motion of the whole scene over an event sensor, from the events alone: greatest contrast.

Moved along the right motion, the events of an edge fall together and their image gets sharp
(Gallego, Rebecq, Scaramuzza 2018, "A Unifying Contrast Maximization Framework"). The motion is a
translation, a scale and a roll (the four parameters of Mitrokhin et al., 1803.04523); the contrast
is the mean square of the image, each polarity on its own. Coarse cells are searched over a grid of
translations, finer ones climb from what was found.

A share of the events is enough, so that the time is bounded at any event rate. Votes are whole
numbers: equal windows give equal motions, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from mos_perception.datatypes import EventWindow
from mos_perception.motion.event_compensation import EventMotion, from_displacement, node_pixels

MIN_EVENTS = 300     # below, chance alone makes an image sharp
MAX_EVENTS = 10_000   # looked at on the finest cells
COARSE_EVENTS = 2_000
CELLS = 240          # of the longer side on the finest level: 1 px of a DVS240
LEVELS = 4           # cells of 8, 4, 2, 1 finest ones
REACH = 5            # coarsest cells searched to every side: a sixth of the longer side
MIN_GAIN = 1.12      # noise, a hot pixel or one person before a resting camera reach 1.08
MIN_RISE = 2.0       # of contrast, over the root of the number of events: few agree by chance
MIN_CELLS = 1.0      # of displacement: below, nothing needs to be explained
PARAMETERS = 4
_VOTE_BITS = 4       # a vote is in 1/256 of an event
_R2 = np.array([0.7548776662466927, 0.5698402909980532])  # evenly over the square (Roberts 2018)
_ONE = 1 << _VOTE_BITS
_BLOCK = 512
_ALONE = 0.446       # contrast of events that meet no other: mean square of the four votes
_LEAST = 1e-3


@dataclass(frozen=True)
class SampledEvents:
    """Events as the loops take them: (E,) each.

    `x`, `y` float32 px from the sensor's centre, `age` float32 in [-1/2, 1/2] from the window's end
    to its begin, `p` int32 0 or 1; `size` (height, width) of the sensor.
    """

    x: np.ndarray
    y: np.ndarray
    age: np.ndarray
    p: np.ndarray
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.x)

    def every(self, count: int) -> SampledEvents:
        """At most `count` of them, at least half as many if there are, evenly."""
        return self.where(slice(None, None, max(1, -(-len(self) // count))))

    def where(self, chosen: np.ndarray | slice) -> SampledEvents:
        """Those that (E,) bool or a slice says."""
        return SampledEvents(*(np.ascontiguousarray(values[chosen]) for values in
                               (self.x, self.y, self.age, self.p)), self.size)

    def pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of each on the sensor, (E,) int64."""
        row = np.rint(self.y + (self.size[0] - 1) / 2).astype(np.int64)
        column = np.rint(self.x + (self.size[1] - 1) / 2).astype(np.int64)
        return row.clip(0, self.size[0] - 1), column.clip(0, self.size[1] - 1)

    def moved(self, parameters: np.ndarray) -> SampledEvents:
        """Brought along (4,) `parameters` to where they would be in the window's middle."""
        right, down, scale, roll = parameters / [1, 1, *[half_diagonal(self.size)] * 2]
        x = self.x + self.age * (right + scale * self.x - roll * self.y)
        y = self.y + self.age * (down + roll * self.x + scale * self.y)
        return SampledEvents(x.astype(np.float32), y.astype(np.float32), self.age, self.p,
                             self.size)

    def cropped(self, margin_px: float) -> SampledEvents:
        """The same on a sensor that ends `margin_px` from them."""
        left, right = float(self.x.min()), float(self.x.max())
        top, bottom = float(self.y.min()), float(self.y.max())
        size = int(bottom - top + 2 * margin_px) + 1, int(right - left + 2 * margin_px) + 1
        return SampledEvents(self.x - np.float32((left + right) / 2),
                             self.y - np.float32((top + bottom) / 2), self.age, self.p, size)


def sampled(window: EventWindow, count: int = 4 * MAX_EVENTS) -> SampledEvents:
    """At most `count` events of a window, evenly, those outside of the sensor left out."""
    events = window.events
    step = max(1, -(-len(events) // count))
    x, y, p, t = (getattr(events, name)[::step] for name in 'xypt')
    inside = (x < window.width) & (y < window.height)
    age = (window.t1_ns - t[inside]) / max(window.t1_ns - window.t0_ns, 1) - 0.5
    # Pixels are whole numbers: unmoved events would vote for one cell, moved ones for four.
    dither = np.modf(np.arange(1, len(age) + 1)[:, None] * _R2)[0] - 0.5
    x, y = x[inside] - (window.width - 1) / 2, y[inside] - (window.height - 1) / 2
    floats = (values.astype(np.float32) for values in (x + dither[:, 0], y + dither[:, 1], age))
    return SampledEvents(*floats, (p[inside] > 0).astype(np.int32), (window.height, window.width))


@dataclass(frozen=True)
class ContrastFit:
    """What was found. `parameters` (4,) float64 px over the window: right, down, and of a point
    half a diagonal from the centre: outward, clockwise. `contrast` of the image after, `still`
    before the `events` were moved: how many events an event's cell holds.
    """

    parameters: np.ndarray
    contrast: float
    still: float
    events: int
    size: tuple[int, int]

    @property
    def moves(self) -> bool:
        """Whether the scene moves over the sensor for sure."""
        return (self.gain >= MIN_GAIN
                and self.contrast - self.still >= MIN_RISE / np.sqrt(self.events)
                and self.displacement_px >= MIN_CELLS * finest_cell(self.size))

    @property
    def gain(self) -> float:
        """How many more of the other events an event meets once they are moved, 1 = no more."""
        return (self.contrast - _ALONE) / max(self.still - _ALONE, _LEAST)

    def motion(self, t0_ns: int, t1_ns: int) -> EventMotion | None:
        """As the displacement of the events in the window (t0, t1] it was found in."""
        nodes = node_pixels(self.size)
        x, y = nodes[..., 0] - (self.size[1] - 1) / 2, nodes[..., 1] - (self.size[0] - 1) / 2
        right, down, scale, roll = self.parameters / [1, 1, *[half_diagonal(self.size)] * 2]
        field = np.stack([right + scale * x - roll * y, down + roll * x + scale * y], 2)
        return from_displacement(field, t1_ns, t1_ns - t0_ns)

    @property
    def displacement_px(self) -> float:
        """Root mean square over the sensor of how far its pixels move in the window."""
        right, down, scale, roll = self.parameters
        # the mean square distance from the centre is a third of the half diagonal's square
        return float(np.sqrt(right ** 2 + down ** 2 + (scale ** 2 + roll ** 2) / 3))


def half_diagonal(size: tuple[int, int]) -> float:
    """px, of a sensor `size` (height, width)."""
    return float(np.hypot(*size)) / 2


@numba.njit(nogil=True, cache=True)
def _places(x, y, age, parameters, half, cell, height, width, place, inside):
    """Where the moved events stand: `place` (2, E) int32 in votes from the image's corner."""
    right, down = np.float32(parameters[0] / cell * _ONE), np.float32(parameters[1] / cell * _ONE)
    per_half = _ONE / half / cell
    scale, roll = np.float32(parameters[2] * per_half), np.float32(parameters[3] * per_half)
    unit = np.float32(_ONE / cell)
    left, top = np.float32(width * (_ONE // 2)), np.float32(height * (_ONE // 2))
    last_x, last_y = np.float32((width - 1) * _ONE), np.float32((height - 1) * _ONE)
    for i in range(len(x)):
        u = x[i] * unit + left + age[i] * (right + scale * x[i] - roll * y[i])
        v = y[i] * unit + top + age[i] * (down + roll * x[i] + scale * y[i])
        good = (u >= 0) & (v >= 0) & (u < last_x) & (v < last_y)
        place[0, i] = np.int32(u) if good else np.int32(0)
        place[1, i] = np.int32(v) if good else np.int32(0)
        inside[i] = good


@numba.njit(nogil=True, cache=True)
def _image(x, y, age, p, parameters, half, cell, height, width, image):
    """Votes of the moved events into `image` (2 * height * width,) int32, cells of `cell` px."""
    image[:] = 0
    area = height * width
    place, inside = np.empty((2, _BLOCK), np.int32), np.empty(_BLOCK, np.int32)
    for first in range(0, len(x), _BLOCK):
        last = min(first + _BLOCK, len(x))
        _places(x[first:last], y[first:last], age[first:last], parameters, half, cell, height,
                width, place, inside)
        for i in range(last - first):
            u, v = place[0, i], place[1, i]
            f, g = u & (_ONE - 1), v & (_ONE - 1)
            at = np.uint64(p[first + i] * area + (v >> _VOTE_BITS) * width + (u >> _VOTE_BITS))
            below = at + np.uint64(width)
            above, under = (_ONE - g) * inside[i], g * inside[i]
            image[at] += (_ONE - f) * above
            image[at + np.uint64(1)] += f * above
            image[below] += (_ONE - f) * under
            image[below + np.uint64(1)] += f * under


@numba.njit(nogil=True, cache=True)
def _square_sum(image):
    total = np.int64(0)
    for i in range(len(image)):
        total += np.int64(image[i]) * np.int64(image[i])
    return total


@numba.njit(nogil=True, cache=True)
def _contrast(x, y, age, p, parameters, half, cell, height, width, image):
    _image(x, y, age, p, parameters, half, cell, height, width, image)
    return np.float64(_square_sum(image))


@numba.njit(nogil=True, cache=True)
def _search(x, y, age, p, start, half, cell, height, width, image, reach):
    """The best translation on a grid of `cell` px around `start`; the smaller one of equals."""
    best, found = -1.0, start.copy()
    trial = start.copy()
    for ring in range(reach + 1):
        for i in range(-ring, ring + 1):
            for j in range(-ring, ring + 1):
                if max(abs(i), abs(j)) != ring:
                    continue
                trial[0], trial[1] = start[0] + i * cell, start[1] + j * cell
                value = _contrast(x, y, age, p, trial, half, cell, height, width, image)
                if value > best * 1.001:
                    best, found = value, trial.copy()
    return found


@numba.njit(nogil=True, cache=True)
def _climb(x, y, age, p, start, step, count, half, cell, height, width, image, times):
    """Uphill in the first `count` parameters by the parabola through three points of each."""
    now = start.copy()
    here = _contrast(x, y, age, p, now, half, cell, height, width, image)
    for _ in range(times):
        for k in range(count):
            trial = now.copy()
            trial[k] = now[k] - step
            before = _contrast(x, y, age, p, trial, half, cell, height, width, image)
            trial[k] = now[k] + step
            after = _contrast(x, y, age, p, trial, half, cell, height, width, image)
            bend = before - 2 * here + after
            if bend < 0:
                move = min(max(0.5 * step * (before - after) / bend, -step), step)
            else:
                move = step if after > before else -step
            trial[k] = now[k] + move
            value = _contrast(x, y, age, p, trial, half, cell, height, width, image)
            for other, moved in ((before, -step), (after, step)):
                if other > value:
                    value, move = other, moved
            if value > here:
                now[k], here = now[k] + move, value
        step *= 0.5
    return now


def finest_cell(size: tuple[int, int]) -> float:
    """px of the finest level's cells on a sensor `size` (height, width)."""
    return max(1.0, max(size) / CELLS)


class _Level:
    """An image of cells of `cell` px for the events of one sensor."""

    def __init__(self, size: tuple[int, int], cell: float) -> None:
        self.half, self.cell = half_diagonal(size), cell
        self.height, self.width = (int(np.ceil(side / cell)) + 2 for side in size)
        self.image = np.empty(2 * self.height * self.width, np.int32)

    def grid(self) -> tuple:
        """The loops' arguments about the image."""
        return self.half, self.cell, self.height, self.width, self.image


def contrast(events: SampledEvents, parameters: np.ndarray, cell: float) -> float:
    """How many events an event's cell holds, itself among them, after moving by `parameters` (4,).
    """
    total = _contrast(events.x, events.y, events.age, events.p, parameters,
                      *_Level(events.size, cell).grid())
    return total / (1 << 4 * _VOTE_BITS) / max(len(events), 1)


def search(events: SampledEvents, start: np.ndarray, cell: float, reach: int) -> np.ndarray:
    """(4,) parameters: the best translation `reach` cells of `cell` px around `start` (4,)."""
    return _search(events.x, events.y, events.age, events.p, start,
                   *_Level(events.size, cell).grid(), reach)


def climb(events: SampledEvents, start: np.ndarray, cell: float, count: int = PARAMETERS,
          times: int = 3) -> np.ndarray:
    """(4,) parameters near `start` of greater contrast; only the first `count` of them move."""
    return _climb(events.x, events.y, events.age, events.p, start, cell, count,
                  *_Level(events.size, cell).grid(), times)


def maximise(events: SampledEvents) -> ContrastFit | None:
    """The motion under which the events of a window are sharpest; None where they are too few."""
    if len(events) < MIN_EVENTS:
        return None
    events, coarse = events.every(MAX_EVENTS), events.every(COARSE_EVENTS)
    finest = finest_cell(events.size)
    found = search(coarse, np.zeros(PARAMETERS), finest * 2 ** (LEVELS - 1), REACH)
    for level in range(LEVELS - 1, 0, -1):
        found = climb(coarse, found, finest * 2 ** level)
    found = climb(events, found, finest, times=2)
    still = contrast(events, np.zeros(PARAMETERS), finest)
    return ContrastFit(found, contrast(events, found, finest), still, len(events),
                       events.size)


def global_motion(window: EventWindow) -> EventMotion | None:
    """The motion of the scene in a window; None if its events are too few or get no sharper."""
    fit = maximise(sampled(window))
    return fit.motion(window.t0_ns, window.t1_ns) if fit is not None and fit.moves else None
