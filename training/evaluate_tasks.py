"""Scores of labelled video: `python -m training.evaluate --task vis | vps | vss --data TRUTH`.

    vis  AP and AR of YouTube-VIS, for OVIS by levels of occlusion, of `--predictions` RESULTS.json,
         or of what `--model` finds moving: without classes, every category counts as one
    vps  VPQ, STQ of a folder of predictions; vss  mIoU, mVC8, mVC16 of one
Files: `mos_perception.evaluation.video_files`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mos_perception.errors import ConfigError, DatasetError
from mos_perception.evaluation.video_ap import VideoAp, VideoTrack, tracks_of
from mos_perception.evaluation.video_files import (
    read_objects,
    read_results,
    read_videos,
    read_vps,
    read_vss,
)
from mos_perception.evaluation.video_metrics import VPQ_WINDOWS, Stq, Vpq, video_consistency
from mos_perception.formats import ytvis
from mos_perception.pipeline import Pipeline
from training.evaluate_masks import moving_ids, outcomes

TASKS = ('vis', 'vps', 'vss')
CLIPS = (8, 16)  # frames of mVC


def evaluate_task(task: str, data: Path, predictions: Path | None, split: str,
                  pipeline: Pipeline | None = None) -> dict[str, float]:
    """Scores by name. Raises DatasetError; ConfigError where a model is asked for classes."""
    if task == 'vis':
        return vis(data, predictions, pipeline)
    if predictions is None:
        raise ConfigError(f'task {task} needs classes, which our models do not give: name '
                          '--predictions')
    return vps(data, predictions) if task == 'vps' else vss(data, predictions, split)


def vis(data: Path, predictions: Path | None, pipeline: Pipeline | None) -> dict[str, float]:
    """AP and AR of tracks."""
    videos, objects = read_videos(data), read_objects(data)
    if predictions is not None:
        results = read_results(predictions, videos)
    elif pipeline is not None:
        results = {}
        names = {name.split('/')[-1]: name for name in ytvis.videos(data)}
        for video in track(videos, str(data), console=Console(stderr=True)):
            results[video.number] = model_tracks(pipeline, data, names[video.name])
            objects[video.number] = [replace(one, category=1) for one in objects[video.number]]
    else:
        raise ConfigError('task vis needs --predictions or --model')
    total = VideoAp()
    for video in videos:
        total.add(objects[video.number], results[video.number])
    return total.scores()


def model_tracks(pipeline: Pipeline, data: Path, name: str) -> list[VideoTrack]:
    """What moves in a video, as the robot tracks it; a track's score is its mean."""
    sequence = ytvis.read(data, name)
    sequence.require_frames('scoring')
    row = {int(stamp): n for n, stamp in enumerate(sequence.stamps_ns)}
    return tracks_of(len(sequence), (
        (row[outcome.stamp_ns], outcome.instances.masks, moving_ids(outcome),
         outcome.instances.scores) for outcome in outcomes(pipeline, sequence)))


def vps(data: Path, predictions: Path) -> dict[str, float]:
    """VPQ over all windows and of each, STQ and its parts."""
    things, videos = read_vps(data, predictions)
    total, stq = Vpq(), Stq(things)
    for name, truth, found in videos:
        _same_size(name, truth.classes, found.classes)
        total.add(truth, found)
        stq.add(truth, found)
    by_window = {f'VPQ{window}': _mean(list(total.by_class(window).values()))
                 for window in VPQ_WINDOWS}
    return {'VPQ': total.score(), **by_window, **stq.scores()}


def vss(data: Path, predictions: Path, split: str) -> dict[str, float]:
    """Mean IoU of the classes that occur over all pixels, and mVC."""
    common: dict[int, int] = {}
    either: dict[int, int] = {}
    consistency: dict[int, list[float]] = {window: [] for window in CLIPS}
    for name, truth, found in read_vss(data, predictions, split):
        _same_size(name, truth, found)
        known = truth >= 0
        for number in np.unique(np.concatenate([truth[known], found[known]])).tolist():
            is_true, is_found = truth[known] == number, found[known] == number
            common[number] = common.get(number, 0) + int((is_true & is_found).sum())
            either[number] = either.get(number, 0) + int((is_true | is_found).sum())
        for window in CLIPS:
            consistency[window].append(video_consistency(truth, found, window))
    shares = [common[number] / size for number, size in either.items() if number >= 0 and size]
    return {'mIoU': _mean(shares), **{f'mVC{window}': _mean(values)
                                      for window, values in consistency.items()}}


def _mean(values: list[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float('nan')


def _same_size(name: str, truth: np.ndarray, found: np.ndarray) -> None:
    if truth.shape != found.shape:
        raise DatasetError(f'video {name}: the truth is {truth.shape}, the prediction '
                           f'{found.shape} (frames, height, width): write it at that size')


def report_task(task: str, data: Path, scores: dict[str, float], as_json: bool) -> int:
    """Print them; returns the exit status. What there is nothing of is null, or a dash."""
    rows = {name: value if np.isfinite(value) else None for name, value in scores.items()}
    if as_json:
        print(json.dumps({'about': f'{task}: {data.name}', 'scores': rows}, indent=1))
        return 0
    table = Table('score', 'value', title=f'{task}: {data.name}')
    for name, value in rows.items():
        table.add_row(name, '-' if value is None else f'{value:.4f}')
    Console().print(table)
    return 0
