"""A recording through the pipeline and, window by window, through the Temporal Refiner: offline.

What waits for its window is kept small: masks as run lengths, frames as JPEG. Masks stay the
model's own; which of them belong together, and what a track's score is, the refiner says.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from mos_perception.datatypes import Frame, Instances, Result, Tracks, TrackState
from mos_perception.masks import coco_codes, mask_from_coco
from mos_perception.replay import Step
from mos_perception.tracking.lifecycle import smoothed_velocity
from mos_perception.tracking.referring import ReferringTracker
from mos_perception.tracking.refiner import Named, NamedWindows, TemporalRefiner

_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 90)


class Refinement:
    """Results of a replay, refined: in their order, a window later."""

    def __init__(self, tracker: ReferringTracker, refiner: TemporalRefiner) -> None:
        """`tracker` is the one that the replay's pipeline drives."""
        self.tracker = tracker
        self.named = 0
        self._windows = NamedWindows(refiner)
        self._waiting: deque[_Waiting] = deque()
        self._paths = _Paths()

    def over(self, steps: Iterable[Step]) -> Iterator[tuple[Result, Frame | None]]:
        """Each result and its frame as a picture for people (JPEG was between). Raises EngineError
        for a failed inference. A new epoch begins with new tracks.
        """
        for step in steps:
            if not isinstance(step.outcome, Result):
                continue
            if self._waiting and self._waiting[-1].result.epoch != step.outcome.epoch:
                yield from self._flush()
            tracked = self.tracker.tracked
            self._waiting.append(_Waiting.of(step, len(tracked.found), self._ids(step.outcome)))
            yield from self._ready(self._windows.push(tracked))
        yield from self._flush()

    def _ids(self, result: Result) -> np.ndarray:
        return result.tracks.instance_ids(len(result.instances))

    def _flush(self) -> Iterator[tuple[Result, Frame | None]]:
        yield from self._ready(self._windows.flush())
        self._paths = _Paths()

    def _ready(self, rows: list[Named]) -> Iterator[tuple[Result, Frame | None]]:
        for named in rows:
            waited = self._waiting.popleft()
            result = self._paths.result(waited, named)
            self.named += self._paths.born_now
            yield result, waited.frame()


@dataclass(frozen=True)
class _Waiting:
    """A result whose window is not full yet: `found` of its instances are the model's, the others
    the tracker held; `ids` (N,) the tracker's of each.
    """

    result: Result  # its masks are in `codes`
    size: tuple[int, int]
    codes: list[bytes]
    found: int
    ids: np.ndarray
    picture: np.ndarray | None

    @staticmethod
    def of(step: Step, found: int, ids: np.ndarray) -> _Waiting:
        result = step.outcome
        frame = None if step.sample is None else step.sample.frame
        picture = None if frame is None else cv2.imencode('.jpg', frame.image, _JPEG)[1]
        shown = result.instances
        light = dataclasses.replace(shown, masks=np.zeros((len(shown), 0, 0), bool))
        return _Waiting(dataclasses.replace(result, instances=light, window=None), shown.size,
                        coco_codes(shown.masks), found, ids, picture)

    def frame(self) -> Frame | None:
        if self.picture is None:
            return None
        return Frame(self.result.stamp_ns, cv2.imdecode(self.picture, cv2.IMREAD_UNCHANGED),
                     self.result.frame_id)

    def instances(self, kept: np.ndarray, scores: np.ndarray) -> Instances:
        """The rows `kept`, with their `scores`."""
        shown = self.result.instances
        masks = np.zeros((len(kept), *self.size), bool)
        for mask, row in zip(masks, kept):
            mask[:] = mask_from_coco({'size': self.size, 'counts': self.codes[row].decode()})
        return Instances(masks, shown.boxes[kept], scores.astype(np.float32),
                         shown.motion_scores[kept], shown.moving[kept], shown.embeddings[kept])


@dataclass
class _Path:
    born_ns: int
    seen_ns: int
    box: np.ndarray
    velocity: np.ndarray | None = None


class _Paths:
    """Age and velocity of the tracks, by name."""

    def __init__(self) -> None:
        self.born_now = 0
        self._paths: dict[int, _Path] = {}

    def result(self, waited: _Waiting, named: Named) -> Result:
        """The frame with its refined tracks. What the tracker held at rest stays where no other
        instance shows its track.
        """
        names = np.zeros(len(waited.ids), np.int64)
        names[:waited.found] = named.track
        scores = waited.result.instances.scores.copy()
        scores[:waited.found] = named.scores
        for row in range(waited.found, len(names)):
            name = named.names.get(int(waited.ids[row]), 0)
            names[row] = 0 if name in names else name
        kept = np.flatnonzero((names > 0) | (np.arange(len(names)) < waited.found))
        instances, names = waited.instances(kept, scores[kept]), names[kept]
        rows = np.flatnonzero(names > 0)
        rows = rows[np.argsort(names[rows])]
        self._step(names[rows], instances.boxes[rows], waited.result.stamp_ns,
                   set(named.names.values()))
        paths = [self._paths[int(name)] for name in names[rows]]
        stamp = waited.result.stamp_ns
        tracks = Tracks(
            names[rows], np.full(len(rows), TrackState.CONFIRMED.value),
            np.array([(stamp - path.born_ns) * 1e-9 for path in paths]), instances.boxes[rows],
            np.array([(0, 0) if path.velocity is None else path.velocity for path in paths],
                     np.float32).reshape(-1, 2), rows)
        return dataclasses.replace(waited.result, instances=instances, tracks=tracks)

    def _step(self, names: np.ndarray, boxes: np.ndarray, stamp_ns: int, living: set[int]) -> None:
        self._paths = {name: path for name, path in self._paths.items() if name in living}
        self.born_now = 0
        for name, box in zip(names.tolist(), boxes):
            path = self._paths.get(name)
            if path is None:
                self.born_now += 1
                self._paths[name] = _Path(stamp_ns, stamp_ns, box)
                continue
            elapsed_s = (stamp_ns - path.seen_ns) * 1e-9
            if elapsed_s > 0:
                path.velocity = smoothed_velocity(path.velocity, path.box, box, elapsed_s)
            path.seen_ns, path.box = stamp_ns, box
