"""A window in which nothing moves: one picture under a camera that turns.

As `generate_safe_camera_sequence` of the official code of GMOS does: smooth pitch, yaw and roll of
a camera of 50 degrees, zoomed in so that no border shows. A turning camera moves all points of a
picture by one homography K R K^-1, whatever their depth: no parallax, no object.
"""

from __future__ import annotations

import cv2
import numpy as np

FIELD_OF_VIEW, ZOOM = np.radians(50.0), 1.2
MOST = np.radians((8.0, 8.0, 2.0))
"""Pitch, yaw and roll at the window's ends, at most; less where a border would show."""
_SMALLER = 0.9


def still_window(image: np.ndarray, rng: np.random.Generator, frames: int = 5) -> list[np.ndarray]:
    """`frames` views of an image (H, W, 3), each (H, W, 3); the middle one looks straight
    ahead.
    """
    size = image.shape[:2]
    times = np.linspace(-1, 1, frames)[:, None]
    # steady, and faster or slower on the way
    steady, changing = rng.uniform(-1, 1, (2, 3))
    angles = MOST * (0.8 * steady * times + 0.2 * changing * times ** 2)
    while not all(inside(homography(turn, size), size) for turn in angles):
        angles *= _SMALLER
    return [cv2.warpPerspective(image, homography(turn, size), size[::-1],
                                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                                borderMode=cv2.BORDER_REPLICATE) for turn in angles]


def homography(turn: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(3, 3): pixels of the view of a camera turned by pitch, yaw and roll (3,) rad to those of the
    picture (H, W).
    """
    height, width = size
    focal = width / 2 / np.tan(FIELD_OF_VIEW / 2)
    picture, view = (np.array([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1]])
                     for f in (focal, ZOOM * focal))
    (a, b, c), (d, e, f) = np.cos(turn), np.sin(turn)
    pitch = np.array([[1, 0, 0], [0, a, -d], [0, d, a]])
    yaw = np.array([[b, 0, e], [0, 1, 0], [-e, 0, b]])
    roll = np.array([[c, -f, 0], [f, c, 0], [0, 0, 1]])
    return picture @ roll @ yaw @ pitch @ np.linalg.inv(view)


def inside(to_picture: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether the whole view lies in the picture: its corners do, as both are convex."""
    height, width = size
    corners = np.array([[0, 0, 1], [width - 1, 0, 1], [0, height - 1, 1],
                        [width - 1, height - 1, 1]], float)
    x, y, depth = to_picture @ corners.T
    return bool((depth > 0).all() and (x >= 0).all() and (y >= 0).all()
                and (x <= (width - 1) * depth).all() and (y <= (height - 1) * depth).all())
