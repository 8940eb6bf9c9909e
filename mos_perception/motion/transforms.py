"""Where the frames of a robot are to each other, as `/tf_static` says it.

A transform takes a point of the child's frame to the parent's (tf2's convention): R p + t.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Transform:
    """`matrix` (4, 4) takes points of frame `child`, m, to frame `parent`."""

    parent: str
    child: str
    matrix: np.ndarray


class TransformTree:
    """The newest transform of every frame to its parent."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._parents: dict[str, Transform] = {}

    def add(self, transform: Transform) -> None:
        """Take one; it replaces an older one of the same child."""
        self._parents[transform.child] = transform

    def between(self, source: str, target: str) -> np.ndarray | None:
        """(4, 4) that takes points of frame `source` to frame `target`; None where no path does."""
        ups, downs = self._ancestors(source), self._ancestors(target)
        for frame, up in ups.items():
            if frame in downs:
                return np.linalg.inv(downs[frame]) @ up
        return None

    def _ancestors(self, frame: str) -> dict[str, np.ndarray]:
        """Frame and everything above it, nearest first -> the matrix that leads there."""
        found, matrix = {frame: np.eye(4)}, np.eye(4)
        while frame in self._parents and self._parents[frame].parent not in found:
            step = self._parents[frame]
            frame, matrix = step.parent, step.matrix @ matrix
            found[frame] = matrix
        return found


def rotation_matrix(x: float, y: float, z: float, w: float) -> np.ndarray:
    """(3, 3) rotation of a unit quaternion."""
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross
