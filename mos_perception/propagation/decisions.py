"""What a proposal becomes: the published propagator's decisions (prop/propagation.py and
prop/prop_config.py of github.com/Jyxarthur/gmos), in its float32 arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from mos_perception.propagation import Proposals

_EPS = np.float32(1e-6)
_TABLE = 20  # proposals a frame in the published code


@dataclass(frozen=True)
class Constants:
    """The published ones."""

    motion: float = 0.5
    """A proposal moves above this."""
    quality: float = 0.7
    """A proposal is trusted above this expected IoU."""
    same_iou: float = 0.95
    """A proposal refreshes the object it overlaps by more than this."""
    new_precision: float = 0.3
    """A proposal less covered by every object than this is a new one."""
    moving_precision: float = 0.5
    """An object moves where more than this share of it is moving proposals."""
    prompt_distance: int = 5
    """Frames from one prompt of an object to the next, at least."""
    max_objects: int = 10
    keep_above: float = -1.0
    """Stage 1: logit from which a pixel may belong to an object."""
    stage2_share: float = 0.1
    """Stage 2: share of an object's frames whose masks become prompts, the surest ones."""
    stage2_iou: float = 0.95
    """Stage 2: expected IoU that a prompt needs."""
    moving_share: float = 0.03
    """Stage 2: an object that moves in a smaller share of all frames is left out."""


PUBLISHED = Constants()


@dataclass(frozen=True)
class Prompt:
    """Proposal `row` is object `number`; None: a new object."""

    row: int
    number: int | None


def trusted(proposals: Proposals, constants: Constants) -> np.ndarray:
    """(N,) bool: moves, and is good enough."""
    return ((proposals.motion.astype(np.float32) > np.float32(constants.motion))
            & (proposals.quality.astype(np.float32) > np.float32(constants.quality)))


def decide(proposals: Proposals, objects: np.ndarray, numbers: Sequence[int],
           distances: Sequence[int], room: int, constants: Constants) -> list[Prompt]:
    """The prompts that a frame gives.

    `objects` (M, H, W) bool: where the objects of `numbers` are; `distances` (M,): frames to the
    nearest prompt of each; `room`: how many objects more there may be.
    """
    count, known = len(proposals.masks), len(objects)
    if not count:
        return []
    common, areas, covered = _counts(proposals.masks, objects)
    size = max(count, known)  # both sides are padded with empty masks
    union = np.zeros((size, size), np.float32)
    union[:count] += areas[:, None]
    union[:, :known] += covered
    table = np.zeros_like(union)
    table[:count, :known] = common
    union -= table
    iou = np.where(union > 0, table / (union + _EPS), np.float32(1))
    rows, columns = linear_sum_assignment(1 - iou)
    good, prompts = trusted(proposals, constants), []
    precision = (common / (areas[:, None] + _EPS)).max(1) if known else np.zeros(count)
    for row, column in sorted(zip(rows.tolist(), columns.tolist()), key=lambda pair: pair[1]):
        if row >= count or not good[row]:
            continue
        if column < known and iou[row, column] > np.float32(constants.same_iou):
            if distances[column] >= constants.prompt_distance:
                prompts.append(Prompt(row, numbers[column]))
        elif precision[row] < np.float32(constants.new_precision) and room > 0:
            prompts.append(Prompt(row, None))
            room -= 1
    return prompts


def moving_objects(labels: np.ndarray, numbers: Sequence[int], proposals: Proposals,
                   constants: Constants) -> np.ndarray:
    """(M,) bool: which of the objects in `labels` (H, W), of ids `numbers`, move."""
    moving = proposals.motion.astype(np.float32) > np.float32(constants.motion)
    union = proposals.masks[moving].any(0) if moving.any() else np.zeros(labels.shape, bool)
    length = max(numbers, default=0) + 1
    areas = np.bincount(labels.ravel(), minlength=length).astype(np.float32)
    inside = np.bincount(labels[union], minlength=length).astype(np.float32)
    share = inside / (areas + _EPS)
    return share[list(numbers)] > np.float32(constants.moving_precision)


def start_frame(proposals: Sequence[Proposals], constants: Constants) -> int | None:
    """Where a video's objects begin: of the first three frames the one of greatest summed quality
    of trusted proposals, else the first one that has any; None where there is none.
    """
    sums = []
    for frame in proposals:
        # as wide as the published table: the order of a sum decides between equals
        row = np.zeros(max(_TABLE, len(frame.quality)), np.float32)
        row[:len(frame.quality)] = frame.quality * trusted(frame, constants)
        sums.append(float(row.sum()))
    if any(sums[:3]):
        return int(np.argmax(sums[:3]))
    return next((n for n, value in enumerate(sums) if value > 0), None)


def _counts(masks: np.ndarray, objects: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels in float32: common (N, M), of each mask (N,), of each object (M,)."""
    # float32 counts exactly up to 16.7 million pixels
    first, second = (stack.reshape(len(stack), masks[0].size).astype(np.float32)
                     for stack in (masks, objects))
    return first @ second.T, first.sum(1), second.sum(1)
