"""Score a model on held-out clips or a data set, by the robot's own code, beside the baselines.

`python -m training.evaluate --model models/dimos_nano.onnx --preset easy --clips 20 --split test`
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mos_perception import formats
from mos_perception.config import Config
from mos_perception.datatypes import Instances, SyncedInput
from mos_perception.engine.card import save_card
from mos_perception.engine.model_files import find_model
from mos_perception.errors import ConfigError
from mos_perception.evaluation.score import SIZES, Scorer
from mos_perception.models import Model, load_model, model_name
from mos_perception.pipeline import Pipeline
from training.answers import answers
from training.baselines import BASELINES
from training.baselines.scoring import add_frame
from training.command import command
from training.datasets.sequences import clip_of
from training.evaluate_masks import evaluate_masks
from training.evaluate_static import evaluate_static, report
from training.evaluate_tasks import TASKS, evaluate_task, report_task
from training.evaluate_video import evaluate_videos
from training.scenes import render_clip
from training.scenes.catalog import scene_name
from training.scenes.clip import Clip
from training.scenes.presets import FACTORS
from training.scenes.splits import SPLITS

COLUMNS = ('mIoU_ins', 'mIoU01', 'AP_released', 'AP_strict', 'mIoU_strict', 'precision', 'recall',
           'false_per_empty_frame', 'IoU_small', 'IoU_medium', 'IoU_large', 'ms_per_frame')
PERIOD_NS = 33_333_333  # the baselines were tuned on windows of a frame period

Method = Callable[[Clip], Iterator[tuple[Instances, float]]]
"""Instances of each frame of a clip, and the seconds they took."""
Scores = dict[str, dict[str, float | None]]
"""Per method, the values of `COLUMNS` (or of presets) by name."""


@dataclass
class MethodScores:
    """What one method scored, gathered over clips."""

    scorer: Scorer
    empty_frames: int = 0
    """Frames in which nothing moves."""
    false_alarms: int = 0
    """Instances found in them."""
    seconds: list[float] = field(default_factory=list)
    """Time of each frame."""

    def add(self, clip: Clip, frame: int, instances: Instances, seconds: float) -> None:
        """One frame of one clip."""
        add_frame(self.scorer, clip, frame, instances)
        moving = np.flatnonzero(clip.moving[frame])
        if not np.isin(clip.ids[frame], moving).any():
            self.empty_frames += 1
            self.false_alarms += len(instances)
        self.seconds.append(seconds)

    def values(self) -> dict[str, float | None]:
        """The columns of the table.

        mIoU_ins and mIoU01 are means over the frames that hold a moving object.
        """
        summary = self.scorer.summary()
        released, strict = summary['released'], summary['strict']
        share = summary['frames'] / max(summary['frames_with_gt'], 1)
        false_alarms = self.false_alarms / self.empty_frames if self.empty_frames else None
        found = {
            'mIoU_ins': released['mIoU_ins_valid'],
            'mIoU01': None if released['mIoU01'] is None else released['mIoU01'] * share,
            'AP_released': released['mAP'],
            'AP_strict': strict['AP'],
            'mIoU_strict': strict['mIoU'],
            'precision': strict['motion_precision'],
            'recall': strict['motion_recall'],
            'false_per_empty_frame': false_alarms,
            **{f'IoU_{size}': strict[f'IoU_{size}'] for size in SIZES},
            'ms_per_frame': 1e3 * float(np.median(self.seconds)),
        }
        return {name: None if found[name] is None else round(float(found[name]), 4)
                for name in COLUMNS}


def methods(model: Model, with_events: bool = True) -> dict[str, Method]:
    """The model with both inputs and with either alone, as far as it takes them."""
    window = model.card.window
    length_ns = 0 if window is None else round(window.length_ms * 1e6)

    def method(frames: bool, events: bool) -> Method:
        def run(clip: Clip) -> Iterator[tuple[Instances, float]]:
            samples = (SyncedInput(int(clip.stamps_ns[i]), '', clip.frame(i) if frames else None,
                                   clip.window(i, length_ns) if events else None,
                                   clip.size) for i in range(len(clip)))
            for found, stages in answers(model, samples, model.card.surroundings):
                yield found, 1e-3 * sum(stages.values())
        return run

    alone = {'frames only': method(True, False)}
    if not with_events or window is None:
        return alone
    return {'frames + events': method(True, True), **alone, 'events only': method(False, True)}


def baseline_method(name: str) -> Method:
    """A classical baseline, frame by frame."""
    def run(clip: Clip) -> Iterator[tuple[Instances, float]]:
        baseline = BASELINES[name]()
        baseline.reset()
        for i in range(len(clip)):
            begun = time.perf_counter()
            yield (baseline.update(clip.frame(i), clip.window(i, PERIOD_NS)),
                   time.perf_counter() - begun)
    return run


def evaluate(model: Model, clips: Iterable[Clip], min_pixels: int,
             with_events: bool = True) -> Scores:
    """Scores per method over all frames but each clip's first.

    Moving objects under `min_pixels` are no ground truth. Without events only the methods that need
    none are scored. MOG2 has only the clip's own frames to learn the background from:
    `training.levels` gives it a warm-up.
    """
    table = methods(model, with_events)
    table |= {f'baseline: {name}': baseline_method(name) for name in BASELINES
              if with_events or name != 'events'}
    scores = {name: MethodScores(Scorer(min_pixels)) for name in table}
    for clip in clips:
        for name, method in table.items():
            score_clip(scores[name], method, clip)
    return {name: kept.values() for name, kept in scores.items()}


def score_clip(scores: MethodScores, method: Method, clip: Clip) -> None:
    """Add all frames of a clip but the first."""
    for i, (found, seconds) in enumerate(method(clip)):
        if i:
            scores.add(clip, i, found, seconds)


def by_factor(model: Model, split: str, seeds: Sequence[int], min_pixels: int) -> Scores:
    """mIoU_ins of every method per preset: easy, mid, hard, and mid with one factor changed.

    One difficulty factor at a time is set to easy or to hard; a clip for each of `seeds`.
    """
    changed = [f'{factor}-{level}' for factor in FACTORS for level in ('easy', 'hard')]
    found = {}
    for name in track(['easy', 'mid', 'hard', *changed], 'presets', console=Console(stderr=True)):
        clips = (render_clip(name, seed, split) for seed in seeds)
        scores = evaluate(model, clips, min_pixels)
        found[name] = {method: values['mIoU_ins'] for method, values in scores.items()}
    return found


def sequences(folder: Path) -> Iterator[Clip]:
    """The sequences of a data set on disk, one at a time, with progress.

    Raises DatasetError: unknown, or no truth.
    """
    layout = formats.module(formats.detect(folder))
    for name in track(layout.find(folder), str(folder), console=Console(stderr=True)):
        yield clip_of(layout.read(folder, name))


def evaluate_asked(model: Model, args: argparse.Namespace) -> tuple[str, str, Scores]:
    """What the command line asks for: (key in the model card, what was scored, scores)."""
    card_id, seeds = model.card.id, range(args.seed, args.seed + args.clips)
    if args.factors:
        key = f'factors/{args.split}'
        about = (f'{card_id}: mIoU_ins on {args.clips} clips of each preset, split {args.split}, '
                 f'seeds from {args.seed}')
        scores = by_factor(model, args.split, seeds, args.min_pixels)
    elif args.data:
        key = args.data.name
        about = f'{card_id}: {args.data.name}' + (', frames only' if args.frames_only else '')
        scores = evaluate(model, sequences(args.data), args.min_pixels, not args.frames_only)
    else:
        key = f'{args.preset}/{args.split}'
        about = (f'{card_id}: {args.clips} clips, preset {args.preset}, split {args.split}, '
                 f'seeds from {args.seed}')
        clips = (render_clip(args.preset, seed, args.split) for seed in seeds)
        scores = evaluate(model, clips, args.min_pixels, not args.frames_only)
    if args.score_threshold is not None:
        key += f' at {args.score_threshold:g}'
        about += f', score threshold {args.score_threshold:g}'
    return key, about, scores


def show(scores: Scores, title: str) -> None:
    """Print the scores as a table."""
    table = Table(title=title)
    columns = list(next(iter(scores.values())))
    for name in ('', *columns):
        table.add_column(name.replace('_', ' '), justify='right' if name else 'left')
    for name, values in scores.items():
        cells = ['-' if values[column] is None else f'{values[column]:.3f}' for column in columns]
        table.add_row(name, *cells)
    Console(width=None if sys.stdout.isatty() else 170).print(table)


class _Renamed(argparse.Action):
    """An option that has another name now; `const` is the new one."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace,
                 values: Any, option_string: str | None = None) -> None:
        parser.error(f'{option_string} is now {self.const}')


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option = parser.add_argument
    option('--model', help='name under models/ or path of an .onnx file; default: dimos_light, '
           'gmos_nano with --frames-only, dimos_nano with --events-static')
    option('--preset', type=scene_name, default='easy')
    option('--data', type=Path,
           help='a data set on disk instead: MouseSIS, SEVD, EVIMO, DAVIS, bag ...')
    option('--frames-only', action='store_true',
           help='with --data: it has no events; DAVIS folders are scored by J and F')
    option('--events-static', type=Path, metavar='FOLDER',
            help='event recordings of a static scene: count the instances, all of them false')
    option('--causal', action='store_true', help='look at no later frame')
    option(
        '--pictures', type=Path, help='with DAVIS folders: where pictures of the best and worst go'
    )
    option('--masks', type=Path, metavar='FOLDER', help='with --data and --frames-only: what moves '
           'as masks there, scored by the protocols of the data set: MOS-I, J and F, boxes')
    option('--task', choices=TASKS, help='labelled video: --data is its truth, the JSON of vis and '
           'vps, the folder of vss (mos_perception/evaluation/video_files.py)')
    option('--predictions', type=Path, help='with --task: the results JSON of vis, else a folder; '
           'default for vis: what the model finds moving, without classes')
    option('--factors', action='store_true',
           help='instead of --preset: every level, and mid with one difficulty factor changed')
    option('--knobs', action=_Renamed, nargs=0, const='--factors', help=argparse.SUPPRESS)
    option('--split', choices=SPLITS, default='test')
    option('--clips', type=int, default=20)
    option('--seed', type=int, default=0, help='first clip')
    option('--min-pixels', type=int, default=12,
           help='smaller moving objects are no ground truth')
    option('--score-threshold', type=float, help='default: the model card\'s')
    option('--threads', type=int, default=0, help='0 = one per core')
    option('--json', action='store_true', help='print JSON instead of the table')
    option('--update-card', action='store_true', help='store the scores in the model card')
    return parser


@command('evaluate')
def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    args = _parser().parse_args(arguments)
    if args.task and args.data is None:
        raise ConfigError(f'--task {args.task} needs --data')
    if args.predictions and not args.task:
        raise ConfigError('--predictions needs --task')
    if args.task and (args.predictions or args.task != 'vis'):
        return report_task(args.task, args.data, evaluate_task(
            args.task, args.data, args.predictions, args.split), args.json)
    theta = -1.0 if args.score_threshold is None else args.score_threshold
    config = Config(model=args.model or 'auto', backend='onnxruntime', threads=args.threads,
                    score_threshold=theta, causal=args.causal)
    if args.frames_only or args.task:
        config = replace(config, events_topic='')
    if args.events_static:
        config = replace(config, image_topic='')
    model = load_model(config)
    if args.events_static:
        return report(evaluate_static(Pipeline(config, model), args.events_static), args.json)
    if args.task:
        return report_task(args.task, args.data, evaluate_task(
            args.task, args.data, None, args.split, Pipeline(config, model)), args.json)
    if args.masks:
        if not (args.data and args.frames_only):
            raise ConfigError('--masks needs --data and --frames-only')
        return evaluate_masks(Pipeline(config, model), args.data, args.masks, args.json)
    if args.data and args.frames_only and formats.detect(args.data) == 'davis':
        return evaluate_videos(model, args.data, args.json, args.update_card, args.pictures)
    key, about, scores = evaluate_asked(model, args)
    result = {'about': about, 'min_pixels': args.min_pixels, 'scores': scores}
    if args.update_card:
        kept = model.card.scores | {key: result}
        save_card(replace(model.card, scores=kept), find_model(model_name(config)))
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        show(scores, about)
    return 0


if __name__ == '__main__':
    sys.exit(main())
