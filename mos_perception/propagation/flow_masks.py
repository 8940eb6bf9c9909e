"""Masks along dense flow: the propagator of the light models, for any frame rate and no network.

`tracking.carry` moves each mask by the similarity that most of its flow agrees with. The expected
IoU is the share of the mask that follows it and looks as before; an object of which less than half
does is gone until it is prompted again. A prompt on another frame than the one a sweep is at is
kept, and carried to where it is needed: so stage 2 and the frames before a video's start work, at
the cost of flow over all frames between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mos_perception.masks import mask_box
from mos_perception.motion.backward_flow import LONG_SIDE_PX, flow_size
from mos_perception.motion.flow import DenseFlow, FlowSettings, grey, pixel_grid, warp
from mos_perception.propagation import Carried
from mos_perception.propagation.decisions import Constants
from mos_perception.tracking.carry import CarriedMask, carry

FLOW = Constants(same_iou=0.5, prompt_distance=1)
"""Masks along flow drift within a second: unlike SAM 2's, every proposal of the same object sets
them right.
"""
SUPPORT = 0.5  # of a mask that must follow its motion
INSIDE = 10.0  # logit of a mask's pixels, and its negative outside

Flow = tuple[np.ndarray, np.ndarray]
"""Flow (h, w, 2) px of its own size and its error (h, w) grey levels, as in `SyncedInput`."""
FlowSource = Callable[[int, int], Flow | None]
"""(frame, step) -> the flow of `frame` back to frame - step; None where there is none."""


class FlowPropagator:
    """Objects as masks that move with the picture. Memory: one mask an object, and kept prompts."""

    def __init__(self, flow: FlowSource, size: tuple[int, int]) -> None:
        """`size` (height, width) of the frames; masks stay where they are without flow."""
        self.flow, self.size = flow, size
        self.reset()

    def reset(self) -> None:
        """Drop everything."""
        self._frame: int | None = None
        self._step = 1
        self._masks: dict[int, CarriedMask | None] = {}  # at `_frame`; None: gone
        self._iou: dict[int, float] = {}
        self._prompts: dict[int, dict[int, CarriedMask]] = {}  # on other frames than `_frame`

    def forget(self, number: int) -> None:
        """Drop an object."""
        for table in (self._masks, self._iou, self._prompts):
            table.pop(number, None)

    def prompt(self, frame: int, number: int, mask: np.ndarray) -> Carried:
        """See `MaskPropagator`."""
        seen = _seen(mask)
        if frame == self._frame:
            self._masks[number], self._iou[number] = seen, 1.0
        else:
            self._prompts.setdefault(number, {})[frame] = seen
        if frame != self._frame:
            there = {key: kept[frame] for key, kept in self._prompts.items() if frame in kept}
            return self._carried(there, dict.fromkeys(there, 1.0))
        return self._carried(self._masks, self._iou)

    def carry(self, frame: int, step: int = 1) -> Carried:
        """See `MaskPropagator`."""
        goes_on = self._frame == frame - step and self._step == step
        masks = self._masks if goes_on else {}
        self._masks, self._iou = {}, {}
        for number in sorted(masks.keys() | self._prompts.keys()):
            if (prompt := self._prompts.get(number, {}).get(frame)) is not None:
                self._masks[number], self._iou[number] = prompt, 1.0
            elif number not in masks:
                self._masks[number], self._iou[number] = self._fetch(number, frame)
        on = {number: mask for number, mask in masks.items() if number not in self._masks}
        self._move(on, self.flow(frame, step))
        self._masks = dict(sorted(self._masks.items()))
        self._frame, self._step = frame, step
        return self._carried(self._masks, self._iou)

    def _fetch(self, number: int, frame: int) -> tuple[CarriedMask | None, float]:
        """An object from its nearest prompt, carried alone over the frames between."""
        kept = self._prompts[number]
        at = min(kept, key=lambda other: (abs(other - frame), other))
        mask: CarriedMask | None = kept[at]
        iou, step = 1.0, 1 if frame > at else -1
        while at != frame and mask is not None:
            at += step
            mask, iou = _moved({number: mask}, self.flow(at, step), self.size)[number]
        return mask, iou

    def _move(self, masks: dict[int, CarriedMask | None], flow: Flow | None) -> None:
        there = {number: mask for number, mask in masks.items() if mask is not None}
        for number in masks.keys() - there.keys():
            self._masks[number], self._iou[number] = None, 0.0
        for number, (mask, iou) in _moved(there, flow, self.size).items():
            self._masks[number], self._iou[number] = mask, iou

    def _carried(self, masks: dict[int, CarriedMask | None], iou: dict[int, float]) -> Carried:
        numbers = tuple(sorted(masks))
        logits = np.full((len(numbers), *self.size), -INSIDE, np.float32)
        for row, number in enumerate(numbers):
            if (mask := masks[number]) is not None:
                x0, y0, x1, y1 = mask.box.round().astype(int)
                logits[row, y0:y1, x0:x1][mask.mask] = INSIDE
        return Carried(numbers, logits, np.array([iou[number] for number in numbers], np.float32))


class FrameFlow:
    """Flow between any two neighbours of a video's frames: for offline use."""

    def __init__(self, frames: Sequence[np.ndarray]) -> None:
        """`frames` (T) of (H, W, 3) uint8 RGB, one size; may be lazy."""
        self.frames = frames
        self._size = flow_size(frames[0].shape[:2]) if len(frames) else (LONG_SIDE_PX,) * 2
        self._engine = DenseFlow(FlowSettings(self._size, 'ultrafast'))
        self._grey: dict[int, np.ndarray] = {}

    def __call__(self, frame: int, step: int) -> Flow | None:
        """Flow of `frame` back to frame - step; None at the ends."""
        if not 0 <= frame - step < len(self.frames):
            return None
        now, last = self._small(frame), self._small(frame - step)
        flow = self._engine(now, last, self._size)
        before = warp(last, flow, pixel_grid(self._size))
        return flow, np.abs(now.astype(np.float32) - before.astype(np.float32))

    def _small(self, frame: int) -> np.ndarray:
        if frame not in self._grey:
            while len(self._grey) > 2:
                del self._grey[next(iter(self._grey))]
            self._grey[frame] = grey(self.frames[frame], self._size)
        return self._grey[frame]


def _seen(mask: np.ndarray) -> CarriedMask | None:
    left, top, right, bottom = mask_box(np.ascontiguousarray(mask))
    if right <= left:
        return None
    return CarriedMask.seen(mask[top:bottom, left:right].copy(),
                            np.array([left, top, right, bottom], np.float32))


def _moved(masks: dict[int, CarriedMask], flow: Flow | None, size: tuple[int, int]
           ) -> dict[int, tuple[CarriedMask | None, float]]:
    """Masks one frame on with the expected IoU; None for one that is gone."""
    if flow is None or not masks:
        return {number: (mask, 1.0) for number, mask in masks.items()}
    order = sorted(masks, reverse=True)  # of two that overlap the older one hides the other
    found: dict[int, tuple[CarriedMask | None, float]] = {}
    for number, motion in zip(order, carry([(masks[n].mask, masks[n].box) for n in order], *flow,
                                           size)):
        there = motion is not None and motion.support >= SUPPORT
        mask = masks[number].moved(motion.motion, size) if there else None
        found[number] = (mask, 0.0 if mask is None else float(motion.support))
    return found
