"""Dense flow from a frame back to the frame of the answer before: what carries masks forward.

    sample = backward.attach(sample)      # with its `flow` and `flow_error`
    backward.answered(sample)             # the next flow leads here

Between neighbouring answers, not at the fixed gaps of the evidence: a frame that got no answer
moved no mask, so the flow has to leap over it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mos_perception.datatypes import Frame, SyncedInput
from mos_perception.motion.flow import DenseFlow, FlowSettings, grey, pixel_grid, warp

LONG_SIDE_PX = 224  # of the flow: objects of 1 % of the image still have 300 px
LEAST_SIDE_PX = 64  # of DIS
MAX_GAP_NS = 500_000_000
"""A longer pause between two answers: too much has changed for flow to tell what went where."""


class BackwardFlow:
    """Remembers the last answered picture, small and grey, until the epoch changes.

    For one thread.
    """

    def __init__(self) -> None:
        self._engine: DenseFlow | None = None
        self._now: tuple[int, np.ndarray, bool] | None = None  # the last: drawn of events
        self._last: tuple[int, np.ndarray, bool] | None = None
        self._epoch = 0

    def attach(self, sample: SyncedInput) -> SyncedInput:
        """The input with its flow; as it is without a picture, without an answered one of its kind
        before it, or after a pause longer than `MAX_GAP_NS`.
        """
        if sample.epoch != self._epoch:
            self._epoch, self._last = sample.epoch, None
        last, self._now = self._last, None
        if sample.picture is None:
            return sample
        size = flow_size(sample.picture.size)
        now = grey(sample.picture.image, size)
        drawn = sample.frame is None
        self._now = sample.stamp_ns, now, drawn
        if (last is None or last[1].shape != size or last[2] is not drawn
                or sample.stamp_ns - last[0] > MAX_GAP_NS):
            return sample
        if self._engine is None or self._engine.settings.size != size:
            self._engine = DenseFlow(FlowSettings(size, 'ultrafast'))
        flow = self._engine(now, last[1], size)
        before = warp(last[1], flow, pixel_grid(size))
        error = np.abs(now.astype(np.float32) - before.astype(np.float32))
        return replace(sample, flow=flow, flow_error=error)

    def of(self, frame: Frame) -> SyncedInput:
        """A frame as input with its flow, where every frame gets its answer: both steps in one."""
        sample = self.attach(SyncedInput(frame.stamp_ns, '', frame, None, frame.size))
        self.answered(sample)
        return sample

    def answered(self, sample: SyncedInput) -> None:
        """The input got its answer: the next flow leads to its frame.

        Nowhere where it had none: the tracks are then of another moment than the frame before.
        """
        self._last = self._now if sample.picture is not None else None


def flow_size(size: tuple[int, int]) -> tuple[int, int]:
    """(h, w) px of the flow for a frame of (height, width): `LONG_SIDE_PX` at most, multiples of
    8.
    """
    scale = min(1.0, LONG_SIDE_PX / max(size))
    height, width = (max(LEAST_SIDE_PX, 8 * round(side * scale / 8)) for side in size)
    return height, width
