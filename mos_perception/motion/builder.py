"""The evidence of a frame among its neighbours; what two answers share is computed once.

A flow between two frames serves both: it is the forward flow of one and the backward flow of the
other; so does the camera's motion. Over a long gap the flow is put together from those between the
frames on the way. Where every frame is asked for these are there already, and half of the flows are
saved; where many are left out they are not, and it takes more. The answer does not depend on what
was asked before, only its time does.
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
from mos_perception.motion.flow import DenseFlow, Flow, grey, pixel_grid, warp
from mos_perception.motion.history import REACH, nearest

Path = tuple[int, ...]
"""Stamps from one frame to another, in order."""
DIRECT = 1.5  # times the short gap: flow over as much is found at once, not put together


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
        self._grid = pixel_grid(spec.size)
        self.reset()

    def reset(self) -> None:
        """Forget the recent flows."""
        self._levels: dict[int, tuple[Frame, np.ndarray, np.ndarray]] = {}
        self._flows: dict[Path, np.ndarray] = {}
        self._cameras: dict[Path, CameraMotion] = {}

    def build(self, frame: Frame, neighbours: Sequence[Frame]) -> MotionEvidence:
        """The evidence of `frame`. `neighbours` are frames around it, of the same size."""
        spec = self.spec
        others = [nearest(frame.stamp_ns, gap, neighbours) for gap in spec.signed_gaps_ms]
        stamps = list(dict.fromkeys(other.stamp_ns for other in others if other is not None))
        around = self._remember(frame, stamps, neighbours)
        paths = [self._path(frame.stamp_ns, stamp, around) for stamp in stamps]
        self._find_flows(paths)
        pairs = dict(zip(stamps, self._map(self._pair, paths)))
        found = [None if other is None else pairs[other.stamp_ns] for other in others]
        real = tuple(None if other is None else (other.stamp_ns - frame.stamp_ns) * 1e-6
                     for other in others)
        cameras = tuple(None if pair is None else pair.motion for pair in found)
        missing = [None] * (spec.gap_count - len(found))
        return MotionEvidence(assemble(found + missing, spec), real, cameras)

    def _map(self, work, items):  # type: ignore[no-untyped-def]
        return self._pool.map(work, items) if self._pool else map(work, items)

    def _remember(self, frame: Frame, stamps: Sequence[int],
                  neighbours: Sequence[Frame]) -> list[int]:
        """Bring the frames from the first to the last of `stamps` to the evidence's sizes, once;
        drop what no later answer can use. The stamps of those frames.
        """
        low, high = min([frame.stamp_ns, *stamps]), max([frame.stamp_ns, *stamps])
        around = [frame, *(other for other in neighbours if low <= other.stamp_ns <= high)]
        for item in around:
            known = self._levels.get(item.stamp_ns)
            if known is None or known[0] is not item:
                self._keep(lambda stamp, changed=item.stamp_ns: stamp != changed)
                self._levels[item.stamp_ns] = (item, grey(item.image, self.spec.size),
                                               grey(item.image, self.spec.flow.size))
        oldest = frame.stamp_ns - REACH[1] * self.spec.gaps_ms[-1] * 1e6
        self._keep(lambda stamp: stamp >= oldest)
        return [item.stamp_ns for item in around]

    def _keep(self, wanted: Callable[[int], bool]) -> None:
        """Drop the frames whose stamps are not wanted, and all that was found with them."""
        self._levels = {stamp: kept for stamp, kept in self._levels.items() if wanted(stamp)}
        self._flows, self._cameras = (
            {path: kept for path, kept in found.items() if all(map(wanted, path))}
            for found in (self._flows, self._cameras))

    def _path(self, start: int, end: int, around: Sequence[int]) -> Path:
        """From `start` to `end` over the stamps of `around` in steps of the short gap; the same
        stamps both ways.
        """
        first, last = sorted((start, end))
        short = self.spec.gaps_ms[0] * 1e6
        path = [first]
        while last - path[-1] > DIRECT * short:
            between = [stamp for stamp in around if path[-1] < stamp < last]
            if not between:
                break
            path.append(min(between, key=lambda stamp: abs(stamp - path[-1] - short)))
        path.append(last)
        return tuple(path if start == first else path[::-1])

    def _find_flows(self, paths: Sequence[Path]) -> None:
        """Those of each step of the paths, both ways, where they are not there yet."""
        steps: dict[Path, None] = {}
        for path in paths:
            for one, other in zip(path, path[1:]):
                steps |= {(one, other): None, (other, one): None}
        wanted = [step for step in steps if step not in self._flows]
        self._flows |= dict(zip(wanted, self._map(self._dense, wanted)))

    def _dense(self, step: Path) -> np.ndarray:
        if not hasattr(self._local, 'flow'):
            self._local.flow = self._make_flow()
        now, other = (self._levels[stamp][2] for stamp in step)
        return self._local.flow(now, other, self.spec.size)

    def _pair(self, path: Path) -> Pair:
        forward, backward = self._along(path), self._along(path[::-1])
        motion = self._camera(path)
        now, other = self._levels[path[0]][1], self._levels[path[-1]][1]
        planes = pair_evidence(now, other, forward, backward, motion, self.spec.epipolar)
        return Pair(planes, forward, motion)

    def _camera(self, path: Path) -> CameraMotion:
        """Found in the flow from the earlier frame to the later one, for both directions."""
        later = path if path[0] < path[-1] else path[::-1]
        if later not in self._cameras:
            self._cameras[later] = self._fit(self._along(later))
        motion = self._cameras[later]
        return motion if path == later else motion.turned()

    def _along(self, path: Path) -> np.ndarray:
        """(H, W, 2) px: the flow from the path's start to its end."""
        if path not in self._flows:
            flow = self._flows[path[:2]]
            for step in zip(path[1:], path[2:]):
                flow = flow + warp(self._flows[step], flow, self._grid)
            self._flows[path] = flow
        return self._flows[path]
