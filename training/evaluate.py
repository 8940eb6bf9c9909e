"""Score a shipped model on freshly rendered held-out clips, by the robot's own code, beside the classical floors.

`python -m training.evaluate --model models/dimos_nano.onnx --preset easy --clips 20 --split test`
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mos_perception import formats
from mos_perception.datatypes import EventWindow, Frame, Instances
from mos_perception.engine import load_engine
from mos_perception.engine.card import find_model, load_card, save_card
from mos_perception.errors import MosError
from mos_perception.evaluation.score import SIZES, Scorer
from mos_perception.models.dimos.model import DimosModel
from training.datasets.sequences import clip_of
from training.floors import FLOORS, NO_TRACKS
from training.scenes import SCENES, render_clip
from training.scenes.clip import Clip
from training.scenes.levels import KNOBS
from training.scenes.splits import SPLITS

COLUMNS = ('mIoU_ins', 'mIoU01', 'AP_parity', 'AP_strict', 'mIoU_strict', 'precision', 'recall',
           'false_per_empty_frame', 'IoU_small', 'IoU_medium', 'IoU_large', 'ms_per_frame')
PERIOD_NS = 33_333_333  # the floors were tuned on windows of a frame period


@dataclass
class Row:
    """The scores of one method, gathered over clips."""

    scorer: Scorer
    empty_frames: int = 0
    false_alarms: int = 0
    seconds: list[float] = field(default_factory=list)

    def add(self, clip: Clip, frame: int, instances: Instances, seconds: float) -> None:
        """One frame of one clip."""
        moving = {int(k) for k in np.flatnonzero(clip.moving[frame])}
        self.scorer.add(int(clip.stamps_ns[frame]), clip.ids[frame], moving, instances, NO_TRACKS)
        if not np.isin(clip.ids[frame], list(moving)).any():
            self.empty_frames += 1
            self.false_alarms += len(instances)
        self.seconds.append(seconds)

    def values(self) -> dict[str, float | None]:
        """The columns of the table. mIoU_ins and mIoU01 are means over the frames that hold a mover."""
        summary = self.scorer.summary()
        parity, strict = summary['parity'], summary['strict']
        share = summary['frames'] / max(summary['frames_with_gt'], 1)
        found = (parity['mIoU_ins_valid'], None if parity['mIoU01'] is None else parity['mIoU01'] * share,
                 parity['mAP'], strict['AP'], strict['mIoU'], strict['motion_precision'], strict['motion_recall'],
                 self.false_alarms / self.empty_frames if self.empty_frames else None,
                 *(strict[f'IoU_{size}'] for size in SIZES),
                 1e3 * float(np.median(self.seconds)))
        return {name: None if value is None else round(float(value), 4) for name, value in zip(COLUMNS, found)}


Method = Callable[[Frame, EventWindow], Instances]


def methods(model: DimosModel) -> dict[str, Method]:
    """The model with both inputs and with either alone."""
    def run(frame: Frame | None, window: EventWindow | None, size: tuple[int, int]) -> Instances:
        return model.postprocess(model.engine.run(model.preprocess(frame, window)), size)
    return {'frames + events': lambda frame, window: run(frame, window, frame.size),
            'frames only': lambda frame, window: run(frame, None, frame.size),
            'events only': lambda frame, window: run(None, window, frame.size)}


def evaluate(model: DimosModel, clips: Iterable[Clip], min_pixels: int,
             with_events: bool = True) -> dict[str, dict[str, float | None]]:
    """Scores per method over all frames but each clip's first; movers under `min_pixels` are no ground truth.

    Without events only the methods that need none are scored. MOG2 has only the clip's own frames to learn the
    background from: `training.levels` gives it a warm-up.
    """
    runs = {name: method for name, method in methods(model).items() if with_events or name == 'frames only'}
    floors = {f'floor: {name}': kind() for name, kind in FLOORS.items() if with_events or name != 'events'}
    table = {name: Row(Scorer(min_pixels)) for name in (*runs, *floors)}
    window_ns = round(model.card.window.length_ms * 1e6)
    for clip in clips:
        for name, method in runs.items():
            score_clip(table[name], method, clip, window_ns)
        for name, floor in floors.items():
            floor.reset()
            floor.update(clip.frame(0), clip.window(0, PERIOD_NS))
            score_clip(table[name], floor.update, clip, PERIOD_NS)
    return {name: row.values() for name, row in table.items()}


def score_clip(row: Row, method: Method, clip: Clip, window_ns: int) -> None:
    """Add all frames of a clip but the first, each with the events of the `window_ns` before it."""
    for i in range(1, len(clip)):
        begun = time.perf_counter()
        found = method(clip.frame(i), clip.window(i, window_ns))
        row.add(clip, i, found, time.perf_counter() - begun)


def by_preset(model: DimosModel, split: str, clips: int, seed: int,
              min_pixels: int) -> dict[str, dict[str, float | None]]:
    """mIoU_ins of every method on easy, mid, hard and with one knob of mid at a time turned to easy or hard."""
    names = ['easy', 'mid', 'hard', *(f'{knob}-{level}' for knob in KNOBS for level in ('easy', 'hard'))]
    found = {}
    for name in track(names, 'presets', console=Console(stderr=True)):
        scores = evaluate(model, (render_clip(name, seed + n, split) for n in range(clips)), min_pixels)
        found[name] = {method: values['mIoU_ins'] for method, values in scores.items()}
    return found


def sequences(folder: Path) -> Iterator[Clip]:
    """The sequences of a data set on disk, one at a time, with progress. Raises DatasetError: unknown, or no truth."""
    layout = formats.module(formats.detect(folder))
    for name in track(layout.find(folder), str(folder), console=Console(stderr=True)):
        yield clip_of(layout.read(folder, name))


def show(scores: dict[str, dict[str, float | None]], title: str) -> None:
    """Print the scores as a table."""
    table = Table(title=title)
    columns = list(next(iter(scores.values())))
    for name in ('', *columns):
        table.add_column(name.replace('_', ' '), justify='right' if name else 'left')
    for name, values in scores.items():
        table.add_row(name, *('-' if values[column] is None else f'{values[column]:.3f}' for column in columns))
    Console(width=None if sys.stdout.isatty() else 170).print(table)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', default='dimos_nano', help='name under models/ or path of an .onnx file')
    parser.add_argument('--preset', choices=sorted(SCENES), default='easy')
    parser.add_argument('--data', type=Path, help='a data set on disk instead: MouseSIS, SEVD, EVIMO, DAVIS, bag ...')
    parser.add_argument('--frames-only', action='store_true', help='with --data: it has no events')
    parser.add_argument('--knobs', action='store_true', help='every level, one knob at a time, instead of --preset')
    parser.add_argument('--split', choices=SPLITS, default='test')
    parser.add_argument('--clips', type=int, default=20)
    parser.add_argument('--seed', type=int, default=0, help='first clip')
    parser.add_argument('--min-pixels', type=int, default=12, help='smaller movers are no ground truth')
    parser.add_argument('--score-threshold', type=float, help='default: the model card\'s')
    parser.add_argument('--threads', type=int, default=0)
    parser.add_argument('--json', action='store_true', help='print JSON instead of the table')
    parser.add_argument('--update-card', action='store_true', help='store the scores in the model card')
    given = parser.parse_args(arguments)
    try:
        path = find_model(given.model)
        card = load_card(path)
        model = DimosModel(load_engine(path, 'onnxruntime', given.threads), card, given.score_threshold)
        if given.knobs:
            key, what = f'knobs/{given.split}', (f'{card.id}: mIoU_ins on {given.clips} clips of each preset, split '
                                                 f'{given.split}, seeds from {given.seed}')
            scores = by_preset(model, given.split, given.clips, given.seed, given.min_pixels)
        elif given.data:
            clips, key = sequences(given.data), given.data.name
            what = f'{card.id}: {given.data.name}' + (', frames only' if given.frames_only else '')
        else:
            clips = (render_clip(given.preset, given.seed + n, given.split) for n in range(given.clips))
            key = f'{given.preset}/{given.split}'
            what = (f'{card.id}: {given.clips} clips, preset {given.preset}, split {given.split}, '
                    f'seeds from {given.seed}')
        if given.score_threshold is not None:
            key, what = f'{key} at {given.score_threshold:g}', f'{what}, score threshold {given.score_threshold:g}'
        if not given.knobs:
            scores = evaluate(model, clips, given.min_pixels, not given.frames_only)
        result: dict[str, Any] = {'about': what, 'min_pixels': given.min_pixels, 'scores': scores}
        if given.update_card:
            save_card(replace(card, scores=card.scores | {key: result}), Path(path))
    except MosError as error:
        print(f'evaluate: {error}', file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps(result, indent=1))
    else:
        show(scores, what)
    return 0


if __name__ == '__main__':
    sys.exit(main())
