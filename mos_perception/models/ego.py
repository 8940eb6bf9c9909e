"""Instances that are nothing but the camera's own motion, taken out."""

from __future__ import annotations

import numpy as np

from mos_perception.datatypes import Events, EventWindow, Instances, SyncedInput
from mos_perception.masks import masks_at_size
from mos_perception.motion.own_motion import own_motion
from mos_perception.stages import StageTimes


def without_ego(instances: Instances, sample: SyncedInput, stages: StageTimes) -> Instances:
    """The instances that move by themselves, by the events of `sample`; all where there are none.

    Books the stage 'ego' if there was something to judge.
    """
    window = sample.window
    if window is None or not len(window.events) or not len(instances):
        return instances
    with stages.timed('ego'):
        masks = masks_at_size(instances.masks, (window.height, window.width))
        moves = own_motion(window, masks, sample.frame is not None)
        if moves.all():
            return instances
        return instances.of(moves)


def warm_up() -> None:
    """Have the loops compiled before the first frame needs them."""
    count, size = 2000, (24, 32)
    places = np.arange(count, dtype=np.uint16)
    events = Events(places % 7 * 4, places % 11 * 2, (places % 2).astype(np.uint8),
                    np.arange(1, count + 1, dtype=np.int64))
    masks = np.zeros((1, *size), bool)
    masks[0, :4, :8] = True
    own_motion(EventWindow(events, 0, count, *size), masks, False)
