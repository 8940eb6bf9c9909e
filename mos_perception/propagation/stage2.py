"""Stage 2: what stage 1 was surest of, carried through the whole video, forwards and backwards."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mos_perception.propagation import Carried, MaskPropagator, Proposals
from mos_perception.propagation.decisions import PUBLISHED, Constants, moving_objects
from mos_perception.propagation.stage1 import FrameObjects


def choose_prompts(first: Sequence[FrameObjects], constants: Constants) -> list[tuple[int, int]]:
    """(frame, object) of the masks that become prompts, by object: of the frames of greatest
    expected IoU those that reach `stage2_iou`.
    """
    numbers = sorted({number for frame in first for number in frame.numbers})
    chosen = []
    for number in numbers:
        iou = _ious(first, number)
        count = math.ceil(np.count_nonzero(iou > 0) * constants.stage2_share)
        if count:
            # of equal values this picks as the published code does
            surest = np.argpartition(iou, -count)[-count:]
            chosen += [(int(frame), number) for frame in surest
                       if iou[frame] >= constants.stage2_iou]
    return chosen


def complete(first: Sequence[FrameObjects], proposals: Sequence[Proposals],
             propagator: MaskPropagator, constants: Constants = PUBLISHED
             ) -> list[FrameObjects]:
    """Full masks on all frames, of the objects that move at some time; ids are those of stage 1.

    `first` is stage 1's answer, one a frame; `propagator` is reset. Where objects overlap the one
    with more prompts is seen, of equal ones that of the lower id. [] without a mask that is sure.
    """
    propagator.reset()
    prompts = choose_prompts(first, constants)
    if not prompts:
        return []
    for frame, number in prompts:
        propagator.prompt(frame, number, first[frame].labels == number)
    counts: dict[int, int] = {}
    for _, number in prompts:
        counts[number] = counts.get(number, 0) + 1
    start = _surest_frame(first, constants)
    found: dict[int, FrameObjects] = {}
    backwards = range(start, -1, -1) if start else range(0)
    for step, frames in ((1, range(start, len(first))), (-1, backwards)):
        for frame in frames:
            carried = propagator.carry(frame, step)
            labels = preferred(carried, counts)
            found[frame] = FrameObjects(
                labels, carried.numbers,
                moving_objects(labels, carried.numbers, proposals[frame], constants), carried.iou)
    return _without_still([found[frame] for frame in range(len(first))], constants)


def preferred(carried: Carried, counts: dict[int, int]) -> np.ndarray:
    """(H, W) uint16: of the objects whose logit is above 0 the one of the greatest count."""
    labels = np.zeros(carried.logits.shape[1:], np.uint16)
    order = sorted(range(len(carried.numbers)),
                   key=lambda row: (counts.get(carried.numbers[row], 0), -row))
    for row in order:  # painted over by those that come later
        labels[carried.logits[row] > 0] = carried.numbers[row]
    return labels


def _surest_frame(first: Sequence[FrameObjects], constants: Constants) -> int:
    numbers = sorted({number for frame in first for number in frame.numbers})
    # as wide as the published table: the order of a sum decides between equals
    table = np.zeros((len(first), max(constants.max_objects, len(numbers))))
    for column, number in enumerate(numbers):
        table[:, column] = _ious(first, number)
    return int(table.sum(-1).argmax())


def _ious(first: Sequence[FrameObjects], number: int) -> np.ndarray:
    """(T,) float64, 0 where the object is not known."""
    return np.array([float(frame.iou[frame.numbers.index(number)])
                     if number in frame.numbers else 0.0 for frame in first])


def _without_still(frames: list[FrameObjects], constants: Constants) -> list[FrameObjects]:
    moves: dict[int, int] = {}
    for frame in frames:
        for number, moving in zip(frame.numbers, frame.moving):
            moves[number] = moves.get(number, 0) + int(moving)
    kept = {number for number, count in moves.items()
            if not count / len(frames) < constants.moving_share}
    found = []
    for frame in frames:
        rows = [row for row, number in enumerate(frame.numbers) if number in kept]
        numbers = tuple(frame.numbers[row] for row in rows)
        labels = np.where(np.isin(frame.labels, numbers), frame.labels, 0).astype(np.uint16)
        found.append(FrameObjects(labels, numbers, frame.moving[rows], frame.iou[rows]))
    return found
