"""Event counts after the global motion of greatest contrast (Gallego 2018) is undone.

Under a moving camera only where the mean time of the compensated events is off (Mitrokhin 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mos_perception.datatypes import EventWindow, Frame, Instances
from training.baselines.baseline import as_instances, require_same_size
from training.baselines.morphology import components, fill_holes, open_and_close
from training.baselines.motion import event_image, global_motion, warp_events

_MIN_EVENTS = 10


@dataclass(frozen=True)
class EventCountSettings:
    """What counts as moving in a window. Constants tuned on `train` (`training.baselines.tune`)."""

    density: float = 0.2
    """Events per pixel and window, smoothed, that make a pixel active."""
    active_share: float = 0.1
    """Share of the image: up to so many active pixels the camera is taken to be fixed."""
    recent: float = 0.5
    """Fixed camera: what fires in this last share of the window moves."""
    contrast: float = 3.0
    """Moving camera: how many times the mean count of the image a moving pixel holds."""
    lateness: float = 0.03
    """Moving camera: how far off the mean time of a moving pixel's events is, share of a window."""
    blur: float = 1.0
    """Sigma of the smoothing, px at 160 px width."""
    closing: int = 9
    """Kernel that closes gaps, px at 160 px width; 0 = none."""
    min_area: float = 0.002
    """Smallest instance, share of the image."""


class EventCountBaseline:
    """Needs the window only; remembers the motion to search from."""

    def __init__(self, settings: EventCountSettings = EventCountSettings()) -> None:
        self.settings = settings
        self._motion = np.zeros(4)

    def reset(self) -> None:
        """Forget the last motion."""
        self._motion = np.zeros(4)

    def update(self, frame: Frame, window: EventWindow | None = None) -> Instances:
        """What moves at the end of `window`; nothing without events.

        Raises FrameError if the sizes of window and frame differ.
        """
        if window is None or len(window.events) < _MIN_EVENTS:
            return Instances.empty(*frame.size)
        require_same_size((window.height, window.width), frame.size)
        settings, events = self.settings, window.events
        points = np.stack([events.x, events.y]).astype(np.float32)
        length_ns = window.t1_ns - window.t0_ns
        ages = ((window.t1_ns - events.t) / length_ns).astype(np.float32)
        active = self._density(points, frame.size) > settings.density
        if active.mean() <= settings.active_share:
            recent = self._density(points[:, ages <= settings.recent], frame.size)
            moving = recent > settings.density * settings.recent
        else:
            moving = self._against_camera(points, ages, frame.size)
        moving = fill_holes(open_and_close(moving, 0, settings.closing))
        return as_instances(components(moving, settings.min_area))

    def _against_camera(self, points: np.ndarray, ages: np.ndarray,
                        size: tuple[int, int]) -> np.ndarray:
        """(H, W) bool: where compensated events are dense and earlier or later than the mean."""
        settings = self.settings
        self._motion = global_motion(points, ages, size, self._motion)
        points = warp_events(points, ages, self._motion, size)
        counts = self._density(points, size)
        lateness = self._density(points, size, ages - ages.mean())
        dense = counts > max(settings.density, settings.contrast * counts.mean())
        return dense & (np.abs(lateness) > settings.lateness * counts)

    def _density(self, points: np.ndarray, size: tuple[int, int],
                 weight: np.ndarray | None = None) -> np.ndarray:
        """(H, W) float32 smoothed sums of `weight` (default 1) per pixel."""
        sigma = self.settings.blur * size[1] / 160
        return cv2.GaussianBlur(event_image(points, size, weight), (0, 0), sigma)
