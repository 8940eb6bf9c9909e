"""Association by a small network: DVIS' Referring Tracker, over a frame's instances.

    instances, frame -> tokens;  slots -> where they are expected (carried, or at constant velocity)
    tokens | first guess | slots of the frame before -> network -> which instance each slot is

A slot is a living track; birth, confirmation, holding and death are the lifecycle's. Legend as in
`tokens`; C width of a slot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mos_perception.config import Config
from mos_perception.datatypes import Instances, Tracks
from mos_perception.engine.card import ModelCard, embedding_channels
from mos_perception.engine.interface import Engine
from mos_perception.engine.model_files import find_model
from mos_perception.errors import EngineError
from mos_perception.models.outputs import softmax
from mos_perception.tracking.hungarian import assign
from mos_perception.tracking.lifecycle import Track, TrackStore
from mos_perception.tracking.tokens import Tokens, first_guess, pairs, places, stacked, tokens
from mos_perception.tracking.tracker_card import TrackerCard, check_tracker, load_tracker_card

# from here on an instance may be a slot's; at 0.01 what vanishes becomes what appears elsewhere
LEAST = 0.1


@dataclass(frozen=True)
class Tracked:
    """What became of a frame, as the refiner takes it: `found` its N instances, `queries` (N, C)
    the network's vectors of them; of the M living tracks `ids` (M,), `slots` (M, C) and `instance`
    (M,), the row in `found` or -1.
    """

    stamp_ns: int
    found: Tokens
    queries: np.ndarray
    ids: np.ndarray
    slots: np.ndarray
    instance: np.ndarray


@dataclass
class _Slot:
    """What a living track carries: its vector (C,) and its instance as last seen (one row)."""

    reference: np.ndarray
    seen: Tokens


class ReferringTracker:
    """Tracks by what the network remembers of each. All its memory is here; `reset` forgets it.

    `tracked` is the last frame's outcome, None after a reset.
    """

    def __init__(self, config: Config, engine: Engine, card: TrackerCard, channels: int) -> None:
        """`channels` of the model's embeddings; a model without any (0) is tracked by looks.

        Raises EngineError where card, graph and model disagree.
        """
        check_tracker(card, engine)
        if channels not in (0, card.embeddings):
            raise EngineError(
                f'tracker {card.id} is for embeddings of {card.embeddings} channels, the model '
                f'gives {channels}: set tracker to hungarian, or train one for this model '
                '(training.train_tracker)')
        self.engine, self.card = engine, card
        self.store = TrackStore(config)
        self.reset()

    def configure(self, config: Config) -> None:
        """Take new `track_*` values; living tracks stay."""
        self.store.configure(config)

    def update(self, instances: Instances, stamp_ns: int, flow: np.ndarray | None = None,
               flow_error: np.ndarray | None = None,
               image: np.ndarray | None = None) -> tuple[Instances, Tracks]:
        """The instances with those held, and the tracks; `image` (H, W, 3) tells looks.

        Raises SyncError if `stamp_ns` is before the last one, EngineError for a failed inference.
        """
        tracks = self.store.advance(stamp_ns, instances.size, flow, flow_error)
        now = self._tokens(instances, image)
        numbers = [track.id for track in tracks]
        outputs = self._step(tracks, now, instances.size, stamp_ns)
        matches = assign(probabilities(outputs['logits'][0])) if tracks else []
        instances, after = self.store.apply(matches, instances)
        slots = {number: _Slot(reference, self._slots[number].seen)
                 for number, reference in zip(numbers, outputs['slots'][0])}
        for row, column in matches:
            slots[numbers[row]].seen = now.take([column])
        for track in self.store.tracks:
            if track.id not in slots:
                row = track.instance
                slots[track.id] = _Slot(outputs['queries'][0, row], now.take([row]))
        self._slots = {track.id: slots[track.id] for track in self.store.tracks}
        self.tracked = self._tracked(now, outputs.get('queries', np.zeros((1, 0))), after)
        return instances, after

    def reset(self) -> None:
        """Forget everything; ids start at 1 again (a new epoch)."""
        self.store.reset()
        self._slots: dict[int, _Slot] = {}
        self.tracked: Tracked | None = None

    def _tracked(self, now: Tokens, queries: np.ndarray, after: Tracks) -> Tracked:
        width = self.card.width
        slots = np.array([self._slots[number].reference for number in after.ids.tolist()],
                         np.float32).reshape(-1, width)
        instance = np.where(after.instance < len(now), after.instance, -1)  # not what is held
        return Tracked(self.store.stamp_ns, now, queries[0].reshape(-1, width), after.ids, slots,
                       instance)

    def _tokens(self, instances: Instances, image: np.ndarray | None) -> Tokens:
        found = tokens(instances, image)
        if found.embeddings.shape[1] == self.card.embeddings:
            return found
        blank = np.zeros((len(found), self.card.embeddings), np.float32)
        return replace(found, embeddings=blank)

    def _step(self, tracks: list[Track], now: Tokens, size: tuple[int, int],
              stamp_ns: int) -> dict[str, np.ndarray]:
        """The network's outputs. Without instances there is nothing to look at: slots stay."""
        slots = [self._slots[track.id] for track in tracks]
        reference = np.array([slot.reference for slot in slots], np.float32)
        reference = reference.reshape(len(slots), self.card.width)
        if not len(now):
            return {'logits': np.zeros((1, len(slots), 1), np.float32), 'slots': reference[None]}
        boxes = expected(tracks, size, stamp_ns)
        unseen_s = np.array([stamp_ns - track.seen_ns for track in tracks]) * 1e-9
        known = np.array([track.placed for track in tracks], bool)
        seen = stacked([slot.seen for slot in slots]) if slots else now.take(slice(0))
        table = pairs(seen, boxes, unseen_s, now)
        vectors = now.vectors()
        nothing = np.zeros((1, vectors.shape[1]), np.float32)
        initial = np.append(vectors, nothing, 0)[first_guess(table)]
        inputs = {'frame': vectors, 'initial': initial, 'reference': reference,
                  'place': places(boxes, unseen_s, known), 'pairs': table}
        if not slots:  # attention among no slots is not defined: an empty one stands in
            inputs = {name: value if name == 'frame' else
                      np.zeros((1, *value.shape[1:]), np.float32)
                      for name, value in inputs.items()}
        outputs = self.engine.run({name: value[None] for name, value in inputs.items()})
        for name in ('logits', 'slots'):
            outputs[name] = outputs[name][:, :len(slots)]
        return outputs


def expected(tracks: list[Track], size: tuple[int, int], stamp_ns: int) -> np.ndarray:
    """(M, 4) boxes in shares of the image: carried by the flow; where something covered it at rest
    or long ago, carried with what is around; else at constant velocity.
    """
    height, width = size
    boxes = [track.carried.box if _is_carried(track) else
             track.seen.box + np.tile(track.shift(stamp_ns), 2) for track in tracks]
    scale = np.array([width, height, width, height], np.float32)
    return np.array(boxes, np.float32).reshape(-1, 4) / scale


def _is_carried(track: Track) -> bool:
    # one that was covered while it moved is likelier to go on behind than to wait there
    waits = track.hidden and (track.was_held or track.forgotten)
    return track.placed or waits and track.carried is not None


def probabilities(logits: np.ndarray, least: float = LEAST) -> np.ndarray:
    """(M, N) of logits (M, N + 1), the last one "none"; -inf where below `least`."""
    shares = softmax(logits)[:, :-1]
    return np.where(shares >= least, shares, -np.inf)


def load_referring(config: Config, card: ModelCard | None) -> ReferringTracker:
    """The network that `tracker_model` names, on one thread of the CPU: it is small, and copies
    to a GPU would take longer. Raises EngineError.
    """
    from mos_perception.engine.ort import OrtEngine
    path = find_model(config.tracker_model, 'trackers')
    own = load_tracker_card(path)
    return ReferringTracker(config, OrtEngine(path, threads=1), own,
                            0 if card is None else embedding_channels(card))
