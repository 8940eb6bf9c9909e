"""How the static scene moves over the event sensor in a window: what the frames say, or the events.
"""

from __future__ import annotations

import numpy as np

from mos_perception.datatypes import EventWindow
from mos_perception.motion.builder import MotionEvidence
from mos_perception.motion.contrast import global_motion
from mos_perception.motion.event_compensation import EventMotion, from_homography


def scene_motion(window: EventWindow, evidence: MotionEvidence | None,
                 stamp_ns: int) -> EventMotion | None:
    """The motion to take out of a window's events; None where nobody knows it.

    `evidence` of the frame at `stamp_ns`; None: no frame, then the events themselves are asked.
    """
    if evidence is None:
        return global_motion(window)
    return from_frames(window, evidence, stamp_ns)


def from_frames(window: EventWindow, evidence: MotionEvidence,
                stamp_ns: int) -> EventMotion | None:
    """By the camera's motion over the gap that is nearest to the window's length.

    Of equals the one before the frame. A gap after it stands in where there is none before: as if
    motion were even.
    """
    length_ms = (window.t1_ns - window.t0_ns) * 1e-6
    known = [(abs(abs(gap) - length_ms), gap, camera.matrix)
             for gap, camera in zip(evidence.gaps_ms, evidence.cameras) if camera is not None]
    if not known:
        return None
    _, gap, matrix = min(known, key=lambda item: item[:2])
    before_to_now = np.linalg.inv(matrix) if gap < 0 else matrix
    return from_homography(before_to_now, (window.height, window.width), stamp_ns,
                           round(abs(gap) * 1e6), evidence.tensor.shape[1:])
