"""Birth, confirmation, loss and death of tracks, in seconds.

Knows nothing of how instances are matched.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np

from mos_perception.config import Config
from mos_perception.datatypes import Instances, Tracks, TrackState
from mos_perception.errors import SyncError

log = logging.getLogger(__name__)

MAX_ID = 65535  # the mono16 instance image holds no more
VELOCITY_TAU_S = 0.1  # time constant of the velocity's exponential smoothing
# a track seen in the last frame outlives a gap this long even if track_lost_s is shorter
PAUSE_S = 0.5


@dataclass
class Track:
    """One object's memory.

    `box` (4,) px and `mask` (h, w) bool (the box's crop) are as last seen.
    """

    id: int
    born_ns: int
    seen_ns: int
    box: np.ndarray
    mask: np.ndarray
    embedding: np.ndarray
    velocity: np.ndarray | None = None  # (2,) px/s; None until seen twice
    watched_ns: int = 0  # how long seen, summed over frames in a row
    confirmed: bool = False
    instance: int = 0  # index into the current frame, -1 = unseen

    @property
    def state(self) -> TrackState:
        """TENTATIVE, CONFIRMED, or LOST when the current frame does not show it."""
        if self.instance < 0:
            return TrackState.LOST
        return TrackState.CONFIRMED if self.confirmed else TrackState.TENTATIVE

    def shift(self, stamp_ns: int) -> np.ndarray:
        """(2,) px moved since last seen, at constant velocity."""
        if self.velocity is None:
            return np.zeros(2)
        return self.velocity * ((stamp_ns - self.seen_ns) * 1e-9)


class TrackStore:
    """The living tracks. Every tracker keeps one, whatever its association."""

    def __init__(self, config: Config) -> None:
        self.configure(config)
        self.reset()

    def configure(self, config: Config) -> None:
        """Take `track_birth_score`, `track_confirm_s` and `track_lost_s`."""
        self.birth_score = config.track_birth_score
        self.confirm_s, self.lost_s = config.track_confirm_s, config.track_lost_s

    def reset(self) -> None:
        """Forget everything; ids start at 1 again."""
        self.tracks: list[Track] = []
        self.stamp_ns: int | None = None
        self._last_id = 0

    def advance(self, stamp_ns: int) -> list[Track]:
        """The tracks still alive at `stamp_ns`, to be matched.

        Raises SyncError if time goes backwards.
        """
        if self.stamp_ns is not None and stamp_ns < self.stamp_ns:
            raise SyncError(
                f'tracker got stamp {stamp_ns} ns after {self.stamp_ns} ns: reset it when time '
                'jumps back'
            )
        self.stamp_ns = stamp_ns
        self.tracks = [track for track in self.tracks if self._lives(track)]
        return self.tracks

    def apply(self, matches: list[tuple[int, int]], instances: Instances) -> Tracks:
        """Take this frame's matches (track row, instance row); births and deaths follow."""
        seen = dict(matches)
        for row, track in enumerate(self.tracks):
            if row in seen:
                self._see(track, instances, seen[row])
            else:
                track.instance = -1
        self.tracks = [track for track in self.tracks if track.instance >= 0 or self._lives(track)]
        matched = set(seen.values())
        self.tracks += [
            self._born(instances, row)
            for row in range(len(instances))
            if row not in matched and instances.scores[row] >= self.birth_score and self._id_left()
        ]
        return self.snapshot()

    def snapshot(self) -> Tracks:
        """The tracks as arrays, oldest id first."""
        rows = self.tracks
        return Tracks(
            np.array([track.id for track in rows], np.int64),
            np.array([track.state for track in rows], np.int64),
            np.array([(self.stamp_ns - track.born_ns) * 1e-9 for track in rows], np.float64),
            np.array([track.box for track in rows], np.float32).reshape(-1, 4),
            np.array(
                [(0, 0) if track.velocity is None else track.velocity for track in rows], np.float32
            ).reshape(-1, 2),
            np.array([track.instance for track in rows], np.int64),
        )

    def _lives(self, track: Track) -> bool:
        limit_s = self.lost_s if track.instance < 0 else max(self.lost_s, PAUSE_S)
        return (self.stamp_ns - track.seen_ns) * 1e-9 < limit_s

    def _see(self, track: Track, instances: Instances, row: int) -> None:
        elapsed_ns = self.stamp_ns - track.seen_ns
        if elapsed_ns > 0:
            box = instances.boxes[row]
            measured = (box[:2] + box[2:] - track.box[:2] - track.box[2:]) / 2 / (elapsed_ns * 1e-9)
            if track.velocity is None:
                track.velocity = measured.astype(np.float64)
            else:
                track.velocity += (measured - track.velocity) * -math.expm1(
                    -elapsed_ns * 1e-9 / VELOCITY_TAU_S
                )
        if track.instance >= 0:
            track.watched_ns += elapsed_ns
        track.confirmed |= track.watched_ns * 1e-9 >= self.confirm_s
        track.seen_ns, track.instance = self.stamp_ns, row
        track.box, track.mask, track.embedding = (
            instances.boxes[row],
            crop(instances, row),
            instances.embeddings[row],
        )

    def _born(self, instances: Instances, row: int) -> Track:
        self._last_id += 1
        return Track(
            self._last_id,
            self.stamp_ns,
            self.stamp_ns,
            instances.boxes[row],
            crop(instances, row),
            instances.embeddings[row],
            confirmed=self.confirm_s == 0,
            instance=row,
        )

    def _id_left(self) -> bool:
        if self._last_id == MAX_ID - 1:
            log.warning(
                'track ids are used up at %d: new objects get none until the tracker is reset',
                MAX_ID,
            )
        return self._last_id < MAX_ID


def crop(instances: Instances, row: int) -> np.ndarray:
    """(h, w) bool copy of one mask inside its box, so that a track does not keep whole frames
    alive.
    """
    x0, y0, x1, y1 = instances.boxes[row].round().astype(int)
    return instances.masks[row, y0:y1, x0:x1].copy()
