"""What moves against the camera: pure functions on frames and on events. H W pixels, E events.

Frames: dense DIS flow (Kroeger 2016, OpenCV) from this frame back to the previous one; the camera's
part of it is the homography that RANSAC fits. Events: the global motion whose compensated counts
have the greatest variance (contrast maximisation, Gallego 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from training.baselines.baseline import require_same_size

_ENOUGH_EVENTS = 30_000  # to see a motion by
_DIS_WIDTH = 320  # px; DIS' patches are 8 px wide, so smaller images are enlarged


@dataclass(frozen=True)
class Evidence:
    """What two frames say against a rigid background."""

    residual: np.ndarray
    """(H, W) px of flow that the camera's motion leaves."""
    difference: np.ndarray
    """(H, W) grey levels, once the camera's motion is undone."""


def find_evidence(previous: np.ndarray, image: np.ndarray) -> Evidence:
    """Flow and grey levels of `image` against `previous` ((H, W, 3) uint8 each), less the camera's.

    Raises FrameError if the sizes differ.
    """
    require_same_size(previous.shape[:2], image.shape[:2])
    flow = flow_to_previous(image, previous)
    camera = camera_flow(flow)
    height, width = flow.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    now, before = _smooth_grey(image), _smooth_grey(previous)
    before_seen_from_now = cv2.remap(before, x + camera[..., 0], y + camera[..., 1],
                                     cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return Evidence(residual=np.linalg.norm(flow - camera, axis=2),
                    difference=cv2.absdiff(now, before_seen_from_now))


def flow_to_previous(image: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """(H, W, 2) float32 px from `image` to `previous`, (H, W, 3) uint8 each."""
    enlarge = max(1.0, _DIS_WIDTH / image.shape[1])
    now, before = _enlarged_grey(image, enlarge), _enlarged_grey(previous, enlarge)
    engine = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    engine.setFinestScale(0)
    flow = engine.calc(now, before, None)
    return cv2.resize(flow, image.shape[1::-1], interpolation=cv2.INTER_AREA) / np.float32(enlarge)


def camera_flow(flow: np.ndarray) -> np.ndarray:
    """(H, W, 2) px: the flow of the homography that most of `flow` (H, W, 2) agrees with.

    Zeros where RANSAC finds none.
    """
    height, width = flow.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    step = max(1, width // 40)
    start = np.stack([x, y], 2)
    source = start[::step, ::step].reshape(-1, 2)
    target = source + flow[::step, ::step].reshape(-1, 2)
    cv2.setRNGSeed(0)
    matrix, _ = cv2.findHomography(source, target, cv2.RANSAC, 0.5 * width / 160)
    if matrix is None:
        return np.zeros_like(flow)
    moved = cv2.perspectiveTransform(start.reshape(-1, 1, 2), matrix)
    return moved.reshape(height, width, 2) - start


def global_motion(points: np.ndarray, ages: np.ndarray, size: tuple[int, int],
                  guess: np.ndarray) -> np.ndarray:
    """(4,) motion (px right, px down, rad of turn, log of zoom) per window of greatest contrast.

    `points` (2, E) float32 px, `ages` (E,) in [0, 1] of the window before its end. A coarse-to-fine
    pattern search from `guess` and from rest.
    """
    if len(ages) > _ENOUGH_EVENTS:
        some = np.linspace(0, len(ages) - 1, _ENOUGH_EVENTS).astype(int)
        points, ages = points[:, some], ages[some]

    def contrast(motion: np.ndarray) -> float:
        image = event_image(warp_events(points, ages, motion, size), size)
        return float(cv2.GaussianBlur(image, (3, 3), 0).var())

    scale = size[1] / 160
    shifts = range(-8, 9, 2)
    grid = [np.array([x, y, 0, 0]) * scale for x in shifts for y in shifts]
    best = max([guess, *grid], key=contrast)
    score = contrast(best)
    steps = np.array([1, 1, 2 / max(size), 2 / max(size)]) * [scale, scale, 1, 1]
    for _ in range(4):
        for direction in (*np.eye(4), *-np.eye(4)):
            step = direction * steps
            while (value := contrast(best + step)) > score:
                best, score = best + step, value
        steps = steps / 2
    return best


def warp_events(points: np.ndarray, ages: np.ndarray, motion: np.ndarray,
                size: tuple[int, int]) -> np.ndarray:
    """(2, E) float32: the points moved on to the window's end by a similarity about the centre.

    Arguments as for `global_motion`.
    """
    x = points[0] - np.float32(size[1] / 2)
    y = points[1] - np.float32(size[0] / 2)
    right, down, turn, zoom = (np.float32(value) for value in motion)
    return np.stack([points[0] + ages * (right + zoom * x - turn * y),
                     points[1] + ages * (down + zoom * y + turn * x)])


def event_image(points: np.ndarray, size: tuple[int, int],
                weight: np.ndarray | None = None) -> np.ndarray:
    """(H, W) float32 sums of `weight` (E,) (default 1) at the nearest pixels of `points` (2, E).

    Points outside of `size` (H, W) are dropped.
    """
    x, y = np.rint(points).astype(np.int32)
    inside = (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])
    pixels = y[inside] * size[1] + x[inside]
    weight = None if weight is None else weight[inside]
    return np.bincount(pixels, weight, size[0] * size[1]).reshape(size).astype(np.float32)


def _smooth_grey(image: np.ndarray) -> np.ndarray:
    """(H, W) uint8 of (H, W, 3) uint8 RGB."""
    return cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (3, 3), 0)


def _enlarged_grey(image: np.ndarray, factor: float) -> np.ndarray:
    """(factor H, factor W) uint8 of (H, W, 3) uint8 RGB."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
