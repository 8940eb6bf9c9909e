"""Flow minus homography: what moves otherwise than the camera, is connected and is large enough."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mos_perception.datatypes import EventWindow, Frame, Instances
from training.baselines.baseline import as_instances
from training.baselines.morphology import components, open_and_close
from training.baselines.motion import Evidence, find_evidence


@dataclass(frozen=True)
class HomographySettings:
    """What counts as moving. Constants tuned on the `train` split (`training.baselines.tune`)."""

    residual_px: float = 1.0
    """Flow beyond the camera's, px per frame at 160 px width, that is motion."""
    opening: int = 5
    """Kernel that removes specks, px at 160 px width; 0 = none."""
    closing: int = 5
    """Kernel that closes gaps, px at 160 px width; 0 = none."""
    min_area: float = 0.002
    """Smallest instance, share of the image."""
    change: float = 10.0
    """Grey levels of the compensated frame difference that support an instance."""
    support: float = 0.03
    """Share of an instance's pixels that must change so much."""
    edge: float = 0.8
    """Share of an instance's upper quartile of the residual below which it ends.

    Flow fades from an object's motion to the background's.
    """


class HomographyBaseline:
    """Needs the frame before."""

    def __init__(self, settings: HomographySettings = HomographySettings()) -> None:
        self.settings = settings
        self._previous: np.ndarray | None = None

    def reset(self) -> None:
        """Forget the frame before."""
        self._previous = None

    def update(self, frame: Frame, window: EventWindow | None = None) -> Instances:
        """What moves in `frame`; nothing in the first one.

        Raises FrameError if the size changed.
        """
        previous, self._previous = self._previous, frame.image
        if previous is None:
            return Instances.empty(*frame.size)
        return as_instances(segment(find_evidence(previous, frame.image), self.settings))


def segment(evidence: Evidence, settings: HomographySettings = HomographySettings()) -> np.ndarray:
    """(N, H, W) bool disjoint masks, largest first.

    Threshold, edges, opening and closing, connected components, support by changed grey levels.
    """
    residual = evidence.residual
    moving = residual > settings.residual_px * residual.shape[1] / 160
    count, labels = cv2.connectedComponents(moving.astype(np.uint8), connectivity=4)
    cuts = np.zeros(count)
    for part in range(1, count):
        cuts[part] = settings.edge * np.quantile(residual[labels == part], 0.75)
    moving &= residual > cuts[labels]
    moving = open_and_close(moving, settings.opening, settings.closing)
    masks = components(moving, settings.min_area)
    changed = evidence.difference > settings.change
    supported = [changed[mask].mean() >= settings.support for mask in masks]
    return masks[np.array(supported, bool)]
