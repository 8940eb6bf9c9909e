"""Which tracker keeps who is who: the same masks to each of them, in clips where things cross.

    python -m bench.trackers [--masks oracle gmos_nano] [--clips 20] [--tracker-model PATH...]

Clips are `training.tracker_cache.PRESET` (60 frames at 30 Hz) on seeds of split `test`; what is
scored are the objects that move, at mask IoU. `masks`: `oracle` are the true ones, of which a tenth
is left out at random; else a model's. ByteTrack and OC-SORT are those of the package `trackers`, at
its settings but for the time a lost track lives, and take part where it is installed. Several
files of the referring tracker are a row each. A model that takes events gets them. `easy` clips
have neither crossings nor occluders; in `jumps` the camera jumps twice (frames left out).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from mos_perception.config import Config
from mos_perception.datatypes import Instances, SyncedInput
from mos_perception.engine.card import ModelCard
from mos_perception.evaluation.metrics import overlaps
from mos_perception.evaluation.track_metrics import TrackCounts, TrackFrame, count_tracks
from mos_perception.models import Model, load_model
from mos_perception.motion.backward_flow import BackwardFlow
from mos_perception.tracking import load_tracker
from training.scenes import render_clip
from training.scenes.clip import Clip
from training.tracker_cache import LEAST_PIXELS, PRESET, found_in, true_instances

MISSED = 0.1
LOST_S = 1.0
JUMP = 15  # frames left out
CLIPS = {
    'crossing': PRESET,
    'easy': replace(PRESET, occlusion=False, occluders=0.0, camouflage=0.0),
    'jumps': PRESET,
}
Step = Callable[[Instances, SyncedInput], tuple[Instances, np.ndarray]]
"""Instances of a frame to those shown and their ids, 0 = none."""


@dataclass
class Sums:
    """What one tracker did on the clips so far."""

    counts: TrackCounts | None = None
    milliseconds: list[float] = field(default_factory=list)

    def add(self, counts: TrackCounts) -> None:
        """Take one clip's."""
        self.counts = counts if self.counts is None else self.counts + counts

    def scores(self) -> dict[str, float]:
        """Of all clips, and the median milliseconds of CPU time per frame."""
        return {**self.counts.scores(), 'CPU ms': float(np.median(self.milliseconds))}


def ours(config: Config, card: ModelCard | None) -> Step:
    """One of the node's trackers; what it holds at rest is not shown, as no peer holds."""
    tracker = load_tracker(config, card)

    def step(found: Instances, sample: SyncedInput) -> tuple[Instances, np.ndarray]:
        count = len(found)
        shown, tracks = tracker.update(found, sample.stamp_ns, sample.flow, sample.flow_error,
                                       sample.image)
        return found, tracks.instance_ids(len(shown))[:count]
    return step


def peer(name: str) -> Step:
    """A tracker of the package `trackers`. Raises ImportError where it is not installed."""
    import supervision
    import trackers
    kind = {'ByteTrack': trackers.ByteTrackTracker, 'OC-SORT': trackers.OCSORTTracker}[name]
    tracker = kind(lost_track_buffer=round(30 * LOST_S), frame_rate=30.0)

    def step(found: Instances, sample: SyncedInput) -> tuple[Instances, np.ndarray]:
        given = supervision.Detections(
            xyxy=found.boxes.reshape(-1, 4), confidence=found.scores,
            class_id=np.zeros(len(found), int), data={'row': np.arange(len(found))})
        tracked = tracker.update(given)
        ids = np.zeros(len(found), np.int64)
        if len(tracked):
            ids[tracked.data['row'].astype(int)] = np.maximum(tracked.tracker_id + 1, 0)
        return found, ids
    return step


def contenders(card: ModelCard | None, tracker_models: list[str]) -> dict[str, Step]:
    """Every tracker that can run here, fresh."""
    made = {'hungarian': ours(Config(tracker='hungarian', track_lost_s=LOST_S), card)}
    for name in tracker_models:
        config = Config(tracker='referring', tracker_model=name, track_lost_s=LOST_S)
        made[f'referring {Path(name).stem}' if len(tracker_models) > 1 else 'referring'] = ours(
            config, card)
    for name in ('ByteTrack', 'OC-SORT'):
        try:
            made[name] = peer(name)
        except ImportError as error:
            print(f'{name} does not take part: {error}', file=sys.stderr)
    return made


def masks_of(clip: Clip, model: Model | None) -> list[Instances]:
    """What each frame's detector says."""
    if model is not None:
        return list(found_in(model, clip))
    rng, found = np.random.default_rng(clip.seed), []
    for at in range(len(clip)):
        truth, _ = true_instances(clip, at)
        kept = rng.random(len(truth)) >= MISSED
        found.append(Instances(*(getattr(truth, part.name)[kept] for part in fields(Instances))))
    return found


def scored(clip: Clip, at: int, found: Instances, ids: np.ndarray) -> TrackFrame:
    """Moving objects against tracked instances, by mask IoU."""
    _, numbers = clip.moving_masks(at, LEAST_PIXELS)
    truth = np.where(np.isin(clip.ids[at], numbers), clip.ids[at], 0)
    rows = np.flatnonzero(ids > 0)
    shown = np.zeros(found.size, np.uint16)
    for number, row in enumerate(rows, 1):
        shown[found.masks[row]] = number
    counts = overlaps(truth, shown)
    return counts.gt_ids, ids[rows[counts.pred_ids - 1]], counts.iou


def run_clip(clip: Clip, found: list[Instances], kept: list[int], steps: dict[str, Step],
             sums: dict[str, Sums]) -> None:
    """Every tracker over the kept frames of one clip, frame by frame beside each other."""
    backward = BackwardFlow()
    frames: dict[str, list[TrackFrame]] = {name: [] for name in steps}
    for at in kept:
        sample = backward.of(clip.frame(at))
        for name, step in steps.items():
            start = time.thread_time()
            shown, ids = step(found[at], sample)
            sums[name].milliseconds.append(1e3 * (time.thread_time() - start))
            frames[name].append(scored(clip, at, shown, ids))
    for name, listed in frames.items():
        sums[name].add(count_tracks(listed))


def open_model(masks: str) -> Model | None:
    """What finds the masks; None: the truth."""
    return None if masks == 'oracle' else load_model(Config(model=masks, threads=1))


def rendered(kind: str, seed: int, split: str, model: Model | None) -> Clip:
    """A clip, with events where the model takes them."""
    events = model is not None and model.card.window is not None
    return render_clip(replace(CLIPS[kind], events=events), seed, split)


def measure(masks: str, kind: str, clips: int, seed: int,
            tracker_models: list[str]) -> dict[str, dict[str, float]]:
    """Scores by tracker."""
    model = open_model(masks)
    sums: dict[str, Sums] = {}
    for number in range(seed, seed + clips):
        clip = rendered(kind, number, 'test', model)
        kept = list(range(len(clip)))
        if kind == 'jumps':
            kept = [at for at in kept if at // JUMP % 2 == 0]
        steps = contenders(None if model is None else model.card, tracker_models)
        sums |= {name: Sums() for name in steps if name not in sums}
        run_clip(clip, masks_of(clip, model), kept, steps, sums)
        print(f'\r{masks} {kind}: {number - seed + 1} of {clips} clips', end='', file=sys.stderr)
    print(file=sys.stderr)
    return {name: one.scores() for name, one in sums.items()}


def show(found: dict[str, Any]) -> None:
    """A table per kind of mask and clip."""
    for title, rows in found.items():
        table = Table('tracker', *next(iter(rows.values())), title=title)
        for name, scores in rows.items():
            table.add_row(name, *(f'{value:.3f}' if isinstance(value, float) else str(value)
                                  for value in scores.values()))
        Console(width=100).print(table)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--masks', nargs='+', default=['oracle', 'gmos_nano'],
                        help='oracle, or names of models')
    parser.add_argument('--kinds', nargs='+', default=list(CLIPS), choices=list(CLIPS))
    parser.add_argument('--clips', type=int, default=20, help='of each kind')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--tracker-model', nargs='+', default=[Config().tracker_model])
    parser.add_argument('--json', action='store_true', help='print JSON alone')
    given = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    found = {f'{masks}, {kind}': measure(masks, kind, given.clips, given.seed, given.tracker_model)
             for masks in given.masks for kind in given.kinds}
    if given.json:
        print(json.dumps({'clips': given.clips, 'seed': given.seed, **found}, indent=1))
    else:
        show(found)


if __name__ == '__main__':
    main()
