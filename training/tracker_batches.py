"""Batches of cached sequences for the referring tracker: what a slot is, frame by frame.

An object gets its slot in the frame in which it first appears and keeps it (first-appearance
matching, DVIS equation 3); which instance it is, the frozen segmenter's masks said when they were
cached. Harder than what was cached: time runs backwards, things are covered for a while, two
objects get one look, the camera jumps, instances are missed. Legend: T frames, S slots, N
instances, F length of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from mos_perception.tracking.tokens import Tokens, first_guess, pairs, places, stacked
from training.tracker_cache import Sequence

IGNORED = -100  # a slot of which nobody knows who it is; torch's cross-entropy leaves it out
NOISES = ('none', 'rs', 'wa', 'cc')


@dataclass(frozen=True)
class Curriculum:
    """How hard the sequences are made."""

    frames: int = 8
    """T of a sample."""
    slots: int = 8
    """S, and the most instances of a frame that are looked at."""
    strides: tuple[int, ...] = (1, 1, 2, 3)
    """Cached frames from one to the next, drawn per sample."""
    backwards: float = 0.5
    """Share of samples whose time runs backwards."""
    covered: float = 0.3
    """Share of objects that are covered for a while."""
    missed: float = 0.05
    """Share of instances left out."""
    alike: float = 0.3
    """Share of samples in which one object has another's embedding and looks."""
    jumps: float = 0.2
    """Share of samples whose camera jumps once."""
    blind: float = 0.15
    """Share of samples without embeddings, and of those without looks."""
    flow: float = 0.6
    """Share of samples where the flow says where things are."""
    lost_s: tuple[float, float] = (0.5, 2.0)
    """Seconds after which an unseen slot ends, drawn per sample."""
    noise: str = 'wa'
    """What is done to the slots' start, see `disturbed`."""
    noise_share: float = 0.5
    """Share of frames with noise."""


@dataclass(frozen=True)
class Batch:
    """`frame` (B, T, N, F), `initial` (B, T, S, F), `place` (B, T, S, PLACE), `pairs` (B, T, S, N,
    PAIR); `padding` (B, T, N) and `empty` (B, T, S) True where nothing is; `target` (B, T, S) the
    slot's instance, N = none, IGNORED; `born` (B, T, S) the instance that begins in this slot after
    the frame, -1 = none.
    """

    frame: Tensor
    initial: Tensor
    place: Tensor
    pairs: Tensor
    padding: Tensor
    empty: Tensor
    target: Tensor
    born: Tensor


@dataclass
class _Slot:
    number: int            # the object; negative: nobody knows
    seen: Tokens           # one row
    stamp_s: float
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(4))  # of the box, per second


def disturbed(initial: np.ndarray, noise: str, rng: np.random.Generator) -> np.ndarray:
    """Slots' starts (S, F) with the noise of DVIS++ (its section on the denoising strategy): `rs`
    shuffled; `wa` each mixed with a shuffled one by a uniform weight; `cc` channels from a random
    one on taken from a shuffled one.
    """
    other = initial[rng.permutation(len(initial))]
    if noise == 'rs':
        return other
    if noise == 'wa':
        weight = rng.random((len(initial), 1), np.float32)
        return weight * initial + (1 - weight) * other
    if noise == 'cc':
        cut = int(rng.integers(1, initial.shape[1]))
        return np.concatenate([initial[:, :cut], other[:, cut:]], 1)
    return initial


def harder(sequence: Sequence, made: Curriculum, rng: np.random.Generator
           ) -> tuple[Sequence, list[np.ndarray]]:
    """A sample of a sequence, and the boxes (N, 4) of everything in it that is not missed."""
    stride = int(rng.choice(made.strides))
    span = min(len(sequence.frames), stride * made.frames)
    start = int(rng.integers(len(sequence.frames) - span + 1))
    index = np.arange(start, start + span, stride)
    stamps = sequence.stamps_ns[index]
    if rng.random() < made.backwards:
        index, stamps = index[::-1], (stamps[0] + stamps[-1] - stamps)[::-1]
    frames = [sequence.frames[at] for at in index]
    objects = [sequence.objects[at] for at in index]
    frames = _blinded(_alike(frames, objects, made, rng), made, rng)
    frames = _jumped(frames, made, rng)
    everything = [(frame.boxes, names) for frame, names in zip(frames, objects, strict=True)]
    hidden = _covered(objects, made, rng)
    kept = [np.flatnonzero((rng.random(len(frame)) >= made.missed) & ~away)[:made.slots]
            for frame, away in zip(frames, hidden, strict=True)]
    return Sequence([frame.take(rows) for frame, rows in zip(frames, kept, strict=True)],
                    [names[rows] for names, rows in zip(objects, kept, strict=True)],
                    stamps), everything


def _known(objects: list[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate([names[names > 0] for names in objects]))


def _covered(objects: list[np.ndarray], made: Curriculum,
             rng: np.random.Generator) -> list[np.ndarray]:
    """Per frame (N,) True for the instances of an object that is covered there."""
    hidden = [np.zeros(len(names), bool) for names in objects]
    for name in _known(objects):
        if rng.random() < made.covered:
            first = int(rng.integers(1, max(2, len(objects) - 1)))
            for at in range(first, min(len(objects), first + int(rng.integers(2, 8)))):
                hidden[at] |= objects[at] == name
    return hidden


def _alike(frames: list[Tokens], objects: list[np.ndarray], made: Curriculum,
           rng: np.random.Generator) -> list[Tokens]:
    known = _known(objects)
    if len(known) < 2 or rng.random() >= made.alike:
        return frames
    one, other = rng.choice(known, 2, replace=False)
    models = [(frame.embeddings[row], frame.looks[row]) for frame, names
              in zip(frames, objects, strict=True) for row in np.flatnonzero(names == other)]
    changed = []
    for frame, names in zip(frames, objects, strict=True):
        embeddings, looks = frame.embeddings.copy(), frame.looks.copy()
        for row in np.flatnonzero(names == one):
            embeddings[row], looks[row] = models[rng.integers(len(models))]
        changed.append(replace(frame, embeddings=embeddings, looks=looks))
    return changed


def _blinded(frames: list[Tokens], made: Curriculum, rng: np.random.Generator) -> list[Tokens]:
    for name in ('embeddings', 'looks'):
        if rng.random() < made.blind:
            frames = [replace(frame, **{name: np.zeros_like(getattr(frame, name))})
                      for frame in frames]
    return frames


def _jumped(frames: list[Tokens], made: Curriculum, rng: np.random.Generator) -> list[Tokens]:
    if len(frames) < 2 or rng.random() >= made.jumps:
        return frames
    at, scale = int(rng.integers(1, len(frames))), rng.uniform(0.8, 1.25)
    shift = np.tile(rng.uniform(-0.3, 0.3, 2), 2)
    return [replace(frame, boxes=((frame.boxes - 0.5) * scale + 0.5 + shift).astype(np.float32))
            if n >= at else frame for n, frame in enumerate(frames)]


def sample(sequence: Sequence, made: Curriculum,
           rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The arrays of `Batch` for one sequence, without the batch axis; short ones end with empty
    frames.
    """
    harder_one, everything = harder(sequence, made, rng)
    lost_s = rng.uniform(*made.lost_s)
    flows = rng.random() < made.flow
    slots: list[_Slot | None] = [None] * made.slots
    steps = []
    for at, now in enumerate(harder_one.frames):
        stamp_s = float(harder_one.stamps_ns[at] - harder_one.stamps_ns[0]) * 1e-9
        names = harder_one.objects[at].copy()
        names[names == 0] = -1000 * (at + 1) - np.arange(np.count_nonzero(names == 0))
        slots = [None if slot is None or stamp_s - slot.stamp_s > lost_s else slot
                 for slot in slots]
        step, guess = _step(slots, now, names, everything[at] if flows else None, stamp_s,
                            made, rng)
        steps.append(step | {'born': _advance(slots, now, names, guess, stamp_s)})
    while len(steps) < made.frames:
        steps.append(steps[-1] | {'empty': np.ones(made.slots, bool),
                                  'target': np.full(made.slots, IGNORED),
                                  'born': np.full(made.slots, -1)})
    return {name: np.stack([step[name] for step in steps]) for name in steps[0]}


def _expected(slot: _Slot, there: tuple[np.ndarray, np.ndarray] | None, stamp_s: float,
              rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """A slot's box (4,), and whether the flow found it: as the truth says, with its errors."""
    box = slot.seen.boxes[0]
    if there is not None and slot.number in there[1] and rng.random() < 0.9:
        true = there[0][there[1] == slot.number][0]
        sides = np.tile(true[2:] - true[:2], 2)
        return true + sides * rng.normal(0, 0.05, 4), True
    return box + slot.velocity * (stamp_s - slot.stamp_s), False


def _step(slots: list[_Slot | None], now: Tokens, names: np.ndarray,
          there: tuple[np.ndarray, np.ndarray] | None, stamp_s: float, made: Curriculum,
          rng: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """One frame's arrays but `born`, and the first guess (S,)."""
    count = made.slots
    vectors = now.vectors()
    arrays = {'frame': np.zeros((count, vectors.shape[1]), np.float32),
              'initial': np.zeros((count, vectors.shape[1]), np.float32),
              'padding': np.arange(count) >= len(now), 'target': np.full(count, IGNORED),
              'empty': np.array([slot is None for slot in slots])}
    arrays['frame'][:len(now)] = vectors
    rows = np.flatnonzero(~arrays['empty'])
    living = [slots[row] for row in rows]
    found = [_expected(slot, there, stamp_s, rng) for slot in living]
    boxes = np.array([box for box, _ in found], np.float32).reshape(-1, 4)
    unseen = np.array([stamp_s - slot.stamp_s for slot in living])
    place = places(boxes, unseen, np.array([known for _, known in found], bool))
    arrays['place'] = np.zeros((count, place.shape[1]), np.float32)
    arrays['place'][rows] = place
    guess = np.full(count, -1)
    if living:
        seen = stacked([slot.seen for slot in living])
        table = pairs(seen, boxes, unseen, now)
        guess[rows] = first_guess(table)
        initial = np.append(vectors, np.zeros_like(vectors, shape=(1, vectors.shape[1])),
                            0)[guess[rows]]
        if rng.random() < made.noise_share:
            initial = disturbed(initial, made.noise, rng)
        arrays['initial'][rows] = initial
        for row, slot in zip(rows, living, strict=True):
            own = np.flatnonzero(names == slot.number)
            if slot.number > 0:
                arrays['target'][row] = own[0] if len(own) else count
            elif guess[row] >= 0 and names[guess[row]] > 0:  # what is somebody's is not nobody's
                arrays['target'][row] = count
    else:
        table = pairs(now.take(slice(0)), boxes, unseen, now)
    arrays['pairs'] = np.zeros((count, count, table.shape[-1]), np.float32)
    arrays['pairs'][rows, :len(now)] = table
    return arrays, guess


def _advance(slots: list[_Slot | None], now: Tokens, names: np.ndarray, guess: np.ndarray,
             stamp_s: float) -> np.ndarray:
    """Slots take their instances, new ones begin; (S,) the instance of those that do, or -1."""
    born, taken = np.full(len(slots), -1), set()
    for row, slot in enumerate(slots):
        if slot is None:
            continue
        own = np.flatnonzero(names == slot.number)
        at = int(own[0]) if slot.number > 0 and len(own) else -1
        if slot.number < 0 and guess[row] >= 0 and names[guess[row]] < 0:
            at = int(guess[row])
        if at < 0 or at in taken:
            continue
        taken.add(at)
        seen, past_s = now.take([at]), max(1e-3, stamp_s - slot.stamp_s)
        slot.velocity += 0.3 * ((seen.boxes[0] - slot.seen.boxes[0]) / past_s - slot.velocity)
        slot.seen, slot.stamp_s = seen, stamp_s
    free = [row for row, slot in enumerate(slots) if slot is None]
    held = {slot.number for slot in slots if slot is not None}
    for at, name in enumerate(names):
        if free and at not in taken and name not in held:
            row = free.pop(0)
            slots[row], born[row] = _Slot(int(name), now.take([at]), stamp_s), at
    return born


def batch(sequences: list[Sequence], made: Curriculum, rng: np.random.Generator,
          size: int) -> Batch:
    """`size` samples of random sequences."""
    chosen = rng.integers(len(sequences), size=size)
    rows = [sample(sequences[index], made, rng) for index in chosen]
    return Batch(**{name: torch.from_numpy(np.stack([row[name] for row in rows]))
                    for name in rows[0]})
