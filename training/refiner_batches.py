"""Batches for the Temporal Refiner: windows that the frozen tracker went through, and what is true.

Cached sequences are made harder as for the tracker (`tracker_batches.harder`), false instances are
strewn in, and the tracker's own network follows them frame by frame. A slot's object is the one
that it covers in most frames; of several slots of one object the one with most frames owns it, the
others are to find none. Legend as in `mos_perception.tracking.windows`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mos_perception.config import Config
from mos_perception.datatypes import Instances
from mos_perception.engine.interface import Engine
from mos_perception.engine.ort import OrtEngine
from mos_perception.errors import DatasetError
from mos_perception.masks import mask_boxes
from mos_perception.tracking.referring import ReferringTracker, Tracked
from mos_perception.tracking.tokens import LOOKS, SHAPE, Tokens, stacked, unit
from mos_perception.tracking.tracker_card import TrackerCard, load_tracker_card
from mos_perception.tracking.windows import window_inputs
from training.tracker_batches import IGNORED, Curriculum, harder
from training.tracker_cache import Sequence, load_sequence

CURRICULUM = Curriculum(frames=30, slots=8, strides=(1, 1, 2), covered=0.4, missed=0.1, jumps=0.25,
                        alike=0.2, lost_s=(0.2, 1.0))
_SIZE = (90, 160)  # px of the masks, rectangles, that stand for the cached boxes
_CLUTTER = 0.6  # share of windows with false instances


@dataclass(frozen=True)
class Source:
    """A cached sequence and which of its objects move at some time."""

    sequence: Sequence
    moving: frozenset[int]


@dataclass(frozen=True)
class Window:
    """One sample: the network's `inputs`, `target` (T, S) the slot's instance, N = none, IGNORED,
    and `objects` (S,) 1 where the slot is a moving object's own, else 0.
    """

    inputs: dict[str, np.ndarray]
    target: np.ndarray
    objects: np.ndarray


@dataclass(frozen=True)
class Batch:
    """`Window`s beside each other, with `empty` (B, S) True at no slot."""

    inputs: dict[str, Tensor]
    target: Tensor
    objects: Tensor
    empty: Tensor


def load_sources(folders: list[Path]) -> list[Source]:
    """All sequences of some folders of `training.tracker_cache`. Raises DatasetError."""
    found = []
    for path in sorted(path for folder in folders for path in folder.glob('*.npz')):
        sequence = load_sequence(path)
        truth = path.with_name(f'{path.stem}-truth.npz')
        objects = load_sequence(truth).objects if truth.exists() else sequence.objects
        found.append(Source(sequence, frozenset(np.concatenate(objects).tolist()) - {0}))
    if not found:
        raise DatasetError(f'no *.npz in {", ".join(map(str, folders))}: make some with "python -m '
                           'training.tracker_cache"')
    return found


class FrozenTracker:
    """The tracker's network over tokens that are there already."""

    def __init__(self, path: Path) -> None:
        """`path` of its ONNX file. Raises EngineError."""
        self.card: TrackerCard = load_tracker_card(path)
        self.engine: Engine = OrtEngine(path, threads=1)

    def follow(self, sequence: Sequence, lost_s: float) -> list[Tracked]:
        """What became of every frame."""
        tracker = _OverTokens(Config(track_hold_s=0.0, track_lost_s=lost_s), self.engine, self.card,
                              self.card.embeddings)
        found = []
        for tokens, stamp in zip(sequence.frames, sequence.stamps_ns.tolist(), strict=True):
            tracker.now = tokens
            tracker.update(rectangles(tokens), stamp)
            found.append(tracker.tracked)
        return found


class _OverTokens(ReferringTracker):
    now: Tokens

    def _tokens(self, instances: Instances, image: np.ndarray | None) -> Tokens:
        return self.now


def rectangles(tokens: Tokens) -> Instances:
    """Instances whose masks are the boxes, at least a pixel each."""
    height, width = _SIZE
    masks = np.zeros((len(tokens), height, width), bool)
    corners = np.rint(tokens.boxes * np.array([width, height, width, height])).astype(int)
    for mask, (x0, y0, x1, y1) in zip(masks, corners):
        left, top = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
        mask[top:max(y1, top + 1), left:max(x1, left + 1)] = True
    moving = np.ones(len(tokens), bool)
    return Instances(masks, mask_boxes(masks), tokens.scores, tokens.scores, moving,
                     tokens.embeddings)


def cluttered(sequence: Sequence, rng: np.random.Generator) -> Sequence:
    """With false instances that last for a few frames, nobody's; and scores that say little."""
    frames = [replace(frame, scores=(frame.scores * rng.uniform(0.5, 1, len(frame))).astype(
        np.float32)) for frame in sequence.frames]
    objects = list(sequence.objects)
    for _ in range(int(rng.poisson(3)) if rng.random() < _CLUTTER else 0):
        start = int(rng.integers(len(frames)))
        centre, side = rng.uniform(0.1, 0.9, 2), rng.uniform(0.03, 0.3, 2)
        looks = np.append(unit(rng.random(LOOKS - 3) ** 8), rng.uniform(-1, 1, 3))[None]
        embedding = unit(rng.normal(size=(1, frames[0].embeddings.shape[1])))
        for at in range(start, min(len(frames), start + int(rng.integers(1, 8)))):
            corner = centre - side / 2 + rng.normal(0, 0.01, 2)
            box = np.append(corner, corner + side)[None]
            false = Tokens(embedding, looks.astype(np.float32),
                           np.ones((1, SHAPE, SHAPE), np.float32), box.astype(np.float32),
                           rng.uniform(0.3, 1, 1).astype(np.float32))
            frames[at] = stacked([frames[at], false])
            objects[at] = np.append(objects[at], 0)
    return Sequence(frames, objects, sequence.stamps_ns)


def truth_of(objects: list[np.ndarray], seen: np.ndarray, moving: frozenset[int],
             none: int) -> tuple[np.ndarray, np.ndarray]:
    """`target` and `objects` of a `Window`: `objects` (N,) who the instances of a frame are, 0 =
    nobody known; `seen` (T, S) the tracker's word; `none` the target of no instance.
    """
    frames, slots = seen.shape
    named = np.array([[objects[at][row] if row >= 0 else -1 for row in seen[at]]
                      for at in range(frames)], np.int64).reshape(frames, slots)
    owners: dict[int, tuple[int, int]] = {}
    for slot in range(slots):
        names, counts = np.unique(named[named[:, slot] >= 0, slot], return_counts=True)
        name, frames_of_it = int(names[counts.argmax()]), int(counts.max())
        if name > 0 and frames_of_it > owners.get(name, (-1, 0))[1]:
            owners[name] = slot, frames_of_it
    owned = {slot: name for name, (slot, _) in owners.items()}
    target = np.full(seen.shape, none, np.int64)
    for slot in range(slots):
        if slot not in owned:
            if not (named[:, slot] > 0).any():  # false throughout: the score says so
                target[:, slot] = IGNORED
            continue
        for at in range(frames):
            row = np.flatnonzero(objects[at] == owned[slot])
            if len(row):
                target[at, slot] = row[0]
    flags = [owned.get(slot, 0) in moving for slot in range(slots)]
    return target, np.array(flags, np.float32)


def window(source: Source, tracker: FrozenTracker, made: Curriculum,
           rng: np.random.Generator) -> Window | None:
    """A sample; None where the tracker follows nothing."""
    sequence, _ = harder(source.sequence, made, rng)
    sequence = cluttered(sequence, rng)
    frames = tracker.follow(sequence, float(rng.uniform(*made.lost_s)))
    ids, seen, inputs = window_inputs(frames)
    if not len(ids):
        return None
    none = inputs['padding'].shape[1]
    target, objects = truth_of(sequence.objects, seen, source.moving, none)
    return Window(inputs, target, objects)


class Pool:
    """Windows by number, each made once when it is first asked for: it depends on (seed, number)
    alone.
    """

    def __init__(self, sources: list[Source], tracker: FrozenTracker, made: Curriculum, size: int,
                 seed: int) -> None:
        self.sources, self.tracker, self.made = sources, tracker, made
        self.size, self.seed = size, seed
        self._kept: dict[int, Window | None] = {}

    def at(self, number: int) -> Window | None:
        """One window; None where nothing was followed."""
        if number not in self._kept:
            rng = np.random.default_rng([self.seed, number])
            source = self.sources[int(rng.integers(len(self.sources)))]
            self._kept[number] = window(source, self.tracker, self.made, rng)
        return self._kept[number]

    def batch(self, rng: np.random.Generator, size: int) -> Batch | None:
        """Some of them; None where all of them are empty."""
        chosen = [self.at(int(number)) for number in rng.integers(self.size, size=size)]
        chosen = [one for one in chosen if one is not None]
        return collate(chosen) if chosen else None


def collate(windows: list[Window]) -> Batch:
    """Windows beside each other, the shorter and narrower ones padded."""
    frames = max(len(one.target) for one in windows)
    slots = max(one.target.shape[1] for one in windows)
    count = max(one.inputs['padding'].shape[1] for one in windows)
    axes = {'queries': (frames, count), 'padding': (frames, count), 'slots': (frames, slots),
            'state': (frames, slots), 'relations': (frames, slots, count)}
    inputs = {name: torch.from_numpy(np.stack([
        _padded(one.inputs[name], shape, float(name == 'padding')) for one in windows]))
        for name, shape in axes.items()}
    target = [np.where(one.target == one.inputs['padding'].shape[1], count, one.target)
              for one in windows]
    empty = np.stack([np.arange(slots) >= one.target.shape[1] for one in windows])
    return Batch(inputs, torch.from_numpy(np.stack([
        _padded(one, (frames, slots), IGNORED) for one in target])),
        torch.from_numpy(np.stack([_padded(one.objects, (slots,), 0) for one in windows])),
        torch.from_numpy(empty))


def _padded(array: np.ndarray, shape: tuple[int, ...], value: float) -> np.ndarray:
    grown = np.full((*shape, *array.shape[len(shape):]), value, array.dtype)
    grown[tuple(slice(size) for size in array.shape)] = array
    return grown
