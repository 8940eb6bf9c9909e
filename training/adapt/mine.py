"""Labels without a labeller: where a model's answers hold over time and motion bears them out.

    answers carried along the flow from the moments around -> votes on each pixel
    residual flow against the background's noise, carried likewise -> support
    label: MOVES where the votes agree and the part found has support; RESTS where they agree that
    nothing is there and nothing supports it; UNSURE, which teaches nothing, everywhere else

Legend: T frames, h w the network's maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from mos_perception.models.outputs import sigmoid
from mos_perception.motion.evidence import PER_GAP
from mos_perception.motion.flow import DenseFlow, FlowSettings, length, pixel_grid, warp
from training.datasets.evidence import STEP

RESTS, MOVES, UNSURE = 0, 1, 255
NOISE_RATIO = 6  # the plane of each gap that compares the residual with the background's
REACH_NS = 350_000_000    # answers this near in time have a vote
MOST_STEPS = 10           # and at most so many of them on either side
FLOW_ERROR_PX = 1.0       # forward and backward flow apart by this much: a vote counts 1 / e
AGREE, NONE = 0.8, 0.1    # share of the votes for MOVES at least, for RESTS at most
SUPPORT = 1.0             # log(1 + residual / noise) of a part that moves, on average
QUIET = 1.2               # and of a pixel at rest, at most
OWN = 0.6                 # of a part's strongest quarter: a pixel of it with less may be background


@dataclass(frozen=True)
class Mined:
    """`labels` (T, h, w) uint8 of RESTS, MOVES and UNSURE; `votes` (T, h, w) the share of the
    answers around that say it moves, `support` (T, h, w) what motion says.
    """

    labels: np.ndarray
    votes: np.ndarray
    support: np.ndarray


def support(evidence: np.ndarray) -> np.ndarray:
    """(h, w) log(1 + residual flow / the background's noise), the mean of the gaps that there are,
    from evidence (C, H, W) int8; at half its size.
    """
    gaps = evidence.reshape(-1, PER_GAP, *evidence.shape[1:])
    there = gaps[:, 2].any((1, 2))
    if not there.any():
        return np.zeros((evidence.shape[1] // 2, evidence.shape[2] // 2), np.float32)
    strength = gaps[there, NOISE_RATIO].mean(0, dtype=np.float32) * np.float32(STEP)
    return cv2.resize(strength, (strength.shape[1] // 2, strength.shape[0] // 2),
                      interpolation=cv2.INTER_AREA)


class Steps:
    """The flow between answers that follow each other, both ways, at the maps' size."""

    def __init__(self, greys: Sequence[np.ndarray], stamps_ns: Sequence[int]) -> None:
        """`greys` (H, W) uint8, rising `stamps_ns`. A pause longer than REACH_NS is not stepped
        over.
        """
        size = greys[0].shape
        self.size = size[0] // 2, size[1] // 2
        self._grid = pixel_grid(self.size)
        flow = DenseFlow(FlowSettings(size, 'ultrafast'))
        self._flows: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
        for first in range(len(greys) - 1):
            if stamps_ns[first + 1] - stamps_ns[first] > REACH_NS:
                continue
            there = flow(greys[first], greys[first + 1], self.size)
            back = flow(greys[first + 1], greys[first], self.size)
            self._flows[first, first + 1] = there, self._trust(there, back)
            self._flows[first + 1, first] = back, self._trust(back, there)

    def _trust(self, flow: np.ndarray, other: np.ndarray) -> np.ndarray:
        """(h, w) in [0, 1]: how well the way there and back ends where it began; 0 out of sight."""
        error = length(warp(other, flow, self._grid) + flow)
        place = self._grid + flow
        inside = ((place >= 0) & (place <= np.array(self.size[::-1]) - 1)).all(2)
        return (np.exp(-(error / FLOW_ERROR_PX) ** 2) * inside).astype(np.float32)

    def carried(self, maps: np.ndarray, at: int, step: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Row `at` + `step` (1 or -1) of maps (T, h, w, ...) as seen from row `at`, and how far to
        trust each of its pixels (h, w); None where no step leads there.
        """
        if (at, at + step) not in self._flows:
            return None
        flow, trust = self._flows[at, at + step]
        return warp(maps[at + step], flow, self._grid), trust


def over_time(maps: np.ndarray, steps: Steps, stamps_ns: Sequence[int]) -> np.ndarray:
    """(T, h, w, K) float32 means of maps (T, h, w, K) and of those carried here from REACH_NS
    around, as far as the flow can be trusted.
    """
    stamps = np.asarray(stamps_ns)
    total = maps.astype(np.float32)
    weights = np.ones((*maps.shape[:3], 1), np.float32)
    for step in (-1, 1):
        here = np.concatenate([maps, np.ones_like(maps[..., :1])], 3).astype(np.float32)
        for count in range(1, MOST_STEPS + 1):
            arrived = np.zeros_like(here)
            for at in range(len(maps)):
                origin = at + count * step
                if not 0 <= origin < len(maps) or abs(stamps[origin] - stamps[at]) > REACH_NS:
                    continue
                found = steps.carried(here, at, step)
                if found is not None:
                    arrived[at] = found[0]
                    arrived[at, ..., -1] *= found[1]
            if not arrived[..., -1].any():
                break
            total += arrived[..., :-1] * arrived[..., -1:]
            weights += arrived[..., -1:]
            here = arrived
    return total / weights


def mine(logits: np.ndarray, supports: np.ndarray, steps: Steps, stamps_ns: Sequence[int],
         usable: np.ndarray | None = None) -> Mined:
    """Labels of the frames whose foreground `logits` and `supports` (T, h, w) are given; UNSURE
    where a frame is not `usable` (T,).
    """
    votes, support_over_time = np.moveaxis(
        over_time(np.stack([sigmoid(4 * logits), supports], 3), steps, stamps_ns), 3, 0)
    labels = np.full(logits.shape, UNSURE, np.uint8)
    labels[(votes <= NONE) & (support_over_time < QUIET)] = RESTS
    for label, vote, motion in zip(labels, votes, support_over_time):
        label[_supported(vote, motion) & (vote >= AGREE)] = MOVES
    if usable is not None:
        labels[~usable] = UNSURE
    return Mined(labels, votes, support_over_time)


def _supported(votes: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """(h, w) bool: in the connected parts that most votes are for and whose motion is off the
    background's, the pixels that move about as much as the part does.
    """
    count, parts = cv2.connectedComponents((votes > 0.5).view(np.uint8), connectivity=8)
    kept = np.zeros(votes.shape, bool)
    for part in range(1, count):
        own = parts == part
        if motion[own].mean() >= SUPPORT:
            kept |= own & (motion >= OWN * np.percentile(motion[own], 75))
    return kept
