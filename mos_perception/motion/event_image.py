"""An image drawn of events, for motion evidence where there is no frame.

Each event adds its polarity, faded by its age: a leaky integral of brightness changes, which shows
edges as a blurred frame does (Scheerlinck, Barnes, Mahony 2018, "Continuous-time Intensity
Estimation Using Event Cameras", without the frames). Flow finds its way over it as over a frame.
"""

from __future__ import annotations

import cv2
import numpy as np

from mos_perception.datatypes import EventWindow

_AGE_STEP_NS = 1_000_000  # the fading is tabled: an exponential for each of millions takes long
_SMOOTH_PX = 0.7
_HALF_FULL = 2.0  # events of one polarity at once that take grey three quarters of its way


def event_image(window: EventWindow, fade_ms: float) -> np.ndarray:
    """(H, W, 3) uint8, grey as seen at the window's end: 128 where nothing changed.

    An event of this age counts e^(-age / fade).
    """
    events, shape = window.events, (window.height, window.width)
    steps = (window.t1_ns - window.t0_ns) // _AGE_STEP_NS + 1
    faded = np.exp(-np.arange(steps) * (_AGE_STEP_NS * 1e-6 / fade_ms))
    age = (window.t1_ns - events.t) // _AGE_STEP_NS
    weights = faded[age] * (2.0 * events.p - 1.0)
    cells = events.y.astype(np.intp) * window.width + events.x
    total = np.bincount(cells, weights, shape[0] * shape[1]).reshape(shape).astype(np.float32)
    level = 128 + 127 * np.tanh(cv2.GaussianBlur(total, (0, 0), _SMOOTH_PX) / _HALF_FULL)
    return np.repeat(np.rint(level).astype(np.uint8)[..., None], 3, 2)
