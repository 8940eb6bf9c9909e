"""The evidence of a frame among its neighbours; what two answers share is computed once.

A flow between two frames serves both: it is the forward flow of one and the backward flow of the
other. The answer does not depend on what was asked before, only its time does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mos_perception.datatypes import Frame
from mos_perception.motion.camera_motion import CameraMotion, fit_homography
from mos_perception.motion.evidence import EvidenceSpec, Pair, assemble, pair_evidence
from mos_perception.motion.flow import DenseFlow, Flow, grey
from mos_perception.motion.history import REACH, nearest


@dataclass(frozen=True)
class MotionEvidence:
    """What moves against the camera in one frame.

    `tensor` (C, H, W) float32; `gaps_ms` the real gap of each of the spec's, `cameras` the motion
    taken out of it, pixels of (H, W) now to the other frame; None where there was no frame.
    """

    tensor: np.ndarray
    gaps_ms: tuple[float | None, ...]
    cameras: tuple[CameraMotion | None, ...]


class EvidenceBuilder:
    """Evidence with its own threads and a memory of recent flows. One caller at a time.

    `make_flow` makes the dense flow of each thread; default: DIS as the spec says. `fit` finds the
    camera's motion in a flow.
    """

    def __init__(self, spec: EvidenceSpec = EvidenceSpec(), threads: int = 2,
                 make_flow: Callable[[], Flow] | None = None,
                 fit: Callable[[np.ndarray], CameraMotion] = fit_homography) -> None:
        self.spec = spec
        self._fit = fit
        self._make_flow = make_flow or (lambda: DenseFlow(spec.flow))
        self._pool = ThreadPoolExecutor(threads, 'evidence') if threads > 1 else None
        self._local = threading.local()  # a DIS engine serves one thread at a time
        self.reset()

    def reset(self) -> None:
        """Forget the recent flows."""
        self._levels: dict[int, tuple[Frame, np.ndarray, np.ndarray]] = {}
        self._flows: dict[tuple[int, int], np.ndarray] = {}

    def build(self, frame: Frame, neighbours: Sequence[Frame]) -> MotionEvidence:
        """The evidence of `frame`. `neighbours` are frames around it, of the same size."""
        spec = self.spec
        others = [nearest(frame.stamp_ns, gap, neighbours) for gap in spec.signed_gaps_ms]
        present = [other for other in others if other is not None]
        self._forget(frame, present)
        unique = {other.stamp_ns: other for other in present}
        pairs = dict(zip(unique, self._map(lambda other: self._pair(frame, other),
                                           unique.values())))
        found = [None if other is None else pairs[other.stamp_ns] for other in others]
        real = tuple(None if other is None else (other.stamp_ns - frame.stamp_ns) * 1e-6
                     for other in others)
        cameras = tuple(None if pair is None else pair.motion for pair in found)
        missing = [None] * (spec.gap_count - len(found))
        return MotionEvidence(assemble(found + missing, spec), real, cameras)

    def _map(self, work, items):  # type: ignore[no-untyped-def]
        return self._pool.map(work, items) if self._pool else map(work, items)

    def _forget(self, frame: Frame, others: Sequence[Frame]) -> None:
        """Drop what no later answer can use; bring the frames to the evidence's sizes once."""
        for item in (frame, *others):
            known = self._levels.get(item.stamp_ns)
            if known is None or known[0] is not item:
                self._flows = {key: flow for key, flow in self._flows.items()
                               if item.stamp_ns not in key}
                self._levels[item.stamp_ns] = (item, grey(item.image, self.spec.size),
                                               grey(item.image, self.spec.flow.size))
        oldest = frame.stamp_ns - REACH[1] * self.spec.gaps_ms[-1] * 1e6
        self._levels = {stamp: kept for stamp, kept in self._levels.items() if stamp >= oldest}
        self._flows = {key: flow for key, flow in self._flows.items() if min(key) >= oldest}

    def _pair(self, frame: Frame, other: Frame) -> Pair:
        forward = self._between(frame.stamp_ns, other.stamp_ns)
        motion = self._fit(forward)
        planes = pair_evidence(self._levels[frame.stamp_ns][1], self._levels[other.stamp_ns][1],
                               forward, self._between(other.stamp_ns, frame.stamp_ns), motion)
        return Pair(planes, forward, motion)

    def _between(self, start: int, end: int) -> np.ndarray:
        if (start, end) not in self._flows:
            if not hasattr(self._local, 'flow'):
                self._local.flow = self._make_flow()
            self._flows[start, end] = self._local.flow(
                self._levels[start][2], self._levels[end][2], self.spec.size)
        return self._flows[start, end]
