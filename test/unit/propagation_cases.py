"""Scripted proposals and a scripted propagator, by seed: what the published propagator made of them
is `goldens/propagation.json`.
"""

import hashlib

import numpy as np

from mos_perception.propagation import Carried, Proposals

CASES = 30
SIZE = (30, 40)


def noise(*key):
    """Numbers that depend on the key alone."""
    return np.random.default_rng(list(key))


def boxes_of(seed):
    """(T, objects) of y, x, h, w, and when each is there and moves (T, objects) bool."""
    rng = noise(seed, 1)
    frames, count = int(rng.integers(6, 26)), int(rng.integers(1, 7))
    start = np.stack([rng.integers(0, 18, count), rng.integers(0, 26, count),
                      rng.integers(5, 12, count), rng.integers(5, 12, count)], 1)
    speed = rng.choice([0, 0, 0, 1, 2], (count, 2)) * rng.choice([-1, 1], (count, 2))
    at = np.repeat(start[None], frames, 0)
    at[..., :2] += np.arange(frames)[:, None, None] * speed[None]
    born = rng.integers(0, frames // 2 + 1, count) * (rng.random(count) < 0.5)
    there = np.arange(frames)[:, None] >= born
    moves = noise(seed, 2).random((frames, count)) < 0.75
    return at, there, moves


def proposals_of(seed):
    """Proposals of each frame: disjoint masks in any order, some false, some missed."""
    at, there, moves = boxes_of(seed)
    found = []
    for t in range(len(at)):
        rng = noise(seed, 3, t)
        labels = np.zeros(SIZE, int)
        motion, quality = [], []
        for number in rng.permutation(at.shape[1]):
            if not there[t, number] or rng.random() < 0.1:
                continue
            y, x, h, w = at[t, number]
            labels[max(0, y):max(0, y + h), max(0, x):max(0, x + w)] = len(motion) + 1
            motion.append(rng.uniform(0.55, 1) if moves[t, number] else rng.uniform(0, 0.6))
            quality.append(rng.uniform(0.6, 1))
        if rng.random() < 0.15:
            y, x = rng.integers(0, 24), rng.integers(0, 34)
            labels[y:y + 5, x:x + 5] = len(motion) + 1
            motion.append(rng.uniform(0.3, 1))
            quality.append(rng.uniform(0.5, 1))
        count = int(labels.max())  # as published: those after the last visible one are not there
        masks = labels[None] == np.arange(1, count + 1)[:, None, None]
        found.append(Proposals(masks, np.array(motion[:count], np.float32),
                               np.array(quality[:count], np.float32)))
    return found


class Scripted:
    """A propagator that follows a script: the nearest prompt, shifted and frayed."""

    def __init__(self, seed):
        self.seed = seed
        self.log = []
        self.reset()

    def reset(self):
        """Drop everything."""
        self.prompts = {}
        self.log.append('reset')

    def forget(self, number):
        """Drop an object."""
        del self.prompts[number]

    def prompt(self, frame, number, mask):
        """Keep it."""
        self.prompts.setdefault(number, {})[int(frame)] = np.array(mask, bool)
        digest = hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()[:8]
        self.log.append(f'{int(frame)} {number} {digest}')
        return self.carry(frame)

    def carry(self, frame, step=1):
        """By the script."""
        frame = int(frame)
        logits, iou = [], []
        for number, kept in self.prompts.items():
            near = min(kept, key=lambda at: (abs(at - frame), at))
            away = abs(frame - near)
            rng = noise(self.seed, 4, number, frame)
            shift = noise(self.seed, 5, number).choice([0, 0, 0, 1], 2) * (frame - near)
            mask = np.roll(kept[near], tuple(shift.tolist()), (0, 1))
            soft = np.where(mask, 4.0, -4.0) + (rng.normal(0, 1.6, SIZE) if away else 0)
            logits.append(soft.astype(np.float32))
            iou.append(1.0 if not away else float(1 - 0.004 * away - 0.06 * rng.random()))
        return Carried(tuple(self.prompts), np.array(logits, np.float32).reshape(-1, *SIZE),
                       np.array(iou, np.float32))


def digest(labels):
    """Of (T, H, W) labels."""
    return hashlib.sha256(np.asarray(labels, np.uint8).tobytes()).hexdigest()
