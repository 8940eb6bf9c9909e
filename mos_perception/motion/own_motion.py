"""Which instances the camera's motion explains, from the events alone.

A camera that moves makes events at every edge, and a network may see movers there. The scene's
motion is found from the events outside of all instances (`contrast.py`). Moved along it, a thing at
rest is as sharp as it gets; a mover gets sharper along a motion of its own. That is judged on
events held out: found on every second event of an instance, tried on the others, so that chance
gains nothing. A camera at rest explains nothing.
"""

from __future__ import annotations

import cv2
import numpy as np

from mos_perception.datatypes import EventWindow
from mos_perception.motion.contrast import MAX_EVENTS as MAX_CAMERA_EVENTS
from mos_perception.motion.contrast import (
    PARAMETERS,
    SampledEvents,
    climb,
    contrast,
    finest_cell,
    maximise,
    sampled,
    search,
)

MIN_GAIN = 1.03         # of the own motion: how much is lost and gained, `training.ego_motion`
CHANCE = 0.45           # and this over the root of the number of events
MIN_EVENTS = 16         # fewer say nothing of an instance
MAX_EVENTS = 6_000      # looked at, over all instances
MAX_EVENTS_EACH = 3_000
REACH = 3               # an own motion is searched so many cells of two finest ones around
OUTSIDE = 0.25          # share of the events: a camera that moves makes them everywhere
SPREAD = 0.5            # share of the image's parts with a quarter of the mean count or more
_PARTS = 4              # parts along each side
_EDGE = 2               # finest cells around the instances that their own edges may fill
_AGREE = 0.01           # share of contrast that the events outside may lose
_MARGIN = 8             # finest cells around an instance that its events may be moved to


def own_motion(window: EventWindow, masks: np.ndarray, has_frame: bool) -> np.ndarray:
    """(N,) bool: which of the instances `masks` (N, H, W) bool the camera does not explain.

    `masks` at the sensor's size. All, where the camera rests or too few events are outside of the
    masks to say. With too few events inside one, the frame's word counts if there is one.
    """
    moves = np.ones(len(masks), bool)
    if not len(masks):
        return moves
    events = sampled(window)
    camera = _camera(events, masks)
    if camera is None:
        return moves
    cell, (row, column) = finest_cell(events.size), events.pixels()
    events = events.moved(camera)
    most = min(MAX_EVENTS_EACH, MAX_EVENTS // len(masks))
    for index, mask in enumerate(masks):
        inside = events.where(mask[row, column])
        if len(inside) < MIN_EVENTS:
            moves[index] = has_frame
        else:
            inside = inside.every(most).cropped(_MARGIN * cell)
            moves[index] = _gain(inside, cell) >= MIN_GAIN + CHANCE / np.sqrt(len(inside))
    return moves


def camera_motion(window: EventWindow, masks: np.ndarray) -> np.ndarray | None:
    """(4,) parameters (`contrast.ContrastFit`) of the scene around `masks` (N, H, W) bool.

    None where it rests or too few events say.
    """
    return _camera(sampled(window), masks)


def _spread(events: SampledEvents) -> bool:
    """Whether the events are all over the image, as a camera's motion makes them.

    Before a camera at rest a mover that the model missed makes most events, in one place.
    """
    row, column = events.pixels()
    height, width = events.size
    places = row * _PARTS // height * _PARTS + column * _PARTS // width
    counts = np.bincount(places, minlength=_PARTS * _PARTS)
    return bool((counts > counts.mean() / 4).mean() >= SPREAD)


def _camera(events: SampledEvents, masks: np.ndarray) -> np.ndarray | None:
    row, column = events.pixels()
    outside = events
    if len(masks):
        around = _grown(masks.any(0), round(_EDGE * finest_cell(events.size)))
        outside = events.where(~around[row, column])
    if len(outside) < OUTSIDE * len(events) or not _spread(outside):
        return None
    found = maximise(outside)
    if found is None or not found.moves:
        return None
    return _shared(found.parameters, outside, events)


def _shared(camera: np.ndarray, outside: SampledEvents, events: SampledEvents) -> np.ndarray:
    """(4,) parameters near `camera` that suit all `events`, if those `outside` agree; else it."""
    cell = finest_cell(events.size)
    found = climb(events.every(MAX_CAMERA_EVENTS), camera, cell, times=2)
    agree = contrast(outside, found, cell) >= (1 - _AGREE) * contrast(outside, camera, cell)
    return found if agree else camera


def _grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * pixels + 1,) * 2, np.uint8)) > 0


def _gain(events: SampledEvents, cell: float) -> float:
    """How much sharper held-out events get by a translation than left where they are."""
    rest = np.zeros(PARAMETERS)
    halves = events.where(slice(0, None, 2)), events.where(slice(1, None, 2))
    gains = []
    for seen, held_out in (halves, halves[::-1]):
        own = _best_translation(seen, cell)
        gains.append(contrast(held_out, own, cell) / contrast(held_out, rest, cell))
    return float(np.mean(gains))


def _best_translation(events: SampledEvents, cell: float) -> np.ndarray:
    """(4,) parameters: climbed to from rest, or from the best of a coarse grid around it."""
    rest = np.zeros(PARAMETERS)
    near = climb(events, rest, cell, count=2, times=2)
    far = climb(events, search(events, rest, 2 * cell, REACH), cell, count=2, times=2)
    return max(near, far, key=lambda found: contrast(events, found, cell))
