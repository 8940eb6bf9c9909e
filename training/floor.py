"""Classical floor, 'flow minus homography': what a learned model must beat.

`python -m training.floor --preset easy --split test` prints its scores.

Dense DIS flow (Kroeger 2016, OpenCV) from this frame back to the previous one; the camera's part is the homography that
RANSAC fits to it; what moves otherwise, is connected and is large enough, is an instance. Constants were tuned on
the `train` split only (`--tune` prints the sweep).
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mos_perception.datatypes import Frame, Instances, Tracks
from mos_perception.errors import FrameError
from mos_perception.evaluation import metrics
from mos_perception.evaluation.score import Scorer
from training.scenes import PRESETS, Clip, render_clip
from training.scenes.splits import SPLITS


@dataclass(frozen=True)
class FloorSettings:
    """What counts as moving.

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
    if previous.shape != image.shape:
        raise FrameError(f'frame is {image.shape[:2]}, the one before {previous.shape[:2]} (h, w): '
                         'reset the floor model')
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
    scale = width / 160
    moving = evidence.residual > settings.residual_px * scale
    count, labels = cv2.connectedComponents(moving.astype(np.uint8), connectivity=4)
    cuts = [settings.edge * np.quantile(evidence.residual[labels == n], 0.75) if n else 0 for n in range(count)]
    moving = (moving & (evidence.residual > np.array(cuts)[labels])).astype(np.uint8)
    for operation, size in ((cv2.MORPH_OPEN, settings.opening), (cv2.MORPH_CLOSE, settings.closing)):
        side = round(size * scale) | 1
        moving = cv2.morphologyEx(moving, operation, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    count, labels = cv2.connectedComponents(moving, connectivity=4)
    areas = np.bincount(labels.ravel(), minlength=count)
    changed = np.bincount(labels.ravel(), evidence.difference.ravel() > settings.change, minlength=count)
    kept = [n for n in np.argsort(-areas, kind='stable') if n and areas[n] >= settings.min_area * height * width
            and changed[n] >= settings.support * areas[n]]
    return np.stack([labels == n for n in kept]) if kept else np.zeros((0, height, width), bool)


def floor_masks(previous: np.ndarray, image: np.ndarray, settings: FloorSettings = FloorSettings()) -> np.ndarray:
    """(N, H, W) bool disjoint masks of what moves in `image` against `previous`; see `find_evidence` and `segment`."""
    return segment(find_evidence(previous, image), settings)


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


class FloorModel:
    """The floor as a model: frame in, Instances out; remembers the frame before."""

    def __init__(self, settings: FloorSettings = FloorSettings()) -> None:
        self.settings = settings
        self._previous: np.ndarray | None = None

    def update(self, frame: Frame) -> Instances:
        """What moves in `frame`; nothing in the first one. Raises FrameError if the size changed."""
        previous, self._previous = self._previous, frame.image
        if previous is None:
            return Instances.empty(*frame.size)
        return as_instances(floor_masks(previous, frame.image, self.settings))

    def reset(self) -> None:
        """Forget the frame before."""
        self._previous = None


def as_instances(masks: np.ndarray) -> Instances:
    """Instances of (N, H, W) bool masks, all moving with score 1."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    ones = np.ones(len(masks), np.float32)
    return Instances(masks, boxes, ones, ones, np.ones(len(masks), bool), np.zeros((len(masks), 0), np.float32))


def score_floor(clips: list[Clip], settings: FloorSettings = FloorSettings(), min_pixels: int = 20) -> Scorer:
    """The floor's scores over all frames that have one before them."""
    scorer, model = Scorer(min_pixels), FloorModel(settings)
    none = np.zeros(0, np.int64)
    nobody = Tracks(none, none, none, np.zeros((0, 4)), np.zeros((0, 2)), none)
    for clip in clips:
        model.reset()
        for index in range(len(clip)):
            found = model.update(clip.frame(index))
            if index:
                moving = set(np.flatnonzero(clip.moving[index]).tolist())
                scorer.add(int(clip.stamps_ns[index]), clip.ids[index], moving, found, nobody)
    return scorer


def _tune(clips: list[Clip]) -> None:
    """Print mIoU01 and mIoU_ins (parity) and strict mIoU over a grid of constants."""
    seen = [(find_evidence(clip.frames[i - 1], clip.frames[i]), np.where(clip.moving[i][clip.ids[i]], clip.ids[i], 0))
            for clip in clips for i in range(1, len(clip))]
    grid = ((0.75, 1.0, 1.5, 2.0), (3, 5), (5,), (0.002,), (10,), (0.03, 0.07), (0.5, 0.6, 0.7, 0.8))
    for values in itertools.product(*grid):
        scores = []
        for evidence, truth in seen:
            image = as_instances(segment(evidence, FloorSettings(*values)))
            found = image.id_image(np.arange(1, len(image) + 1))
            counts = metrics.overlaps(metrics.align_ids(truth), found)
            scores.append((metrics.parity_miou01(truth, found), metrics.parity_miou_ins(counts),
                           metrics.strict_miou(counts)))
        print(values, 'mIoU01 {:.3f} mIoU_ins {:.3f} strict {:.3f}'.format(*np.mean(scores, 0)), flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description='Score the classical floor on rendered clips.')
    parser.add_argument('--preset', default='easy', choices=PRESETS)
    parser.add_argument('--split', default='test', choices=SPLITS)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--count', type=int, default=20)
    parser.add_argument('--json', type=Path)
    parser.add_argument('--tune', action='store_true', help='print a sweep of the constants on the train split')
    options = parser.parse_args(arguments)
    split = 'train' if options.tune else options.split
    clips = [render_clip(options.preset, options.seed + i, split) for i in range(options.count)]
    if options.tune:
        _tune(clips)
        return
    scorer = score_floor(clips)
    print(scorer.text())
    if options.json:
        options.json.write_text(json.dumps(scorer.summary(), indent=1))


if __name__ == '__main__':
    main()
