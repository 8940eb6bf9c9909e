"""What every baseline offers, and what it answers with."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from mos_perception.datatypes import EventWindow, Frame, Instances
from mos_perception.errors import FrameError
from training.boxes import mask_boxes


class Baseline(Protocol):
    """A classical method as a model that remembers."""

    def reset(self) -> None:
        """Forget all frames."""

    def update(self, frame: Frame, window: EventWindow | None = None) -> Instances:
        """What moves in `frame`; `window` holds the events before it.

        Raises FrameError if the size changed.
        """


def as_instances(masks: np.ndarray) -> Instances:
    """Instances of (N, H, W) bool masks, none of them empty, all moving with score 1."""
    count = len(masks)
    ones = np.ones(count, np.float32)
    return Instances(
        masks=masks,
        boxes=mask_boxes(masks),
        scores=ones,
        motion_scores=ones,
        moving=np.ones(count, bool),
        embeddings=np.zeros((count, 0), np.float32),
    )


def require_same_size(before: tuple[int, int], now: tuple[int, int]) -> None:
    """Raises FrameError if two sizes (height, width) differ."""
    if before != now:
        raise FrameError(f'frame is {now}, the one before {before} (h, w): reset the baseline')
