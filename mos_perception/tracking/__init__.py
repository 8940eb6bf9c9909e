"""Which instance is which over time.

Association (who matches whom), lifecycle and the way masks are carried are separate rooms.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from mos_perception.config import Config
from mos_perception.datatypes import Instances, Tracks


class Tracker(Protocol):
    """Frame by frame: instances in, the same with held ones and all living tracks out.

    Seconds, never frame counts.
    """

    def configure(self, config: Config) -> None:
        """Take new `track_*` values; living tracks stay."""

    def update(self, instances: Instances, stamp_ns: int, flow: np.ndarray | None = None,
               flow_error: np.ndarray | None = None) -> tuple[Instances, Tracks]:
        """The frame's instances, after them those held at rest, and the tracks after this frame.

        `flow` (h, w, 2) and `flow_error` (h, w) as in `SyncedInput`; without them masks stay where
        they are. Raises SyncError if `stamp_ns` is before the last one.
        """

    def reset(self) -> None:
        """Forget everything; ids start at 1 again (a new epoch)."""


def load_tracker(config: Config) -> Tracker:
    """The tracker that the parameter `tracker` names."""
    from mos_perception.tracking.hungarian import HungarianTracker
    return {'hungarian': HungarianTracker}[config.tracker](config)
