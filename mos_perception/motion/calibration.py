"""A camera's calibration: which ray a pixel sees and which pixel a ray meets, through the lens.

The model is OpenCV's (pinhole with radial and tangential distortion; "plumb_bob" and
"rational_polynomial" of ROS). Rays are in the optical frame of REP 103: x right, y down, z forward.
A distortion polynomial is right near the view it was fitted to and turns back outside of it: what
lies there is told, not guessed. N points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

NEWTON_STEPS = 20
MAX_ERROR_PX = 1e-3  # of a pixel undone and done again
_LEAST_DEPTH = 1e-3  # z of a unit ray in front of the camera


@dataclass(frozen=True)
class Calibration:
    """Of a sensor `size` (height, width): focal lengths and centre fx, fy, cx, cy in px, and 0, 4,
    5 or 8 distortion coefficients in OpenCV's order (k1 k2 p1 p2 k3 k4 k5 k6). `frame_id` is the
    optical frame of the rays, '' where nobody says.
    """

    size: tuple[int, int]
    intrinsics: tuple[float, float, float, float]
    distortion: tuple[float, ...] = ()
    frame_id: str = ''

    def at_size(self, size: tuple[int, int]) -> Calibration:
        """Of the same view in an image of another (height, width)."""
        y, x = size[0] / self.size[0], size[1] / self.size[1]
        fx, fy, cx, cy = self.intrinsics
        return replace(self, size=size, intrinsics=(
            fx * x, fy * y, (cx + 0.5) * x - 0.5, (cy + 0.5) * y - 0.5))

    @property
    def matrix(self) -> np.ndarray:
        """(3, 3) float64 camera matrix."""
        fx, fy, cx, cy = self.intrinsics
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])

    def project(self, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 2) pixels of (N, 3) rays, and (N,) bool where they can be trusted."""
        unit = rays / np.linalg.norm(rays, axis=1, keepdims=True)
        ahead = unit[:, 2] > _LEAST_DEPTH
        flat = np.where(ahead[:, None], unit[:, :2] / np.where(ahead, unit[:, 2], 1)[:, None], 0)
        pixels, slopes = self._pixels(flat)
        return pixels, ahead & (np.linalg.det(slopes) > 0)

    def unproject(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) rays with z = 1 of (N, 2) pixels, and (N,) bool where the lens can be undone."""
        fx, fy, cx, cy = self.intrinsics
        found = (pixels - [cx, cy]) / [fx, fy]
        for _ in range(NEWTON_STEPS):
            there, slopes = self._pixels(found)
            good = np.abs(np.linalg.det(slopes)) > 1e-9
            slopes[~good] = np.diag([fx, fy])
            step = np.linalg.solve(slopes, (pixels - there)[..., None])[..., 0]
            found = found + np.clip(step, -0.5, 0.5)
            if np.abs(step).max() < 1e-9:
                break
        there, slopes = self._pixels(found)
        good = (np.abs(there - pixels).max(1) < MAX_ERROR_PX) & (np.linalg.det(slopes) > 0)
        return np.column_stack([found, np.ones(len(found))]), good

    def _pixels(self, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (N, 2) of points (N, 2) on the plane z = 1, and their derivatives (N, 2, 2)."""
        points, zero = np.column_stack([flat, np.ones(len(flat))]), np.zeros(3)
        pixels, slopes = cv2.projectPoints(points, zero, zero, self.matrix,
                                           np.array(self.distortion, np.float64))
        # columns of the derivatives: 3 of the rotation, 3 of the translation, ...
        return pixels.reshape(-1, 2), slopes[:, 3:5].reshape(-1, 2, 2)
