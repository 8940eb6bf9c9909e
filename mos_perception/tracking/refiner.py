"""DVIS' Temporal Refiner offline: which instance each track is, seen from before and after.

Frames come one by one and are refined in windows of 80; a window shares its last 20 frames with the
next, and what is given out lies 10 frames from either end, so that memory is bounded for any
length. Names are carried over: a track of the next window has the name of the one that has most of
its instances in the shared frames. Legend as in `windows`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mos_perception.engine.interface import Engine, TensorSpec
from mos_perception.engine.model_files import find_model
from mos_perception.errors import EngineError
from mos_perception.tracking.hungarian import assign
from mos_perception.tracking.referring import Tracked, probabilities
from mos_perception.tracking.tracker_card import (
    RefinerCard,
    TrackerCard,
    check_tensors,
    load_refiner_card,
)
from mos_perception.tracking.windows import RELATION, STATE, window_inputs

WINDOW = 80  # frames; from there on DVIS found semi-online as good as whole videos
OVERLAP = 20
LEAST = 0.1  # probability from which an instance may be a track's; chosen on split `val`


@dataclass(frozen=True)
class Refined:
    """What became of the frames of a window: of the tracker's tracks `ids` (S,) the `instance` (T,
    S), -1 = none, and the `scores` (S,), whether each is a moving object of its own, in [0, 1].
    """

    ids: np.ndarray
    instance: np.ndarray
    scores: np.ndarray


class TemporalRefiner:
    """The network over windows; it keeps nothing between them."""

    def __init__(self, engine: Engine, card: RefinerCard, tracker: TrackerCard) -> None:
        """Raises EngineError where card, graph and tracker disagree."""
        check_tensors(card, refiner_tensors(card.width), engine)
        if card.tracker != tracker.sha256:
            raise EngineError(
                f'refiner {card.id} was trained behind a tracker of sha256 {card.tracker}, '
                f'{tracker.id} has {tracker.sha256}: train one behind it (training.train_refiner) '
                'or name the refiner that belongs to it')
        self.engine, self.card = engine, card

    def refine(self, frames: list[Tracked]) -> Refined:
        """One window of one or more frames. Raises EngineError for a failed inference."""
        ids, seen, inputs = window_inputs(frames)
        if not len(ids):
            return Refined(ids, seen, np.zeros(0))
        outputs = self.engine.run({name: value[None] for name, value in inputs.items()})
        instance = np.full(seen.shape, -1, np.int64)
        for at, logits in enumerate(outputs['logits'][0]):
            for slot, row in assign(probabilities(logits, LEAST)):
                if row < len(frames[at].found):
                    instance[at, slot] = row
        return Refined(ids, instance, 1 / (1 + np.exp(-outputs['objects'][0].astype(np.float64))))


@dataclass(frozen=True)
class Named:
    """One frame, refined: for each of its N instances the name of its track (N,), 0 = none, and the
    track's score (N,); `names` of the tracker's ids that live in this window.
    """

    track: np.ndarray
    scores: np.ndarray
    names: dict[int, int]


@dataclass
class NamedWindows:
    """Frames in, refined frames out, in their order and `WINDOW` later."""

    refiner: TemporalRefiner
    _frames: list[Tracked] = field(default_factory=list)
    _given: int = 0  # frames of the window that were given out before
    _known: list[np.ndarray] = field(default_factory=list)  # names in the frames shared
    _names: dict[int, int] = field(default_factory=dict)  # of the tracker's ids
    _last: int = 0

    def push(self, frame: Tracked) -> list[Named]:
        """Take a frame; those that are ready, oldest first. Raises EngineError."""
        self._frames.append(frame)
        if len(self._frames) < WINDOW:
            return []
        return self._refined(WINDOW - OVERLAP // 2, WINDOW - OVERLAP)

    def flush(self) -> list[Named]:
        """The end: all that is left. The next frame begins anew, names count on from 1."""
        found = self._refined(len(self._frames), len(self._frames)) if self._frames else []
        self._frames, self._known, self._names = [], [], {}
        self._given = self._last = 0
        return found

    def _refined(self, end: int, shared_from: int) -> list[Named]:
        """Refine the window, give out the frames up to `end`, keep those from `shared_from`."""
        refined = self.refiner.refine(self._frames)
        names = self._name(refined)
        rows = []
        for at, frame in enumerate(self._frames):
            track, scores = np.zeros(len(frame.found), np.int64), frame.found.scores.copy()
            slots = np.flatnonzero(refined.instance[at] >= 0)
            track[refined.instance[at, slots]] = names[slots]
            scores[refined.instance[at, slots]] = refined.scores[slots]
            rows.append(Named(track, scores, self._names))
        given = rows[self._given:end]
        self._known = [row.track for row in rows[shared_from:]]
        self._frames = self._frames[shared_from:]
        self._given = end - shared_from
        return given

    def _name(self, refined: Refined) -> np.ndarray:
        """(S,) names of a window's tracks, 0 for those without any instance."""
        slots = np.flatnonzero((refined.instance >= 0).any(0))
        votes: dict[int, np.ndarray] = {}
        for known, row in zip(self._known, refined.instance):
            for column, slot in enumerate(slots):
                if row[slot] >= 0 and known[row[slot]]:
                    votes.setdefault(int(known[row[slot]]), np.zeros(len(slots)))[column] += 1
        names = np.zeros(len(refined.ids), np.int64)
        if votes:
            table = np.stack([votes[name] for name in votes], 1)
            pairs = assign(np.where(table > 0, table, -np.inf))
            for column, place in pairs:
                names[slots[column]] = list(votes)[place]
        for slot in slots[names[slots] == 0]:
            before = self._names.get(int(refined.ids[slot]), 0)
            if not before or before in names:
                self._last += 1
                before = self._last
            names[slot] = before
        # the tracker's ids never come back once they ended: others need no name any more
        living = set(np.concatenate([frame.ids for frame in self._frames]).tolist())
        self._names = {number: name for number, name in self._names.items() if number in living}
        self._names |= {int(refined.ids[slot]): int(names[slot]) for slot in slots}
        return names


def refiner_tensors(width: int) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a refiner whose slots have `width`."""
    inputs = (('queries', None, None, width), ('padding', None, None),
              ('slots', None, None, width), ('state', None, None, STATE),
              ('relations', None, None, None, RELATION))
    outputs = (('logits', None, None, None), ('objects', None))
    return tuple(tuple(TensorSpec(name, (1, *shape), 'float32') for name, *shape in side)
                 for side in (inputs, outputs))


def load_refiner(name: str, tracker: TrackerCard) -> TemporalRefiner:
    """The network of a name under models/trackers/ or a path, on one thread of the CPU. Raises
    EngineError.
    """
    from mos_perception.engine.ort import OrtEngine
    path: Path = find_model(name, 'trackers')
    return TemporalRefiner(OrtEngine(path, threads=1), load_refiner_card(path), tracker)
