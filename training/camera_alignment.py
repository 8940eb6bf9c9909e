"""The camera between neighbouring frames to hundredths of a pixel: homographies that explain the
pixels themselves, not a flow field.

Dense flow finds little hold on a smooth background; on the thesis' scenes the homography fitted to
it is a tenth of a pixel off, in every tenth frame a whole one. Here that and a plain shift are
starts of a robust photometric alignment (Gauss-Newton with weights, Baker and Matthews 2004,
"Lucas-Kanade 20 Years On"), of which the better one counts.

The limit: the pixels must be mostly the background's, those of one colour say nothing. Before a
wall of one colour the camera follows the largest object.
"""

from __future__ import annotations

import cv2
import numpy as np

from mos_perception.motion.camera_motion import camera_flow, fit_homography
from mos_perception.motion.flow import DenseFlow, FlowSettings, pixel_grid

REACH_PX = 16        # of the shift that is searched
COARSE = 2.0, 6      # blur (px) and steps of the alignment by a shift
FINE = 0.7, 10       # and of the homography's
OBJECT = 10.0        # grey levels of error beyond which a pixel is not the background's
_DONE = 2e-5         # of half the image


def cameras(frames: np.ndarray) -> list[np.ndarray]:
    """T - 1 homographies (3, 3), px of a frame to px of the next, of frames (T, H, W, 3) uint8."""
    flow = DenseFlow(FlowSettings(frames.shape[1:3], 'medium', 0))
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    found = []
    for now, other in zip(greys, greys[1:]):
        starts = (_shift(now, other), fit_homography(flow(now, other, now.shape)).matrix)
        pair = now.astype(np.float32), other.astype(np.float32)
        aligned = [align(align(start, *pair, *COARSE, shift_only=True), *pair, *FINE)
                   for start in starts]
        found.append(min(aligned, key=lambda matrix: _error(matrix, *pair)))
    return found


def align(matrix: np.ndarray, now: np.ndarray, other: np.ndarray, blur: float, steps: int,
          shift_only: bool = False) -> np.ndarray:
    """The homography (3, 3) from `now` to `other` (H, W) float32 that explains more pixels, from
    one near it.
    """
    height, width = now.shape
    unit = 2 / max(now.shape)  # so that the eight entries are of one size
    turn = np.array([[unit, 0, -unit * (width - 1) / 2], [0, unit, -unit * (height - 1) / 2],
                     [0, 0, 1]])
    now, other = (cv2.GaussianBlur(image, (0, 0), blur) for image in (now, other))
    slopes = [cv2.Scharr(other, cv2.CV_32F, *axis) / (32 * unit) for axis in ((1, 0), (0, 1))]
    grid = pixel_grid(now.shape)
    x, y = (unit * grid + turn[:2, 2]).astype(np.float32).reshape(-1, 2).T
    matrix = turn @ matrix @ np.linalg.inv(turn)
    for _ in range(steps):
        projected = matrix.astype(np.float32) @ np.stack([x, y, np.ones_like(x)])
        to_x, to_y = projected[:2] / projected[2]
        at = (np.stack([to_x, to_y], 1) - turn[:2, 2]).astype(np.float32) / np.float32(unit)
        at = at.reshape(height, width, 2)
        missed = (now - _sampled(other, at)).ravel()
        by_x, by_y = (_sampled(slope, at).ravel() / projected[2] for slope in slopes)
        rows = [by_x, by_y]
        if not shift_only:
            depth = -(by_x * to_x + by_y * to_y)
            rows = [by_x * x, by_x * y, by_x, by_y * x, by_y * y, by_y, depth * x, depth * y]
        rows, seen = np.stack(rows), inside(at, now.shape).ravel()
        weights = seen * _weights(missed, seen)
        normal = ((rows * weights) @ rows.T).astype(np.float64)
        normal[np.diag_indices(len(rows))] *= 1 + 1e-4  # where nothing is seen the step is zero
        normal[np.diag_indices(len(rows))] += 1e-3
        step = np.linalg.solve(normal, ((rows * weights) @ missed).astype(np.float64))
        if shift_only:
            matrix[:2, 2] += step
        else:
            matrix = matrix + np.append(step, 0).reshape(3, 3)
        if np.abs(step).max() < _DONE:
            break
    matrix = np.linalg.inv(turn) @ matrix @ turn
    return matrix / matrix[2, 2]


def inside(at: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: the points (H, W, 2) px that an image of that size (height, width) shows, pixels
    to their edges.
    """
    x, y = at[..., 0], at[..., 1]
    return (x > -0.5) & (x < size[1] - 0.5) & (y > -0.5) & (y < size[0] - 0.5)


def _weights(missed: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Geman and McClure's, of the errors' own spread."""
    spread = 1.5 * max(1.48 * float(np.median(np.abs(missed[seen]))) if seen.any() else 0, 0.5)
    return 1 / (1 + (missed / spread) ** 2) ** 2


def _shift(now: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(3, 3) the shift in steps of 2 px that explains most of `now` (H, W) uint8; of equal ones the
    smallest.
    """
    now, other = (cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
                  for image in (now, other))
    reach = min(REACH_PX // 2, (min(now.shape) - 1) // 2)
    height, width = now.shape[0] - 2 * reach, now.shape[1] - 2 * reach
    middle = now[reach:reach + height, reach:reach + width]
    errors = {}
    for dy in range(2 * reach + 1):
        for dx in range(2 * reach + 1):
            missed = cv2.absdiff(middle, other[dy:dy + height, dx:dx + width])
            errors[dx - reach, dy - reach] = float(np.minimum(missed, OBJECT).mean())
    matrix = np.eye(3)
    matrix[:2, 2] = 2 * np.array(min(errors, key=lambda shift: (errors[shift], np.hypot(*shift))))
    return matrix


def _error(matrix: np.ndarray, now: np.ndarray, other: np.ndarray) -> float:
    """Grey levels, on average, each pixel's at most `OBJECT`; infinite where no pixel is left."""
    grid = pixel_grid(now.shape)
    at = grid + camera_flow(matrix, grid)
    missed = np.abs(now - _sampled(other, at))[inside(at, now.shape)]
    return float(np.minimum(missed, OBJECT).mean()) if missed.size else np.inf


def _sampled(image: np.ndarray, at: np.ndarray) -> np.ndarray:
    return cv2.remap(image, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
