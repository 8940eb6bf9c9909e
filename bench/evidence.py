"""Motion evidence by several kinds of flow: milliseconds a frame, and what the shipped network
makes of it.

    python -m bench.evidence --data ../shared/data/video/davis16_train --json out/evidence.json

J is of the union of the instances of every `--every`-th frame; the network is the same in each row
and was trained on `DIS fast, 192x320` for the most part. `sparse` finds no dense residual: it is
scored as it is used elsewhere, corners tracked by Lucas-Kanade, RANSAC homography, difference of
the aligned frames.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from bench.report import Report, parsed
from mos_perception.config import Config
from mos_perception.datatypes import Frame
from mos_perception.evaluation.boundary import region_j
from mos_perception.formats.davis import VOID
from mos_perception.masks import masks_at_size
from mos_perception.models import load_model
from mos_perception.models.gmos.model import GmosModel
from mos_perception.motion.builder import EvidenceBuilder
from mos_perception.motion.evidence import EvidenceSpec
from mos_perception.motion.flow import Flow, FlowSettings, grey
from mos_perception.motion.history import FrameHistory
from mos_perception.stages import StageTimes
from training.evaluate_video import Video, model_predictor, read_videos

LIMIT_MS = 25.0
SHIPPED = 'DIS ultrafast, 256x448, finest scale 1'
KINDS = {SHIPPED: FlowSettings(),
         'DIS ultrafast, 192x320, finest scale 1': FlowSettings((192, 320)),
         'DIS fast, 192x320, finest scale 1': FlowSettings((192, 320), 'fast'),
         'DIS medium, 192x320, finest scale 1': FlowSettings((192, 320), 'medium'),
         'DIS fast, 256x448, finest scale 2': FlowSettings(preset='fast', finest_scale=2)}


class Farneback:
    """Dense flow of Farneback 2003, as OpenCV's defaults have it."""

    def __call__(self, now: np.ndarray, other: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """As `Flow`."""
        flow = cv2.calcOpticalFlowFarneback(now, other, None, 0.5, 4, 15, 3, 5, 1.2, 0)
        ratio = np.array([size[1] / flow.shape[1], size[0] / flow.shape[0]], np.float32)
        return cv2.resize(flow, (size[1], size[0])) * ratio


def builders(spec: EvidenceSpec) -> dict[str, Callable[[], EvidenceBuilder]]:
    """A maker of evidence by each kind of flow."""
    found = {name: lambda flow=flow: EvidenceBuilder(replace(spec, flow=flow))
             for name, flow in KINDS.items()}

    def farneback() -> Flow:
        return Farneback()
    return found | {'Farneback': lambda: EvidenceBuilder(spec, make_flow=farneback)}


def milliseconds(make: Callable[[], EvidenceBuilder], frames: Sequence[Frame]) -> float:
    """Median time of a frame's evidence once the first frames are past."""
    builder, history, took = make(), FrameHistory(make().spec), []
    for frame in frames:
        for now, neighbours in history.push(frame):
            begun = time.perf_counter()
            builder.build(now, neighbours)
            took.append(1e3 * (time.perf_counter() - begun))
    return float(np.median(took[4:]))


def sparse(videos: Sequence[Video], size: tuple[int, int]) -> tuple[float, Iterator[np.ndarray]]:
    """(median ms a frame, masks of all frames) of tracked corners and a frame difference."""
    took, masks = [], []
    for video in videos:
        before = None
        for frame in video.frames:
            begun = time.perf_counter()
            level = grey(frame.image, size)
            masks.append(np.zeros(size, bool) if before is None else differing(before, level))
            took.append(1e3 * (time.perf_counter() - begun))
            before = level
    return float(np.median(took)), iter(masks)


def differing(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """(H, W) bool: where the aligned frame before differs by more than 25 grey levels, closed."""
    corners = cv2.goodFeaturesToTrack(before, 300, 0.01, 6)
    if corners is None or len(corners) < 8:
        return np.zeros(now.shape, bool)
    found, status, _ = cv2.calcOpticalFlowPyrLK(before, now, corners, None)
    kept = status.ravel() > 0
    if kept.sum() < 8:
        return np.zeros(now.shape, bool)
    matrix, _ = cv2.findHomography(corners[kept], found[kept], cv2.RANSAC, 1.0)
    if matrix is None:
        return np.zeros(now.shape, bool)
    aligned = cv2.warpPerspective(before, matrix, now.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    changed = (cv2.absdiff(aligned, now) > 25).astype(np.uint8)
    return cv2.morphologyEx(changed, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8)) > 0


def mean_j(videos: Sequence[Video], masks: Iterator[np.ndarray], every: int) -> float:
    """Mean of the sequences' mean J of every `every`-th frame; `masks` of all frames in turn."""
    found = []
    for video in videos:
        scores = []
        for index, (union, truth) in enumerate(zip(islice(masks, len(video.masks)), video.masks,
                                                   strict=True)):
            if index and index % every == 0:
                void = truth == VOID
                whole = masks_at_size(union[None], truth.shape)[0]
                scores.append(region_j(whole, (truth > 0) & ~void, void))
        found.append(np.mean(scores))
    return float(np.mean(found))


def unions(model: GmosModel, builder: EvidenceBuilder,
           videos: Sequence[Video]) -> Iterator[np.ndarray]:
    """The union of the instances of each frame in turn."""
    model.motion_input.builder = builder
    predict = model_predictor(model, builder.spec, StageTimes())
    for video in videos:
        for instances in predict(video):
            yield instances.masks.any(0) if len(instances) else np.zeros(video.size, bool)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, required=True, help='a DAVIS folder')
    parser.add_argument('--model', default='gmos_nano')
    parser.add_argument('--every', type=int, default=3, help='frames from one scored to the next')
    parser.add_argument('--json', type=Path)
    given = parsed(parser, arguments)
    model = load_model(Config(model=given.model, backend='onnxruntime'))
    spec, videos = model.card.evidence, list(read_videos(given.data))
    packages = ('numpy', 'opencv-python-headless', 'onnxruntime')
    report = Report('evidence', f'Motion evidence, {given.data.name}', packages)
    for name, make in builders(spec).items():
        bar = f'<= {LIMIT_MS:g}' if name == SHIPPED else ''
        took = milliseconds(make, videos[0].frames)
        report.row(f'{name}: centred', took, 'ms', bar=bar, met=took <= LIMIT_MS if bar else None)
        report.row(f'{name}: J', mean_j(videos, unions(model, make(), videos), given.every), '')
    causal = replace(spec, centred=False)
    report.row(f'{SHIPPED}: causal',
               milliseconds(lambda: EvidenceBuilder(causal), videos[0].frames), 'ms')
    took, masks = sparse(videos, spec.size)
    report.row('sparse + homography', took, 'ms')
    report.row('sparse + homography: J', mean_j(videos, masks, given.every), '')
    report.finish(given)


if __name__ == '__main__':
    main()
