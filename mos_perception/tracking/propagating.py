"""GMOS' propagator as a tracker: its stage 1 online, over either member.

What the model finds are proposals; the propagator decides which of them become objects, carries
their masks from answer to answer, and says which of them move (`propagation.stage1`). So masks, ids
and the motion flag are the propagator's. Of the `track_*` parameters `track_confirm_s`,
`track_lost_s` and `track_hold_s` count: of ten places one gets free when its object was neither
seen to move, nor held, for `track_lost_s`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mos_perception.config import Config
from mos_perception.datatypes import Instances, Tracks, TrackState
from mos_perception.engine import load_engine
from mos_perception.engine.interface import Engine
from mos_perception.engine.model_files import find_model, graph_beside
from mos_perception.errors import EngineError, SyncError
from mos_perception.masks import mask_boxes
from mos_perception.propagation import MaskPropagator, Proposals
from mos_perception.propagation.appearance import AppearanceEncoder
from mos_perception.propagation.decisions import PUBLISHED, Constants
from mos_perception.propagation.flow_masks import FLOW, FlowPropagator
from mos_perception.propagation.sam2_memory import GRAPHS, Sam2Propagator
from mos_perception.propagation.stage1 import FrameObjects, Stage1
from mos_perception.tracking.lifecycle import smoothed_velocity

LAST_NUMBER = 2 ** 16 - 1  # stage 1 labels pixels in uint16


@dataclass
class _Object:
    """`shown_ns`, when it was last published, `moved_ns`, when it last moved; `box` (4,) px of
    then; `velocity` (2,) px/s of its centre, None until published twice.
    """

    born_ns: int
    shown_ns: int
    moved_ns: int
    box: np.ndarray
    velocity: np.ndarray | None = None
    instance: int = -1

    def show(self, stamp_ns: int, box: np.ndarray, instance: int) -> None:
        """Published at `box` in this frame."""
        elapsed_s = (stamp_ns - self.shown_ns) * 1e-9
        if elapsed_s > 0:
            self.velocity = smoothed_velocity(self.velocity, self.box, box, elapsed_s)
        self.shown_ns, self.box, self.instance = stamp_ns, box, instance


class PropagatedObjects:
    """The objects of a stage by number: since when, where, how fast."""

    def __init__(self) -> None:
        self.objects: dict[int, _Object] = {}
        self.last_number = 0

    @property
    def used_up(self) -> bool:
        """See `Store`."""
        return self.last_number > LAST_NUMBER - 2 * PUBLISHED.max_objects

    def report(self) -> dict[str, int]:
        """See `Store`."""
        return {'propagated objects': len(self.objects)}


class PropagationTracker:
    """Instances of an answer are proposals; those returned are the propagator's objects."""

    def __init__(self, config: Config, constants: Constants,
                 make: Callable[[PropagationTracker, tuple[int, int]], MaskPropagator]) -> None:
        """`make(tracker, size)` gives the propagator of frames of (height, width); it may look at
        `flow` and `image` of the tracker, which are those of the frame in work.
        """
        self._make, self._constants = make, constants
        self.configure(config)
        self.reset()

    def configure(self, config: Config) -> None:
        """Take `track_confirm_s`, `track_lost_s` and `track_hold_s`; living objects stay."""
        self.confirm_s, self.lost_s = config.track_confirm_s, config.track_lost_s
        self.hold_s = config.track_hold_s

    def reset(self) -> None:
        """Forget everything; ids start at 1 again (a new epoch)."""
        self.store = PropagatedObjects()
        self.flow: tuple[np.ndarray, np.ndarray] | None = None
        self.image: np.ndarray | None = None
        self._stage: Stage1 | None = None
        self._frame, self._stamp_ns = 0, -1

    def update(self, instances: Instances, stamp_ns: int, flow: np.ndarray | None = None,
               flow_error: np.ndarray | None = None,
               image: np.ndarray | None = None) -> tuple[Instances, Tracks]:
        """Where the objects are and how they do. Instances score the expected IoU of the mask;
        `motion_scores` are 1 or 0; embeddings are zeros. Objects at rest come until `track_hold_s`.

        Raises SyncError if `stamp_ns` is before the last one, EngineError for a failed inference.
        """
        if stamp_ns < self._stamp_ns:
            raise SyncError(f'tracker got stamp {stamp_ns} ns after {self._stamp_ns} ns: reset it '
                            'when time jumps back')
        if self._stage is None:
            self._stage = Stage1(self._make(self, instances.size), self._constants)
            self._size = instances.size
        if instances.size != self._size:
            raise SyncError(f'tracker got masks of {instances.size} after {self._size} (height, '
                            'width): reset the node')
        self.flow = None if flow is None or flow_error is None else (flow, flow_error)
        self.image = image
        motion = instances.motion_scores
        quality = instances.scores / np.maximum(motion, np.finfo(np.float32).tiny)
        found = self._stage.step(self._frame, Proposals(instances.masks, motion, quality))
        self._frame, self._stamp_ns, self.image = self._frame + 1, stamp_ns, None
        shown = self._book(found, stamp_ns)
        self._drop_lost(stamp_ns)
        return (self._instances(found, shown, instances.embeddings.shape[1]),
                self._tracks(stamp_ns))

    def _book(self, found: FrameObjects, stamp_ns: int) -> list[int]:
        """Take a frame into the store; the rows of the objects to publish, best first."""
        objects, shown = self.store.objects, []
        masks = [found.labels == number for number in found.numbers]
        boxes = mask_boxes(masks)
        for item in objects.values():
            item.instance = -1
        for row in np.argsort(-found.iou, kind='stable').tolist():
            number = found.numbers[row]
            if number not in objects:
                objects[number] = _Object(stamp_ns, stamp_ns, stamp_ns, boxes[row])
                self.store.last_number = max(self.store.last_number, number)
            item = objects[number]
            if found.moving[row]:
                item.moved_ns = stamp_ns
            rests = not found.moving[row] and (stamp_ns - item.moved_ns) * 1e-9 > self.hold_s
            if masks[row].any() and not rests:
                item.show(stamp_ns, boxes[row], len(shown))
                shown.append(row)
        return shown

    def _drop_lost(self, stamp_ns: int) -> None:
        for number, item in list(self.store.objects.items()):
            if item.instance < 0 and (stamp_ns - item.shown_ns) * 1e-9 >= self.lost_s:
                del self.store.objects[number]
                self._stage.drop(number)

    def _instances(self, found: FrameObjects, rows: list[int], channels: int) -> Instances:
        masks = np.array([found.labels == found.numbers[row] for row in rows], bool)
        masks, moving = masks.reshape(-1, *found.labels.shape), found.moving[rows]
        return Instances(masks, mask_boxes(masks), found.iou[rows].clip(0, 1),
                         moving.astype(np.float32), moving,
                         np.zeros((len(rows), channels), np.float32))

    def _tracks(self, stamp_ns: int) -> Tracks:
        items = self.store.objects
        ages_s = np.array([(stamp_ns - item.born_ns) * 1e-9 for item in items.values()])
        states = [TrackState.LOST if item.instance < 0 else
                  TrackState.CONFIRMED if age_s >= self.confirm_s else TrackState.TENTATIVE
                  for item, age_s in zip(items.values(), ages_s)]
        return Tracks(np.array(list(items), np.int64), np.array(states, np.int64), ages_s,
                      np.array([item.box for item in items.values()], np.float32).reshape(-1, 4),
                      np.array([(0, 0) if item.velocity is None else item.velocity
                                for item in items.values()], np.float32).reshape(-1, 2),
                      np.array([item.instance for item in items.values()], np.int64))


def load_propagating(config: Config, appearance: AppearanceEncoder | None) -> PropagationTracker:
    """The tracker `propagation_flow` or `propagation_sam2`.

    SAM 2's graphs are those beside the model's own image encoder, `appearance`, if it has one with
    a memory; else those of `mos import sam2`. Raises EngineError.
    """
    if config.tracker == 'propagation_flow':
        return PropagationTracker(config, FLOW, _flow_member)
    if not config.image_topic:
        raise EngineError('tracker propagation_sam2 needs frames: set image_topic, or tracker to '
                          'propagation_flow or hungarian')
    given = config.backend, config.threads, config.cuda_driver
    if appearance is None or not graph_beside(appearance.path, GRAPHS[0]).is_file():
        try:
            path = find_model('sam2_appearance')
        except EngineError as error:
            raise EngineError(f'tracker propagation_sam2: {error}; "mos import sam2" makes it'
                              ) from error
        appearance = AppearanceEncoder(path, *given)
    engines = {name: load_engine(graph_beside(appearance.path, name), *given) for name in GRAPHS}
    return PropagationTracker(config, PUBLISHED, _sam2_member(engines, appearance))


def _flow_member(tracker: PropagationTracker, size: tuple[int, int]) -> MaskPropagator:
    return FlowPropagator(lambda frame, step: tracker.flow, size)


def _sam2_member(engines: Mapping[str, Engine], appearance: AppearanceEncoder
                 ) -> Callable[[PropagationTracker, tuple[int, int]], MaskPropagator]:
    def make(tracker: PropagationTracker, size: tuple[int, int]) -> MaskPropagator:
        def levels(frame: int) -> Mapping[str, np.ndarray]:
            if tracker.image is None:
                raise EngineError('tracker propagation_sam2 sees frames alone, there is none: is '
                                  'the camera silent?')
            return appearance.of(tracker.image)
        return Sam2Propagator(engines, levels, size)
    return make
