"""Birth, confirmation, holding, loss and death of tracks, in seconds.

Knows nothing of how instances are matched. Whether something moves is the model's word: a confirmed
track that no instance matches any more is held, at rest, while what it showed is still there. That
is so where it had moved before (else it was a false alarm), where flow and grey levels of at least
half its mask follow one motion (else something covers it, or it is gone), and where a quarter of
the area it used to have is inside the image and not another instance's (else it is leaving, or
hidden). One that is covered is not shown, but remembered for as long, its place carried along with
what is around it. Without flow, as from events alone, nothing can be checked: it is held in place,
which is right for a camera at rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from mos_perception.config import Config
from mos_perception.datatypes import IMAGE_IDS, Instances, Tracks, TrackState, image_number
from mos_perception.errors import SyncError
from mos_perception.masks import mask_box
from mos_perception.tracking.carry import CarriedMask, carry

LAST_ID = 2 ** 32 - 1  # the messages' uint32 holds no more: then a new epoch begins
MOST_TRACKS = 256  # living ones; the cost of matching grows with their square
VELOCITY_TAU_S = 0.1  # time constant of the velocity's exponential smoothing
# a track seen in the last frame outlives a gap this long even if track_lost_s is shorter
PAUSE_S = 0.5
HELD_SHARE = 0.5  # of a mask that must be supported
IN_VIEW = 0.25  # of the usual area, that must be inside the image and not another instance's
MOVED_WIDTHS = 0.005  # way against the surroundings, in image widths, that shows that it moved
MEMORY_TAU_S = 0.5  # time constant of that way and of the usual area


@dataclass
class Track:
    """One object's memory.

    `box` (4,) px and `mask` (h, w) bool (the box's crop) are as last shown: seen, or held.
    """

    id: int
    born_ns: int
    seen_ns: int  # matched by an instance
    shown_ns: int  # seen or held
    box: np.ndarray
    mask: np.ndarray
    embedding: np.ndarray
    score: float
    area: float  # px, usual while seen
    seen: CarriedMask  # the mask as last matched
    carried: CarriedMask | None  # where that is in the current frame; None: unknown
    placed: bool = False  # the flow says so; else it is where it was
    hidden: bool = False  # not seen since something covered it: `carried` goes with what is around
    forgotten: bool = False  # lost for track_lost_s: but for the place where it was hidden
    way: np.ndarray = field(default_factory=lambda: np.zeros(2))  # lately, in image widths
    moved: bool = False  # the way was once long enough
    velocity: np.ndarray | None = None  # (2,) px/s as shown; None until seen twice
    pace: np.ndarray | None = None  # (2,) px/s, the velocity when last seen
    watched_ns: int = 0  # how long seen, summed over frames in a row
    confirmed: bool = False
    instance: int = 0  # index into the current frame, -1 = unseen

    @property
    def state(self) -> TrackState:
        """TENTATIVE, CONFIRMED, or LOST when the current frame does not show it."""
        if self.instance < 0:
            return TrackState.LOST
        return TrackState.CONFIRMED if self.confirmed else TrackState.TENTATIVE

    @property
    def held(self) -> bool:
        """Shown in the current frame though no instance matched."""
        return self.instance >= 0 and self.was_held

    @property
    def was_held(self) -> bool:
        """Held when last shown."""
        return self.shown_ns > self.seen_ns

    def shift(self, stamp_ns: int) -> np.ndarray:
        """(2,) px moved since last seen, at constant velocity."""
        if self.pace is None:
            return np.zeros(2)
        return self.pace * ((stamp_ns - self.seen_ns) * 1e-9)


class TrackStore:
    """The living tracks. Every tracker keeps one, whatever its association."""

    def __init__(self, config: Config) -> None:
        self.configure(config)
        self.reset()

    def configure(self, config: Config) -> None:
        """Take `track_birth_score`, `track_confirm_s`, `track_lost_s` and `track_hold_s`."""
        self.birth_score, self.hold_s = config.track_birth_score, config.track_hold_s
        self.confirm_s, self.lost_s = config.track_confirm_s, config.track_lost_s

    def reset(self) -> None:
        """Forget everything; ids start at 1 again."""
        self.tracks: list[Track] = []
        self.stamp_ns: int | None = None
        self.gave_way = 0
        self._last_id = 0

    @property
    def used_up(self) -> bool:
        """Whether the ids left may not do for another frame: time for a reset, a new epoch."""
        return self._last_id > LAST_ID - 2 * IMAGE_IDS

    def report(self) -> dict[str, int]:
        """For `/diagnostics`: tracks that ended for better ones where there were too many."""
        return {'tracks that gave way': self.gave_way}

    def advance(self, stamp_ns: int, size: tuple[int, int], flow: np.ndarray | None,
                error: np.ndarray | None) -> list[Track]:
        """The tracks still alive at `stamp_ns`, to be matched, their masks carried along the flow.

        `size` (height, width) of the frame. Raises SyncError if time goes backwards.
        """
        if self.stamp_ns is not None and stamp_ns < self.stamp_ns:
            raise SyncError(
                f'tracker got stamp {stamp_ns} ns after {self.stamp_ns} ns: reset it when time '
                'jumps back'
            )
        self._step_s = (stamp_ns - (self.stamp_ns or stamp_ns)) * 1e-9
        self.stamp_ns, self._flows = stamp_ns, flow is not None and error is not None
        self.tracks = [track for track in self.tracks if self._lives(track)]
        if self._flows:
            self._carry(size, flow, error)
        for track in self.tracks:
            if not self._flows and self._step_s > PAUSE_S:  # anything may have happened
                track.carried = None
            track.placed = self._flows and track.carried is not None and not track.hidden
            track.forgotten = not self._keeps(track)
        return self.tracks

    def apply(self, matches: list[tuple[int, int]],
              instances: Instances) -> tuple[Instances, Tracks]:
        """Take this frame's matches (track row, instance row); holds, births and deaths follow.

        Returns the instances, held ones after those given, and the tracks.
        """
        seen = dict(matches)
        for row, track in enumerate(self.tracks):
            if row in seen:
                self._see(track, instances, seen[row])
            else:
                track.instance = -1
        matched = set(seen.values())
        count = len(instances)
        instances = self._hold(instances)
        self.tracks = [track for track in self.tracks if track.instance >= 0 or self._lives(track)]
        self._bear(instances, [row for row in range(count) if row not in matched
                               and instances.scores[row] >= self.birth_score])
        return instances, self.snapshot()

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
        return self._keeps(track) or track.hidden and self._stopped(track)

    def _keeps(self, track: Track) -> bool:
        limit_s = self.lost_s if track.instance < 0 else max(self.lost_s, PAUSE_S)
        return (self.stamp_ns - track.shown_ns) * 1e-9 < limit_s

    def _stopped(self, track: Track) -> bool:
        """Whether it may be at rest now, seen or hidden."""
        return (track.confirmed and track.moved and track.carried is not None
                and (self.stamp_ns - track.seen_ns) * 1e-9 <= self.hold_s)

    def _carry(self, size: tuple[int, int], flow: np.ndarray, error: np.ndarray) -> None:
        """Move every mask whose place is known; what was not shown lies beneath what was."""
        known = [track for track in self.tracks if track.carried is not None]
        known.sort(key=lambda track: track.instance >= 0)
        masks = [(track.carried.mask, track.carried.box) for track in known]
        for track, found in zip(known, carry(masks, flow, error, size)):
            track.hidden |= found is None or found.support < HELD_SHARE
            motion = None if found is None else found.around if track.hidden else found.motion
            track.carried = None if motion is None else track.carried.moved(motion, size)
            if found is not None and track.instance >= 0 and not track.held:
                self._went(track, found.against)

    def _went(self, track: Track, way: np.ndarray) -> None:
        track.way = track.way * math.exp(-self._step_s / MEMORY_TAU_S) + way
        track.moved |= bool(np.linalg.norm(track.way) >= MOVED_WIDTHS)

    def _hold(self, instances: Instances) -> Instances:
        """The instances and, at rest, the tracks that none of them matched but that are there."""
        waiting = [track for track in self.tracks if track.instance < 0
                   and not track.hidden and self._stopped(track)]
        if not waiting:
            return instances
        free, held, masks = ~instances.masks.any(0), [], []
        for track in waiting:
            x0, y0, x1, y1 = track.carried.box.round().astype(int)
            inside = track.carried.mask & free[y0:y1, x0:x1]
            if np.count_nonzero(inside) < max(1.0, IN_VIEW * track.area):
                continue
            free[y0:y1, x0:x1] &= ~inside
            left, top, right, bottom = mask_box(inside)
            box = np.array([x0 + left, y0 + top, x0 + right, y0 + bottom], np.float32)
            self._show(track, box, inside[top:bottom, left:right])
            track.instance = len(instances) + len(held)
            held.append(track)
            masks.append(np.zeros(instances.size, bool))
            masks[-1][y0:y1, x0:x1] = inside
        return _with_held(instances, held, masks) if held else instances

    def _show(self, track: Track, box: np.ndarray, mask: np.ndarray) -> None:
        elapsed_s = (self.stamp_ns - track.shown_ns) * 1e-9
        if elapsed_s > 0:
            track.velocity = smoothed_velocity(track.velocity, track.box, box, elapsed_s)
        track.shown_ns, track.box, track.mask = self.stamp_ns, box, mask

    def _see(self, track: Track, instances: Instances, row: int) -> None:
        box, mask = instances.boxes[row], crop(instances, row)
        if not self._flows:  # taken for a camera at rest
            way = (box[:2] + box[2:] - track.box[:2] - track.box[2:]) / 2
            self._went(track, way / instances.size[1])
        if track.instance >= 0:
            track.watched_ns += self.stamp_ns - track.shown_ns
        track.confirmed |= track.watched_ns * 1e-9 >= self.confirm_s
        self._show(track, box, mask)
        track.seen_ns, track.instance = self.stamp_ns, row
        track.pace = None if track.velocity is None else track.velocity.copy()
        track.score = float(instances.scores[row])
        if instances.embeddings[row].any():  # none of what a single picture alone shows
            track.embedding = instances.embeddings[row]
        track.seen = track.carried = CarriedMask.seen(mask, box)
        track.hidden = False
        change = np.count_nonzero(mask) - track.area
        track.area += change * -math.expm1(-self._step_s / MEMORY_TAU_S)

    def _bear(self, instances: Instances, rows: list[int]) -> None:
        """New tracks of some instances. An id is never one of before, and never has the number in
        the mono16 image of another living track. If there are too many the lowest scores go.
        """
        taken = {image_number(track.id) for track in self.tracks}
        for row in rows:
            self._last_id += 1
            while image_number(self._last_id) in taken:
                self._last_id += 1
            taken.add(image_number(self._last_id))
            self.tracks.append(self._born(instances, row, self._last_id))
        if (over := len(self.tracks) - MOST_TRACKS) > 0:
            gone = {track.id for track in sorted(self.tracks, key=lambda one: one.score)[:over]}
            self.tracks = [track for track in self.tracks if track.id not in gone]
            self.gave_way += over

    def _born(self, instances: Instances, row: int, number: int) -> Track:
        box, mask = instances.boxes[row], crop(instances, row)
        seen = CarriedMask.seen(mask, box)
        return Track(
            number,
            self.stamp_ns,
            self.stamp_ns,
            self.stamp_ns,
            box,
            mask,
            instances.embeddings[row],
            float(instances.scores[row]),
            float(np.count_nonzero(mask)),
            seen,
            seen,
            confirmed=self.confirm_s == 0,
            instance=row,
        )


def smoothed_velocity(velocity: np.ndarray | None, before: np.ndarray, box: np.ndarray,
                      elapsed_s: float) -> np.ndarray:
    """(2,) px/s of a centre whose box (4,) px was `before`, `elapsed_s` > 0 ago: as measured where
    nothing is known yet (None), else smoothed with the time constant VELOCITY_TAU_S.
    """
    measured = (box[:2] + box[2:] - before[:2] - before[2:]) / 2 / elapsed_s
    if velocity is None:
        return measured.astype(np.float64)
    return velocity + (measured - velocity) * -math.expm1(-elapsed_s / VELOCITY_TAU_S)


def crop(instances: Instances, row: int) -> np.ndarray:
    """(h, w) bool copy of one mask inside its box, so that a track does not keep whole frames
    alive.
    """
    x0, y0, x1, y1 = instances.boxes[row].round().astype(int)
    return instances.masks[row, y0:y1, x0:x1].copy()


def _with_held(instances: Instances, held: list[Track], masks: list[np.ndarray]) -> Instances:
    """The instances and after them the held tracks: not moving, with their last score."""
    nothing = np.zeros(len(held), np.float32)
    return instances.and_after(Instances(
        np.stack(masks), np.stack([track.box for track in held]),
        np.array([track.score for track in held], np.float32), nothing, nothing > 0,
        np.stack([track.embedding for track in held])))
