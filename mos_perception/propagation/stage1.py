"""Stage 1: one sweep through a video or a camera's frames, as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mos_perception.propagation import Carried, MaskPropagator, Proposals
from mos_perception.propagation.decisions import (
    PUBLISHED,
    Constants,
    decide,
    moving_objects,
    start_frame,
    trusted,
)


@dataclass(frozen=True)
class FrameObjects:
    """The objects on one frame: `labels` (H, W) uint16, 0 nothing, of ids `numbers` (M,) from 1;
    `moving` (M,) bool; `iou` (M,) float32, what the propagator expects of each mask.
    """

    labels: np.ndarray
    numbers: tuple[int, ...]
    moving: np.ndarray
    iou: np.ndarray

    @property
    def moving_labels(self) -> np.ndarray:
        """(H, W) uint16: of what moves alone, the answer of MOS-I."""
        still = [number for number, moves in zip(self.numbers, self.moving) if not moves]
        return np.where(np.isin(self.labels, still), 0, self.labels).astype(np.uint16)


@dataclass
class _Object:
    first: int  # frames of its first and its last prompt
    last: int
    gone: int = 0  # frames in a row without a pixel


class Stage1:
    """Seeds, refreshes and finds objects. Ids are never used twice until `reset`."""

    def __init__(self, propagator: MaskPropagator, constants: Constants = PUBLISHED,
                 retire_after: int | None = None) -> None:
        """`retire_after`: frames without a pixel after which an object gives its place to others;
        None: never, as published. Then no object is found after the tenth.
        """
        self.propagator, self.constants, self.retire_after = propagator, constants, retire_after
        self.reset()

    def reset(self) -> None:
        """Forget everything; ids start at 1 again."""
        self.propagator.reset()
        self._objects: dict[int, _Object] = {}
        self._last_number = 0

    def seed(self, frame: int, proposals: Proposals) -> bool:
        """Make the trusted proposals of `frame` objects, ten at most; whether there is one."""
        for row in np.flatnonzero(trusted(proposals, self.constants))[:self._room()]:
            self._prompt(frame, None, proposals.masks[row])
        return bool(self._objects)

    def step(self, frame: int, proposals: Proposals) -> FrameObjects:
        """The next frame. Until an object is there its trusted proposals begin them."""
        size = proposals.masks.shape[1:]
        if not self._objects and not self.seed(frame, proposals):
            return FrameObjects(np.zeros(size, np.uint16), (), np.zeros(0, bool),
                                np.zeros(0, np.float32))
        carried = self.propagator.carry(frame)
        known = [self._objects[number] for number in carried.numbers]
        distances = [min(abs(frame - item.first), abs(frame - item.last)) for item in known]
        for prompt in decide(proposals, carried.logits > 0, carried.numbers, distances,
                             self._room(), self.constants):
            carried = self._prompt(frame, prompt.number, proposals.masks[prompt.row])
        labels = strongest(carried, self.constants.keep_above)
        moving = moving_objects(labels, carried.numbers, proposals, self.constants)
        self._retire(labels)
        return FrameObjects(labels, carried.numbers, moving, carried.iou)

    def drop(self, number: int) -> None:
        """Forget an object: others may take its place, its id stays used."""
        del self._objects[number]
        self.propagator.forget(number)

    def _room(self) -> int:
        return self.constants.max_objects - len(self._objects)

    def _prompt(self, frame: int, number: int | None, mask: np.ndarray) -> Carried:
        if number is None:
            self._last_number += 1
            number = self._last_number
            self._objects[number] = _Object(frame, frame)
        self._objects[number].last = frame
        return self.propagator.prompt(frame, number, mask)

    def _retire(self, labels: np.ndarray) -> None:
        if self.retire_after is None:
            return
        seen = set(np.unique(labels).tolist())
        for number, item in list(self._objects.items()):
            item.gone = 0 if number in seen else item.gone + 1
            if item.gone > self.retire_after:
                self.drop(number)


def sweep(stage: Stage1, proposals: Sequence[Proposals]) -> Iterator[FrameObjects]:
    """A whole video as published: its objects begin at `decisions.start_frame`, and are carried to
    the frames before it, too. Nothing where no proposal is trusted.
    """
    start = start_frame(proposals, stage.constants)
    if start is None:
        return
    stage.seed(start, proposals[start])
    for frame, given in enumerate(proposals):
        yield stage.step(frame, given)


def strongest(carried: Carried, above: float) -> np.ndarray:
    """(H, W) uint16: the object of each pixel's greatest logit, 0 where that is not `above`."""
    if not len(carried.numbers):
        return np.zeros(carried.logits.shape[1:], np.uint16)
    owner = np.array(carried.numbers, np.uint16)[carried.logits.argmax(0)]
    return np.where(carried.logits.max(0) > above, owner, 0).astype(np.uint16)
