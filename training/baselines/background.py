"""Background subtraction by a mixture of Gaussians per pixel (Zivkovic 2004, OpenCV's MOG2)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2

from mos_perception.datatypes import EventWindow, Frame, Instances
from training.baselines.baseline import as_instances, require_same_size
from training.baselines.morphology import components, open_and_close


@dataclass(frozen=True)
class BackgroundSettings:
    """What counts as foreground. Constants tuned on `train` (`training.baselines.tune`)."""

    variance: float = 16.0
    """Squared Mahalanobis distance from the background beyond which a pixel is foreground."""
    blur: float = 0.0
    """Sigma of the blur against noise, px at 160 px width; 0 = none."""
    history: int = 60
    """Frames that the background is learnt from."""
    opening: int = 0
    """Kernel that removes specks, px at 160 px width; 0 = none."""
    closing: int = 9
    """Kernel that closes gaps, px at 160 px width; 0 = none."""
    min_area: float = 0.002
    """Smallest instance, share of the image."""


class BackgroundBaseline:
    """Needs a fixed camera, and some frames to learn the background from."""

    def __init__(self, settings: BackgroundSettings = BackgroundSettings()) -> None:
        self.settings = settings
        self.reset()

    def reset(self) -> None:
        """Forget the background."""
        self._model = cv2.createBackgroundSubtractorMOG2(
            self.settings.history, self.settings.variance, False)
        self._size: tuple[int, int] | None = None

    def update(self, frame: Frame, window: EventWindow | None = None) -> Instances:
        """What is not background in `frame`; nothing in the first one.

        Raises FrameError if the size changed.
        """
        first = self._size is None
        self._size = self._size or frame.size
        require_same_size(self._size, frame.size)
        sigma = self.settings.blur * frame.size[1] / 160
        image = cv2.GaussianBlur(frame.image, (0, 0), sigma) if sigma else frame.image
        label = self._model.apply(image)
        if first:
            return Instances.empty(*frame.size)
        moving = open_and_close(label > 0, self.settings.opening, self.settings.closing)
        return as_instances(components(moving, self.settings.min_area))
