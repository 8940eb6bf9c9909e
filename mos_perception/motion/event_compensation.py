"""How the static scene moves over the event sensor while a window lasts.

An event at pixel x and time t stands, at the time `t_ns`, at x + (t_ns - t) / span_ns * d(x): d is
where a static point goes in the `span_ns` before `t_ns`, taken as a straight path. Moved so, a
static edge's events of all times fall together, and only what moves by itself stays smeared.

d is given at nodes and is bilinear between them, so every source of motion fits it: a homography
or dense flow of the frames (here), greatest contrast (`contrast.py`), a gyroscope with the lens'
distortion (`gyroscope.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

NODE_PX = 16
MAX_DISPLACEMENT_PX = 1000.0


@dataclass(frozen=True)
class EventMotion:
    """Where the static scene goes in the `span_ns` that end at `t_ns`.

    `displacement` (rows, columns, 2) float32, px right and down, at the pixels (16 column, 16 row):
    the shape `node_count` says.
    """

    displacement: np.ndarray
    t_ns: int
    span_ns: int

    def over(self, t0_ns: int, t1_ns: int) -> EventMotion:
        """The same motion with the span stretched, so that [t0, t1] is within a span of `t_ns`."""
        span_ns = max(abs(self.t_ns - t0_ns), abs(self.t_ns - t1_ns), 1)
        scale = np.float32(span_ns / self.span_ns)
        return EventMotion(self.displacement * scale, self.t_ns, span_ns)


def node_count(size: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of nodes that surround every pixel of a sensor `size` (height, width)."""
    return (size[0] - 1) // NODE_PX + 2, (size[1] - 1) // NODE_PX + 2


def node_pixels(size: tuple[int, int]) -> np.ndarray:
    """(rows, columns, 2) float64: x and y of every node of a sensor `size` (height, width)."""
    rows, columns = node_count(size)
    y, x = np.mgrid[:rows, :columns] * float(NODE_PX)
    return np.stack([x, y], 2)


def from_displacement(displacement: np.ndarray, t_ns: int, span_ns: int) -> EventMotion | None:
    """The motion of (rows, columns, 2) px at the nodes; None if it is not finite or absurdly large.

    A homography sends points to infinity where its denominator is 0.
    """
    finite = np.isfinite(displacement).all()
    if span_ns <= 0 or not finite or np.abs(displacement).max() > MAX_DISPLACEMENT_PX:
        return None
    return EventMotion(displacement.astype(np.float32), int(t_ns), int(span_ns))


def from_homography(matrix: np.ndarray, size: tuple[int, int], t_ns: int, span_ns: int,
                    frame_size: tuple[int, int] | None = None) -> EventMotion | None:
    """The motion of a scene seen through a homography (Hartley and Zisserman 2003, section 2.3).

    `matrix` (3, 3) takes a static point's pixel `span_ns` before `t_ns` to its pixel at `t_ns`, in
    a frame of `frame_size` (height, width; default: the sensor's `size`) with the sensor's view.
    None if it is degenerate.
    """
    matrix = between_sizes(np.asarray(matrix, np.float64), frame_size or size, size)
    before = node_pixels(size)
    x, y = before[..., 0], before[..., 1]
    moved = [matrix[k, 0] * x + matrix[k, 1] * y + matrix[k, 2] for k in range(3)]
    sign = np.sign(moved[2])
    if not np.isfinite(matrix).all() or sign.min() != sign.max() or sign.min() == 0:
        return None
    now = np.stack([moved[0] / moved[2], moved[1] / moved[2]], 2)
    return from_displacement(now - before, t_ns, span_ns)


def between_sizes(matrix: np.ndarray, old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """The homography between images of size `old` as one between images of size `new` (h, w).

    Pixel centres are half a pixel from the image's edge in both.
    """
    if old == new:
        return matrix
    resize = resize_matrix(old, new)
    return resize @ matrix @ np.linalg.inv(resize)


def resize_matrix(old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """(3, 3) that takes pixels of an image of size `old` to those of the same at size `new`."""
    x, y = new[1] / old[1], new[0] / old[0]
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])


def from_flow(flow: np.ndarray, size: tuple[int, int], t_ns: int,
              span_ns: int) -> EventMotion | None:
    """The motion of a scene by the camera's dense flow from the frame at `t_ns` to the one before.

    `flow` (h, w, 2) px of its own size, over `span_ns`; smooth: it is read at the nodes only. None
    if it is not finite.
    """
    scale = np.array([size[1] / flow.shape[1], size[0] / flow.shape[0]])
    pixels = (node_pixels(size) + 0.5) / scale - 0.5
    x, y = np.moveaxis(pixels.astype(np.float32), 2, 0)
    found = cv2.remap(flow.astype(np.float32), x, y, cv2.INTER_LINEAR,
                      borderMode=cv2.BORDER_REPLICATE)
    return from_displacement(-found * scale, t_ns, span_ns)
