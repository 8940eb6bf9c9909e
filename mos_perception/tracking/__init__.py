"""Which instance is which over time.

Association (who matches whom), lifecycle and the way masks are carried are separate rooms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from mos_perception.config import Config
from mos_perception.datatypes import Instances, Tracks
from mos_perception.engine.card import ModelCard

if TYPE_CHECKING:
    from mos_perception.propagation.appearance import AppearanceEncoder

PROPAGATORS = ('propagation_flow', 'propagation_sam2')


class Store(Protocol):
    """The living tracks of a tracker."""

    @property
    def used_up(self) -> bool:
        """Whether the ids left may not do for another frame: time for a reset, a new epoch."""

    def report(self) -> dict[str, int]:
        """For `/diagnostics`."""


class Tracker(Protocol):
    """Frame by frame: instances in, the same with held ones and all living tracks out.

    Seconds, never frame counts.
    """

    store: Store

    def configure(self, config: Config) -> None:
        """Take new `track_*` values; living tracks stay."""

    def update(self, instances: Instances, stamp_ns: int, flow: np.ndarray | None = None,
               flow_error: np.ndarray | None = None,
               image: np.ndarray | None = None) -> tuple[Instances, Tracks]:
        """The frame's instances, after them those held at rest, and the tracks after this frame.

        `flow` (h, w, 2) and `flow_error` (h, w) as in `SyncedInput`; without them masks stay where
        they are. `image` (H, W, 3) uint8 is the frame. Raises SyncError if `stamp_ns` is before
        the last one.
        """

    def reset(self) -> None:
        """Forget everything; ids start at 1 again (a new epoch)."""


def load_tracker(config: Config, card: ModelCard | None = None,
                 appearance: AppearanceEncoder | None = None) -> Tracker:
    """The tracker that the parameter `tracker` names, for the instances of the card's model.

    Without a card they have no embeddings. `appearance`: the model's, which a propagator can share.
    Raises EngineError where the tracker's network cannot run, or is for other embeddings.
    """
    if config.tracker in PROPAGATORS:
        from mos_perception.tracking.propagating import load_propagating
        return load_propagating(config, appearance)
    if config.tracker == 'referring':
        from mos_perception.tracking.referring import load_referring
        return load_referring(config, card)
    from mos_perception.tracking.hungarian import HungarianTracker
    return HungarianTracker(config)
