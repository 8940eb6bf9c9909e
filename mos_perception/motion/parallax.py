"""What moves, told from what is merely nearer: the residual off the epipolar lines.

With the homography of the scene's main plane taken out, a static point off that plane moves towards
or away from the epipole alone (Irani, Anandan 1996, "Parallax geometry of pairs of points for 3D
scene analysis"). Seen in the frame's own pixels the epipole is where the camera heads, the same at
every gap while it heads straight on: all gaps fit one. Movers that keep to the line are not told.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from mos_perception.motion.camera_motion import CameraMotion
from mos_perception.motion.flow import length

GRID_PX = 8
LEAST_PX = 0.4         # shorter residuals point anywhere
NOISE_PX = 0.3         # of a residual, at least
ANGLE = 0.15           # rad that a residual's direction may be off the line
MOST_PX = 2.0          # longer residuals vote no stronger
LEAST_POINTS = 20
_HYPOTHESES = 150


def residual(flow: np.ndarray, motion: CameraMotion, grid: np.ndarray) -> np.ndarray:
    """(H, W, 2) px: `flow` (H, W, 2) with the camera's motion taken out, in the frame's own pixels.
    """
    there = (grid + flow).reshape(-1, 1, 2)
    return cv2.perspectiveTransform(there, np.linalg.inv(motion.matrix)).reshape(grid.shape) - grid


def find_epipole(residuals: Sequence[np.ndarray], spreads_px: Sequence[float],
                 grid: np.ndarray) -> np.ndarray | None:
    """(3,) homogeneous pixel that most of the residuals (H, W, 2) point to or away from; None where
    too few are long enough to tell. `spreads_px`: how noisy each is.

    The best of seeded guesses, each of two residuals' lines: equal residuals give equal epipoles.
    """
    cells = (slice(GRID_PX // 2, None, GRID_PX),) * 2
    points, vectors, noise = [], [], []
    for field, spread_px in zip(residuals, spreads_px):
        vector = field[cells].reshape(-1, 2).astype(np.float64)
        kept = length(vector) > max(LEAST_PX, 4 * spread_px)
        points.append(grid[cells].reshape(-1, 2)[kept].astype(np.float64))
        vectors.append(vector[kept])
        noise.append(np.full(int(kept.sum()), max(NOISE_PX, 2 * spread_px)))
    point, vector, tolerance = map(np.concatenate, (points, vectors, noise))
    if len(point) < LEAST_POINTS:
        return None
    lengths = length(vector)
    tolerance = np.maximum(tolerance, ANGLE * lengths)
    lines = np.column_stack([-vector[:, 1], vector[:, 0],
                             point[:, 0] * vector[:, 1] - point[:, 1] * vector[:, 0]])
    one, other = np.random.default_rng(0).integers(len(point), size=(2, _HYPOTHESES))
    guesses = np.cross(lines[one], lines[other])
    guesses = guesses[(np.abs(guesses) > 1e-9).any(1)]  # one line twice meets nowhere
    if not len(guesses):
        return None
    miss = _off_line(guesses[:, None], point[None], vector[None]) / tolerance
    votes = (np.maximum(1 - miss * miss, 0) * np.minimum(lengths, MOST_PX)).sum(1)
    return guesses[votes.argmax()]


def off_epipolar(field: np.ndarray, epipole: np.ndarray | None, grid: np.ndarray) -> np.ndarray:
    """(H, W) px: the residual's part across the line to the epipole; all of it without one."""
    if epipole is None:
        return length(field)
    return _off_line(epipole, grid.astype(np.float64), field).astype(np.float32)


def _off_line(epipole: np.ndarray, point: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """|part of `vector` (..., 2) across the line from `point` (..., 2) to `epipole` (..., 3)|."""
    towards = epipole[..., :2] - epipole[..., 2:] * point
    across = towards[..., 0] * vector[..., 1] - towards[..., 1] * vector[..., 0]
    return np.abs(across) / np.maximum(length(towards), 1e-9)
