"""Classical floors: what a learned model must beat. Three ways, one interface: `reset()`, `update(frame, window)`.

`homography`: dense DIS flow (Kroeger 2016, OpenCV) from this frame back to the previous one; the camera's part is the
homography that RANSAC fits to it; what moves otherwise, is connected and is large enough, is an instance.
`mog2`: background subtraction by a mixture of Gaussians per pixel (Zivkovic 2004, OpenCV); meant for fixed cameras.
`events`: counts of events after the global motion of greatest contrast (Gallego 2018) is undone; under a moving
camera, only where the mean time of the compensated events is off (Mitrokhin 2018).

Constants were tuned on the `train` split only: `python -m training.floors --floor mog2 --preset mid` prints the sweep.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from mos_perception.datatypes import EventWindow, Frame, Instances, Tracks
from mos_perception.errors import FrameError
from mos_perception.evaluation.score import Scorer
from mos_perception.masks import mask_boxes
from training.scenes import PRESETS, Clip, render_clip
from training.scenes.presets import find_preset

NO_TRACKS = Tracks(*(np.zeros(0, np.int64) for _ in range(3)), np.zeros((0, 4)), np.zeros((0, 2)),
                   np.zeros(0, np.int64))


class Floor(Protocol):
    """A classical method as a model that remembers."""

    def reset(self) -> None:
        """Forget all frames."""

    def update(self, frame: Frame, window: EventWindow | None = None) -> Instances:
        """What moves in `frame`; `window` holds the events before it. Raises FrameError if the size changed."""


@dataclass(frozen=True)
class FloorSettings:
    """What counts as moving for the homography floor.

    `residual_px` of flow per frame and the kernel sizes `opening`, `closing` are at 160 px width; instances below
    `min_area` of the image, or whose compensated frame difference exceeds `change` grey levels on less than `support`
    of their pixels, are dropped. An instance ends where the residual falls below `edge` of its upper quartile: flow
    fades from an object's motion to the background's.
    """

    residual_px: float = 1.0
    opening: int = 5
    closing: int = 5
    min_area: float = 0.002
    change: float = 10.0
    support: float = 0.03
    edge: float = 0.8


@dataclass(frozen=True)
class Evidence:
    """What two frames say against a rigid background: `residual` (H, W) px of flow, `difference` (H, W) grey levels."""

    residual: np.ndarray
    difference: np.ndarray


def find_evidence(previous: np.ndarray, image: np.ndarray) -> Evidence:
    """Flow and grey levels of `image` against `previous` ((H, W, 3) uint8 each), the camera's homography removed.

    Raises FrameError if the sizes differ.
    """
    _same_size(previous.shape[:2], image.shape[:2])
    flow = _flow(image, previous)
    camera = _camera_flow(flow)
    height, width = flow.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    now, before = (cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (3, 3), 0)
                   for picture in (image, previous))
    seen = cv2.remap(before, x + camera[..., 0], y + camera[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return Evidence(np.linalg.norm(flow - camera, axis=2), cv2.absdiff(now, seen))


def segment(evidence: Evidence, settings: FloorSettings = FloorSettings()) -> np.ndarray:
    """(N, H, W) bool disjoint masks, largest first: threshold, opening, closing, connected components, support."""
    height, width = evidence.residual.shape
    moving = evidence.residual > settings.residual_px * width / 160
    count, labels = cv2.connectedComponents(moving.astype(np.uint8), connectivity=4)
    cuts = [settings.edge * np.quantile(evidence.residual[labels == n], 0.75) if n else 0 for n in range(count)]
    moving = _clean(moving & (evidence.residual > np.array(cuts)[labels]), settings.opening, settings.closing)
    masks = components(moving, settings.min_area)
    supported = [(evidence.difference[mask] > settings.change).mean() >= settings.support for mask in masks]
    return masks[np.array(supported, bool)]


def components(moving: np.ndarray, min_area: float) -> np.ndarray:
    """(N, H, W) bool 4-connected parts of `moving` (H, W) that hold `min_area` of the image or more, largest first."""
    count, labels = cv2.connectedComponents(moving.astype(np.uint8), connectivity=4)
    areas = np.bincount(labels.ravel(), minlength=count)
    kept = [n for n in np.argsort(-areas, kind='stable') if n and areas[n] >= min_area * labels.size]
    return labels[None] == np.array(kept, labels.dtype)[:, None, None]


def _clean(moving: np.ndarray, opening: int, closing: int) -> np.ndarray:
    """(H, W) uint8: specks removed, gaps closed; kernel sizes at 160 px width, 0 = not at all."""
    moving = moving.astype(np.uint8)
    for operation, size in ((cv2.MORPH_OPEN, opening), (cv2.MORPH_CLOSE, closing)):
        if size:
            side = round(size * moving.shape[1] / 160) | 1
            moving = cv2.morphologyEx(moving, operation, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    return moving


def _same_size(before: tuple[int, int], now: tuple[int, int]) -> None:
    if before != now:
        raise FrameError(f'frame is {now}, the one before {before} (h, w): reset the floor')


def _flow(image: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """(H, W, 2) float32 px from `image` to `previous`; small images are enlarged, since DIS' patches are 8 px wide."""
    enlarge = max(1.0, 320 / image.shape[1])
    now, before = (cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), None, fx=enlarge, fy=enlarge,
                              interpolation=cv2.INTER_LINEAR) for picture in (image, previous))
    engine = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    engine.setFinestScale(0)
    flow = engine.calc(now, before, None)
    return cv2.resize(flow, image.shape[1::-1], interpolation=cv2.INTER_AREA) / np.float32(enlarge)


def _camera_flow(flow: np.ndarray) -> np.ndarray:
    """(H, W, 2) px: the flow of the homography that most of `flow` agrees with (none where RANSAC finds none)."""
    height, width = flow.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    step = max(1, width // 40)
    start = np.stack([x, y], 2)
    source = start[::step, ::step].reshape(-1, 2)
    cv2.setRNGSeed(0)
    matrix, _ = cv2.findHomography(source, source + flow[::step, ::step].reshape(-1, 2), cv2.RANSAC, 0.5 * width / 160)
    if matrix is None:
        return np.zeros_like(flow)
    return cv2.perspectiveTransform(start.reshape(-1, 1, 2), matrix).reshape(height, width, 2) - start


class HomographyFloor:
    """Flow minus homography: needs the frame before."""

    def __init__(self, settings: FloorSettings = FloorSettings()) -> None:
        self.settings = settings
        self._previous: np.ndarray | None = None

    def reset(self) -> None:
        """Forget the frame before."""
        self._previous = None

    def update(self, frame: Frame, window: EventWindow | None = None) -> Instances:
        """What moves in `frame`; nothing in the first one. Raises FrameError if the size changed."""
        previous, self._previous = self._previous, frame.image
        if previous is None:
            return Instances.empty(*frame.size)
        return as_instances(segment(find_evidence(previous, frame.image), self.settings))


@dataclass(frozen=True)
class BackgroundSettings:
    """Background subtraction: squared Mahalanobis distance `variance` that is foreground, `blur` (sigma, px at 160 px
    width) against noise, `history` in frames, then kernels and least area as for the homography floor."""

    variance: float = 16.0
    blur: float = 0.0
    history: int = 60
    opening: int = 0
    closing: int = 9
    min_area: float = 0.002


class BackgroundFloor:
    """MOG2 background subtraction: needs a fixed camera and some frames to learn the background from."""

    def __init__(self, settings: BackgroundSettings = BackgroundSettings()) -> None:
        self.settings = settings
        self.reset()

    def reset(self) -> None:
        """Forget the background."""
        self._model = cv2.createBackgroundSubtractorMOG2(self.settings.history, self.settings.variance, False)
        self._size: tuple[int, int] | None = None

    def update(self, frame: Frame, window: EventWindow | None = None) -> Instances:
        """What is not background in `frame`; nothing in the first one. Raises FrameError if the size changed."""
        first, self._size = self._size is None, self._size or frame.size
        _same_size(self._size, frame.size)
        sigma = self.settings.blur * frame.size[1] / 160
        label = self._model.apply(cv2.GaussianBlur(frame.image, (0, 0), sigma) if sigma else frame.image)
        if first:
            return Instances.empty(*frame.size)
        moving = _clean(label > 0, self.settings.opening, self.settings.closing)
        return as_instances(components(moving, self.settings.min_area))


@dataclass(frozen=True)
class EventSettings:
    """What counts as moving in a window of events.

    `density` events per pixel per window, averaged over `blur` (sigma, px at 160 px width). Where no more than `spread`
    of the image is that dense, the camera is fixed, and what fires in the last `recent` share of the window moves. Else
    the global motion is undone; then what moves is `contrast` times as dense as the image's mean, and the mean time of
    its compensated events is off the window's by the share `lateness` of it. Closing and least area as for the
    homography floor.
    """

    density: float = 0.2
    spread: float = 0.1
    recent: float = 0.5
    contrast: float = 3.0
    lateness: float = 0.03
    blur: float = 1.0
    closing: int = 9
    min_area: float = 0.002


class EventFloor:
    """Event counts after motion compensation: needs the window only, remembers the motion to search from."""

    def __init__(self, settings: EventSettings = EventSettings()) -> None:
        self.settings = settings
        self._motion = np.zeros(4)

    def reset(self) -> None:
        """Forget the last motion."""
        self._motion = np.zeros(4)

    def update(self, frame: Frame, window: EventWindow | None = None) -> Instances:
        """What moves at the end of `window`; nothing without events. Raises FrameError if window and frame differ."""
        height, width = frame.size
        if window is None or len(window.events) < 10:
            return Instances.empty(height, width)
        _same_size((window.height, window.width), frame.size)
        events, use = window.events, self.settings
        points = np.stack([events.x, events.y]).astype(np.float32)
        ages = ((window.t1_ns - events.t) / (window.t1_ns - window.t0_ns)).astype(np.float32)
        if (self._density(points, frame.size) > use.density).mean() <= use.spread:
            late = points[:, ages <= use.recent]
            moving = self._density(late, frame.size) > use.density * use.recent
        else:
            self._motion = global_motion(points, ages, frame.size, self._motion)
            points = _carry(points, ages, self._motion, frame.size)
            counts, sums = (self._density(points, frame.size, weight) for weight in (None, ages - ages.mean()))
            moving = (counts > max(use.density, use.contrast * counts.mean())) & (np.abs(sums) > use.lateness * counts)
        return as_instances(components(_fill(_clean(moving, 0, use.closing)), use.min_area))

    def _density(self, points: np.ndarray, size: tuple[int, int], weight: np.ndarray | None = None) -> np.ndarray:
        """(H, W) float32 smoothed sums of `weight` (default 1) per pixel."""
        return cv2.GaussianBlur(_splat(points, size, weight), (0, 0), self.settings.blur * size[1] / 160)


def global_motion(points: np.ndarray, ages: np.ndarray, size: tuple[int, int], guess: np.ndarray) -> np.ndarray:
    """(4,) motion (px right, px down, rad of turn, log of zoom) per window of the greatest variance of counts.

    `points` (2, E) float32 px, `ages` (E,) in [0, 1] of the window before its end. A coarse-to-fine pattern search
    from `guess` and from rest.
    """
    if len(ages) > 30_000:  # enough to see a motion by
        some = np.linspace(0, len(ages) - 1, 30_000).astype(int)
        points, ages = points[:, some], ages[some]

    def contrast(motion: np.ndarray) -> float:
        return float(cv2.GaussianBlur(_splat(_carry(points, ages, motion, size), size), (3, 3), 0).var())

    grid = [np.array([x, y, 0, 0]) * size[1] / 160 for x in range(-8, 9, 2) for y in range(-8, 9, 2)]
    best = max([guess, *grid], key=contrast)
    score = contrast(best)
    steps = np.array([1, 1, 2 / max(size), 2 / max(size)]) * [size[1] / 160, size[1] / 160, 1, 1]
    for _ in range(4):
        for step in (direction * steps for direction in (*np.eye(4), *-np.eye(4))):
            while (value := contrast(best + step)) > score:
                best, score = best + step, value
        steps = steps / 2
    return best


def _carry(points: np.ndarray, ages: np.ndarray, motion: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(2, E) float32: the points moved on to the window's end by a similarity motion about the centre."""
    x, y = points[0] - np.float32(size[1] / 2), points[1] - np.float32(size[0] / 2)
    right, down, turn, zoom = (np.float32(value) for value in motion)
    return np.stack([points[0] + ages * (right + zoom * x - turn * y), points[1] + ages * (down + zoom * y + turn * x)])


def _splat(points: np.ndarray, size: tuple[int, int], weight: np.ndarray | None = None) -> np.ndarray:
    """(H, W) float32 sums of `weight` (default 1) at the nearest pixels; points outside are dropped."""
    x, y = np.rint(points).astype(np.int32)
    inside = (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])
    where = y[inside] * size[1] + x[inside]
    return np.bincount(where, None if weight is None else weight[inside],
                       size[0] * size[1]).reshape(size).astype(np.float32)


def _fill(moving: np.ndarray) -> np.ndarray:
    """(H, W) uint8: the same with the holes filled."""
    contours, _ = cv2.findContours(moving, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(moving), contours, -1, 1, cv2.FILLED)


FLOORS: dict[str, type[HomographyFloor] | type[BackgroundFloor] | type[EventFloor]] = {
    'homography': HomographyFloor, 'mog2': BackgroundFloor, 'events': EventFloor}
_SWEEPS: dict[str, tuple[type, dict[str, tuple[float, ...]]]] = {
    'homography': (FloorSettings, {'residual_px': (0.75, 1.0, 1.5, 2.0), 'opening': (3, 5), 'support': (0.03, 0.07),
                                   'edge': (0.5, 0.6, 0.7, 0.8)}),
    'mog2': (BackgroundSettings, {'variance': (9, 16, 25), 'blur': (0.0, 0.8), 'opening': (0, 3, 5),
                                  'closing': (9, 13)}),
    'events': (EventSettings, {'density': (0.2, 0.3), 'spread': (0.1, 0.2, 0.3), 'contrast': (1.5, 2.0, 3.0),
                               'lateness': (0.03, 0.06), 'closing': (5, 9)})}


def as_instances(masks: np.ndarray) -> Instances:
    """Instances of (N, H, W) bool masks, all moving with score 1."""
    ones = np.ones(len(masks), np.float32)
    return Instances(masks, mask_boxes(masks), ones, ones, np.ones(len(masks), bool),
                     np.zeros((len(masks), 0), np.float32))


def score_floor(floor: Floor, clips: Iterable[Clip], warm_up: int = 1, min_pixels: int = 20) -> Scorer:
    """The floor's scores over all frames but the first `warm_up` of each clip, which it sees all the same."""
    scorer = Scorer(min_pixels)
    for clip in clips:
        floor.reset()
        for index in range(len(clip)):
            found = floor.update(clip.frame(index), clip.window(index))
            if index >= warm_up:
                moving = set(np.flatnonzero(clip.moving[index]).tolist())
                scorer.add(int(clip.stamps_ns[index]), clip.ids[index], moving, found, NO_TRACKS)
    return scorer


def mean_scores(scorer: Scorer) -> tuple[float, float] | None:
    """(mIoU01, mIoU_ins) in parity mode over the frames that hold a mover; None without such frames."""
    summary = scorer.summary()
    if not summary['frames_with_gt']:
        return None
    share = summary['frames'] / summary['frames_with_gt']
    return summary['parity']['mIoU01'] * share, summary['parity']['mIoU_ins_valid']


def main(arguments: list[str] | None = None) -> None:
    """Command line: a sweep of one floor's constants on the train split, best last."""
    parser = argparse.ArgumentParser(description='Tune a classical floor on the train split.')
    parser.add_argument('--floor', default='homography', choices=FLOORS)
    parser.add_argument('--preset', default='train', choices=PRESETS)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--clips', type=int, default=12)
    parser.add_argument('--frames', type=int, default=16)
    parser.add_argument('--warm-up', type=int, default=8)
    given = parser.parse_args(arguments)
    preset = find_preset(given.preset)
    preset = find_preset(preset, duration_s=given.frames / preset.fps)
    clips = [render_clip(preset, given.seed + i, 'train') for i in range(given.clips)]
    kind, sweep = _SWEEPS[given.floor]
    results = []
    for values in itertools.product(*sweep.values()):
        settings = kind(**dict(zip(sweep, values, strict=True)))
        scores = mean_scores(score_floor(FLOORS[given.floor](settings), clips, given.warm_up)) or (0.0, 0.0)
        results.append((*scores, values))
    for miou01, instances, values in sorted(results):
        print(f'mIoU01 {miou01:.3f} mIoU_ins {instances:.3f}', dict(zip(sweep, values, strict=True)))


if __name__ == '__main__':
    main()
