"""Where each pixel of the event camera lands in the frame camera's view: one table, looked up once
per event, for every way to know it.

The target is a grid with the frame's view: as fine as the frame, or as the event camera where that
one is coarser, so that neighbouring pixels stay neighbours. Pixel centres have whole coordinates;
sizes are (height, width). He, We: event camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from mos_perception.datatypes import Events
from mos_perception.errors import ConfigError
from mos_perception.events.arrays import EventArrays
from mos_perception.motion.calibration import Calibration

OUTSIDE = 0xFFFFFFFF  # of the frame's view
# lenses are followed at nodes, straight between: to some 0.01 px
NODE_PX, LEAST_NODES = 8, 65
LEAST_SHARE = 0.01  # of the event camera's pixels that must land in the frame


@dataclass(frozen=True)
class PixelTable:
    """`cells` (He, We) uint32: y << 16 | x in a grid of `size`, or OUTSIDE. `frame_size` of the
    frames whose view that is.
    """

    cells: np.ndarray
    size: tuple[int, int]
    frame_size: tuple[int, int]

    @property
    def event_size(self) -> tuple[int, int]:
        """(height, width) of the event camera."""
        return self.cells.shape[0], self.cells.shape[1]

    @property
    def share_inside(self) -> float:
        """Share of the event camera's pixels that land in the frame."""
        return float(np.mean(self.cells != OUTSIDE))

    def apply(self, events: Events) -> Events:
        """The events at their pixels in the frame's view; those that land outside are left out.

        Every event must be on the event camera's sensor.
        """
        given, out = EventArrays.of(events), EventArrays.allocate(len(events))
        kept = out.first(_look_up(given, self.cells, out))
        return Events(kept.x, kept.y, kept.p, kept.t)


@numba.njit(nogil=True, cache=True)
def _look_up(given, cells, out):
    kept = 0
    for i in range(len(given.t)):
        cell = cells[given.y[i], given.x[i]]
        out.x[kept], out.y[kept] = cell & 0xFFFF, cell >> 16
        out.p[kept], out.t[kept] = given.p[i], given.t[i]
        kept += cell != OUTSIDE
    return kept


def sensor_pixels(size: tuple[int, int]) -> np.ndarray:
    """(H * W, 2) float64: x and y of every pixel, row by row."""
    y, x = np.mgrid[:size[0], :size[1]].astype(np.float64)
    return np.column_stack([x.ravel(), y.ravel()])


def from_homography(matrix: np.ndarray, event_size: tuple[int, int],
                    frame_size: tuple[int, int]) -> PixelTable:
    """`matrix` (3, 3) takes (x, y, 1) of the event camera to the frame's pixel.

    Raises ConfigError where that is (nearly) nowhere in the frame.
    """
    moved = np.column_stack([sensor_pixels(event_size), np.ones(event_size[0] * event_size[1])])
    moved = moved @ np.asarray(matrix, np.float64).T
    seen = moved[:, 2] > 0  # a point behind the camera is in no picture
    places = moved[:, :2] / np.where(seen, moved[:, 2], 1)[:, None]
    return from_places(places, seen, event_size, frame_size)


def from_cameras(event: Calibration, frame: Calibration, to_frame: np.ndarray,
                 plane_m: float = 0.0) -> PixelTable:
    """Through both lenses: undistorted with the event camera's, turned, distorted with the frame
    camera's. `to_frame` (4, 4) takes a point of the event camera's optical frame to the frame
    camera's, m. What is seen is taken to lie on the plane z = `plane_m` of the frame camera; 0: so
    far that only the rotation matters.

    Raises ConfigError where (nearly) nothing of it is in the frame.
    """
    height, width = (max(-(-(side - 1) // NODE_PX) + 1, min(side, LEAST_NODES))
                     for side in event.size)
    nodes = sensor_pixels((height, width)) * (np.array(event.size[::-1]) - 1) / np.maximum(
        [width - 1, height - 1], 1)
    rays, good = event.unproject(nodes)
    points = rays @ to_frame[:3, :3].T
    if plane_m:
        ahead = points[:, 2] > 1e-6
        depth = (plane_m - to_frame[2, 3]) / np.where(ahead, points[:, 2], 1)
        good, points = good & ahead & (depth > 0), to_frame[:3, 3] + depth[:, None] * points
    places, sharp = frame.project(points)
    found = np.column_stack([places, ~(good & sharp)]).reshape(height, width, 3)
    found = _between_nodes(_between_nodes(found, event.size[0], 0), event.size[1], 1).reshape(-1, 3)
    return from_places(found[:, :2], found[:, 2] == 0, event.size, frame.size)


def _between_nodes(values: np.ndarray, count: int, axis: int) -> np.ndarray:
    """`count` values along the axis, linear between those there, first and last the same."""
    at = np.linspace(0, values.shape[axis] - 1, count)
    low = np.minimum(at.astype(int), max(values.shape[axis] - 2, 0))
    high = np.minimum(low + 1, values.shape[axis] - 1)
    share = (at - low).reshape([-1 if n == axis else 1 for n in range(3)])
    return values.take(low, axis) * (1 - share) + values.take(high, axis) * share


def from_places(places: np.ndarray, known: np.ndarray, event_size: tuple[int, int],
                frame_size: tuple[int, int]) -> PixelTable:
    """`places` (He * We, 2) x, y in the frame of each pixel of the event camera, row by row, where
    `known` (He * We,) bool. Raises ConfigError where fewer than LEAST_SHARE are in the frame.
    """
    height, width = size = _grid_size(places, known, event_size, frame_size)
    scale = np.array([width / frame_size[1], height / frame_size[0]])
    with np.errstate(invalid='ignore', over='ignore'):
        cells = np.rint((places + 0.5) * scale - 0.5)
        inside = known & (cells >= 0).all(1) & (cells[:, 0] < width) & (cells[:, 1] < height)
    if inside.mean() < LEAST_SHARE:
        raise ConfigError(
            f'{inside.mean():.1%} of the event camera\'s pixels land in the frame, at least '
            f'{LEAST_SHARE:.0%} must: check which camera is which, and the rotation between them')
    x, y = np.where(inside[:, None], cells, 0).astype(np.uint32).T
    table = np.where(inside, y << np.uint32(16) | x, np.uint32(OUTSIDE)).astype(np.uint32)
    return PixelTable(table.reshape(event_size), size, frame_size)


def _grid_size(places: np.ndarray, known: np.ndarray, event_size: tuple[int, int],
               frame_size: tuple[int, int]) -> tuple[int, int]:
    """The frame's size, or smaller where a pixel of the event camera covers more than one of it."""
    grid, known = places.reshape(*event_size, 2), known.reshape(event_size)
    if min(event_size) < 2:
        return frame_size
    right, down = (grid[:-1, 1:] - grid[:-1, :-1], grid[1:, :-1] - grid[:-1, :-1])
    inside = known & (grid >= 0).all(2) & (grid < np.array(frame_size[::-1])).all(2)
    inside = inside[:-1, :-1] & known[:-1, 1:] & known[1:, :-1]
    if not inside.any():
        return frame_size
    areas = np.abs(right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0])[inside]
    step = max(float(np.sqrt(np.median(areas))), 1.0)
    return max(round(frame_size[0] / step), 1), max(round(frame_size[1] / step), 1)
