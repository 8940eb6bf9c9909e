"""The value a scene becomes: what the sensors saw and what was true. T frames, K objects, H W
pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mos_perception.datatypes import Events, EventWindow, Frame


@dataclass(frozen=True)
class Clip:
    """One rendered clip.

    `frames` (T, H, W, 3) uint8 RGB; `stamps_ns` (T,) int64, the middle of each exposure; `events`
    from one frame period before the first frame to shortly after the last; `ids` (T, H, W) uint16
    of the object visible at the frame's stamp, 0 = background (static objects have ids too);
    `moving` (T, K + 1) bool by id, column 0 always False: the object moved in the world in the
    frame period before the stamp.
    """

    frames: np.ndarray
    stamps_ns: np.ndarray
    events: Events
    ids: np.ndarray
    moving: np.ndarray
    seed: int
    preset: str

    def __len__(self) -> int:
        return len(self.stamps_ns)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.frames.shape[1], self.frames.shape[2]

    @property
    def period_ns(self) -> int:
        """Time from one frame to the next; the last events before the first frame span one
        period."""
        return int(self.stamps_ns[1] - self.stamps_ns[0]) if len(self) > 1 else 33_333_333

    def frame(self, index: int) -> Frame:
        """Frame `index` as the runtime sees it."""
        return Frame(int(self.stamps_ns[index]), self.frames[index])

    def window(self, index: int, length_ns: int | None = None) -> EventWindow:
        """The events of the `length_ns` (default: one frame period) before frame `index`."""
        t1 = int(self.stamps_ns[index])
        t0 = t1 - (length_ns or self.period_ns)
        return EventWindow(self.events.between(t0, t1), t0, t1, *self.size)

    def moving_masks(self, index: int, min_pixels: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """((N, H, W) bool, (N,) ids) of the moving objects that show `min_pixels` or more in frame
        `index`."""
        areas = np.bincount(self.ids[index].ravel(), minlength=self.moving.shape[1])
        numbers = np.flatnonzero(self.moving[index] & (areas >= min_pixels))
        return self.ids[index][None] == numbers[:, None, None], numbers
