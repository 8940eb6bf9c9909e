"""Frames kept for their motion: each one gets its evidence as soon as those near it in time are there.

    push(frame) -> the frames that became ready, oldest first, each with its evidence; flush() -> the rest

Other frames are chosen by time: the nearest to each gap. A flow between two frames serves both of them, so a frame
costs two flows per gap length, looking back alone or both ways.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mos_perception.motion.evidence import EvidenceSpec, assemble, pair_evidence
from mos_perception.motion.flow import DenseFlow, grey

MAX_DELAY_MS = 150.0   # a slower camera gets its answer at once, from the past alone
REACH = (0.5, 3.0)     # times its gap: a frame nearer or farther shows another motion than the network learned


@dataclass(frozen=True)
class MotionEvidence:
    """`tensor` (C, H, W) float32 of the frame at `stamp_ns`; `gaps_ms` the real gap of each of the spec's, None where
    there was no frame; `delay_ns` what was waited for later frames; `degraded` says what is missing, '' if nothing."""

    stamp_ns: int
    tensor: np.ndarray
    gaps_ms: tuple[float | None, ...]
    delay_ns: int
    degraded: str = ''


@dataclass(frozen=True)
class _Kept:
    """A frame at the evidence's and at the flow's size."""

    stamp_ns: int
    level: np.ndarray
    fine: np.ndarray


class MotionHistory:
    """The frames of one camera. Not for two threads at once."""

    def __init__(self, spec: EvidenceSpec = EvidenceSpec()) -> None:
        self.spec = spec
        self.degraded_count = 0
        self._flow = DenseFlow(spec.flow)
        self._frames: list[_Kept] = []
        self._waiting: list[_Kept] = []
        self._flows: dict[tuple[int, int], np.ndarray] = {}

    @property
    def delay_ms(self) -> float:
        """What a frame waits for later ones at least, 0 if the evidence looks back alone."""
        return self.spec.gaps_ms[-1] if self.spec.centred else 0.0

    def reset(self) -> None:
        """Forget all frames; those that wait get no answer."""
        self._frames, self._waiting, self._flows = [], [], {}

    def push(self, stamp_ns: int, image: np.ndarray) -> list[MotionEvidence]:
        """Take a frame (H, W, 3) uint8 RGB, later than the one before; returns what is ready now, oldest first."""
        kept = _Kept(stamp_ns, grey(image, self.spec.size), grey(image, self.spec.flow.size))
        self._frames.append(kept)
        self._waiting.append(kept)
        ready = [self._answer() for _ in range(sum(map(self._is_ready, self._waiting)))]
        self._prune()
        return ready

    def flush(self) -> list[MotionEvidence]:
        """The frames that still wait, from what is there."""
        return [self._answer() for _ in range(len(self._waiting))]

    def _is_ready(self, frame: _Kept) -> bool:
        """Whether no later frame could be nearer to the longest gap, or waiting on would take too long."""
        if not self.spec.centred:
            return True
        newest = self._frames[-1].stamp_ns
        period = newest - self._frames[-2].stamp_ns if len(self._frames) > 1 else 0
        wanted = frame.stamp_ns + self.spec.gaps_ms[-1] * 1e6
        return newest + period / 2 >= wanted or newest + period > frame.stamp_ns + MAX_DELAY_MS * 1e6

    def _answer(self) -> MotionEvidence:
        """The evidence of the frame that has waited longest."""
        frame = self._waiting.pop(0)
        signs = (-1, 1) if self.spec.centred else (-1,)
        others = [self._nearest(frame, sign * gap) for sign in signs for gap in self.spec.gaps_ms]
        missing = sum(other is None for other in others)
        self.degraded_count += missing > 0
        others += [None] * (self.spec.gap_count - len(others))
        found = [None if other is None else self._pair(frame, other) for other in others]
        gaps = tuple(None if other is None else (other.stamp_ns - frame.stamp_ns) * 1e-6 for other in others)
        degraded = f'{missing} of {len(signs) * len(self.spec.gaps_ms)} motion gaps without a frame' if missing else ''
        return MotionEvidence(frame.stamp_ns, assemble(found, self.spec), gaps,
                              self._frames[-1].stamp_ns - frame.stamp_ns, degraded)

    def _nearest(self, frame: _Kept, gap_ms: float) -> _Kept | None:
        """The frame whose distance is nearest to the gap, on its side and within reach of it."""
        low, high = (abs(gap_ms) * part * 1e6 for part in REACH)
        sign = 1 if gap_ms > 0 else -1
        near = [other for other in self._frames if low <= sign * (other.stamp_ns - frame.stamp_ns) <= high]
        return min(near, key=lambda other: abs(other.stamp_ns - frame.stamp_ns - gap_ms * 1e6), default=None)

    def _pair(self, frame: _Kept, other: _Kept) -> np.ndarray:
        return pair_evidence(frame.level, other.level, self._between(frame, other), self._between(other, frame))

    def _between(self, start: _Kept, end: _Kept) -> np.ndarray:
        key = start.stamp_ns, end.stamp_ns
        if key not in self._flows:
            self._flows[key] = self._flow(start.fine, end.fine, self.spec.size)
        return self._flows[key]

    def _prune(self) -> None:
        """Forget what no waiting or coming frame can reach."""
        first = self._waiting[0] if self._waiting else self._frames[-1]
        oldest = first.stamp_ns - REACH[1] * self.spec.gaps_ms[-1] * 1e6
        self._frames = [frame for frame in self._frames if frame.stamp_ns >= oldest]
        self._flows = {key: flow for key, flow in self._flows.items() if min(key) >= oldest}
