"""What the Temporal Refiner sees: a window of frames that the referring tracker went through.

Training and `mos refine` make it with this very code. A slot is one of the tracker's tracks; where
it is expected in a frame is told by the frames before *and* after, never by the frame itself, so
that what the tracker did there can be found wrong. Legend: T frames, S slots, N the most instances
of a frame, C width of the tracker's vectors.
"""

from __future__ import annotations

import numpy as np

from mos_perception.tracking.referring import Tracked
from mos_perception.tracking.tokens import PAIR, age, pairs, shape_of, stacked

STATE = 9  # channels of a slot's place in a frame
RELATION = PAIR + 4  # channels of a slot and an instance
_FAR_S = 10.0  # stands for a side on which a slot is never seen


def window_inputs(frames: list[Tracked]) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """(ids (S,), seen (T, S), the network's inputs) of one window or more frames of it.

    `ids`: tracks that are seen in the window; `seen`: their instance as the tracker says, -1 =
    none. Inputs, float32: `queries` (T, N, C), `padding` (T, N) 1 where no instance is, `slots` (T,
    S, C), `state` (T, S, STATE), `relations` (T, S, N, RELATION).
    """
    ids = np.unique(np.concatenate([frame.ids[frame.instance >= 0] for frame in frames]))
    seen, slots = _laid_out(frames, ids)
    count = max(1, max(len(frame.found) for frame in frames))
    width = frames[0].slots.shape[1]
    arrays = {'queries': np.zeros((len(frames), count, width), np.float32),
              'padding': np.ones((len(frames), count), np.float32), 'slots': slots,
              'state': np.zeros((*seen.shape, STATE), np.float32),
              'relations': np.zeros((*seen.shape, count, RELATION), np.float32)}
    if not len(ids):
        return ids, seen, arrays
    sides = _Sides(frames, seen)
    for at, frame in enumerate(frames):
        there = len(frame.found)
        arrays['queries'][at, :there], arrays['padding'][at, :there] = frame.queries, 0
        arrays['state'][at], arrays['relations'][at, :, :there] = sides.of(at)
    return ids, seen, arrays


def _laid_out(frames: list[Tracked], ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Instance (T, S), -1 = none, and vector (T, S, C) of each track; where it does not live, that
    of the frame nearest to it where it does.
    """
    seen = np.full((len(frames), len(ids)), -1, np.int64)
    slots = np.zeros((*seen.shape, frames[0].slots.shape[1]), np.float32)
    lives = np.zeros(seen.shape, bool)
    for at, frame in enumerate(frames):
        rows = np.flatnonzero(np.isin(frame.ids, ids))
        places = np.searchsorted(ids, frame.ids[rows])
        seen[at, places], slots[at, places] = frame.instance[rows], frame.slots[rows]
        lives[at, places] = True
    index = np.arange(len(frames))
    for slot in range(len(ids)):
        alive = np.flatnonzero(lives[:, slot])
        nearest = alive[np.abs(index[:, None] - alive[None]).argmin(1)]
        slots[:, slot] = slots[nearest, slot]
    return seen, slots


class _Sides:
    """Each slot's instance before and after a frame."""

    def __init__(self, frames: list[Tracked], seen: np.ndarray) -> None:
        self.frames, self.seen = frames, seen
        self.every = stacked([frame.found for frame in frames])
        self.first = np.cumsum([0, *(len(frame.found) for frame in frames[:-1])])
        self.seconds = np.array([frame.stamp_ns - frames[0].stamp_ns for frame in frames]) * 1e-9
        index = np.arange(len(frames))[:, None]
        last = np.maximum.accumulate(np.where(seen >= 0, index, -1), 0)
        following = np.minimum.accumulate(np.where(seen >= 0, index, len(frames))[::-1], 0)[::-1]
        self.before = np.concatenate([np.full_like(last[:1], -1), last[:-1]])
        self.after = np.concatenate([following[1:], np.full_like(last[:1], len(frames))])

    def of(self, at: int) -> tuple[np.ndarray, np.ndarray]:
        """State (S, STATE) and relations (S, N, RELATION) to the instances of frame `at`."""
        before, after = self.before[at], self.after[at]
        earlier, later = before >= 0, after < len(self.frames)
        # who is seen in this frame alone is compared with itself
        own = np.full_like(before, at)
        before = np.where(earlier, before, np.where(later, after, own))
        after = np.where(later, after, before)
        since = np.abs(self.seconds[at] - self.seconds[before])
        until = np.abs(self.seconds[after] - self.seconds[at])
        near = since <= until
        rows = [self.first[frame] + self.seen[frame, np.arange(len(frame))]
                for frame in (before, after)]
        boxes = [self.every.boxes[row] for row in rows]
        share = np.where(earlier & later, since / np.maximum(since + until, 1e-9), ~near)[:, None]
        expected = (boxes[0] + share * (boxes[1] - boxes[0])).astype(np.float32)
        ages = [age(np.where(known, time, _FAR_S))[:, None]
                for known, time in ((earlier, since), (later, until))]
        state = np.concatenate([shape_of(expected), *ages, earlier[:, None], later[:, None],
                                self.seen[at][:, None] >= 0], 1)
        now = self.frames[at].found
        nearer, other = (self.every.take(np.where(near, *pair)) for pair in (rows, rows[::-1]))
        table = pairs(nearer, expected, np.minimum(since, until), now)
        mine = self.seen[at][:, None] == np.arange(len(now))
        far = np.broadcast_to(age(np.maximum(since, until))[:, None], mine.shape)
        more = [other.embeddings @ now.embeddings.T, other.looks[:, :-3] @ now.looks[:, :-3].T, far,
                mine]
        return state, np.concatenate([table, np.stack(more, -1)], -1)
