"""Are things found while they rest? `python -m training.evaluate_movable --clips 20`

Rendered clips of 4 s under a moving camera in which every object pauses (`STOPS`). Counted are
objects that moved and have been at rest for a second or longer, frame by frame: how many have an
instance with IoU >= 0.5 among

    motion    what the motion model says moves
    held      and what the tracker holds at rest
    picture   what the single-picture model finds, alone
    all       what the node publishes with both

`false`: instances at rest a frame that cover no object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mos_perception.config import Config
from mos_perception.datatypes import Instances
from mos_perception.evaluation.metrics import overlaps
from mos_perception.pipeline import Pipeline
from training.command import command
from training.evaluate_mos_i import STOPS, pipeline_answers
from training.scenes import render_clip
from training.scenes.clip import Clip
from training.scenes.presets import PRESETS, find_preset
from training.scenes.splits import SPLITS

REST_S = 1.0         # at rest for as long
LEAST_IOU = 0.5
LEAST_PIXELS = 40    # of an object in a frame that counts
COVERED = 0.5        # of an instance, by objects: else it is false
WAYS = ('motion', 'held', 'picture', 'all')


def resting(clip: Clip) -> np.ndarray:
    """(T, K + 1) bool: the object moved before, and has been at rest for REST_S or longer."""
    steps = round(REST_S * 1e9 / clip.period_ns)
    found = np.zeros_like(clip.moving)
    for n in range(steps, len(clip)):
        found[n] = clip.moving[:n].any(0) & ~clip.moving[n - steps : n + 1].any(0)
    return found


def count(clip: Clip, rest: np.ndarray, ways: dict[str, np.ndarray], n: int,
          found: Instances) -> Counter[str]:
    """Of frame `n`: objects at rest, by each way those found; `ways` are rows of `found`."""
    areas = np.bincount(clip.ids[n].ravel(), minlength=clip.moving.shape[1])
    names = np.flatnonzero(rest & (areas[:rest.size] >= LEAST_PIXELS))
    sums = Counter(rests=len(names), frames=1)
    for way, rows in ways.items():
        shown = np.zeros(found.size, np.uint16)
        for number, row in enumerate(rows, 1):
            shown[found.masks[row]] = number
        counts = overlaps(clip.ids[n], shown)
        best = dict(zip(counts.gt_ids.tolist(), counts.iou.max(1, initial=0).tolist()))
        sums[way] += sum(best.get(name, 0) >= LEAST_IOU for name in names.tolist())
        still = [row for row in rows if not found.moving[row]]
        sums[f'{way} false'] += sum(
            (clip.ids[n] > 0)[found.masks[row]].mean() < COVERED for row in still)
    return sums


def evaluate(model: str, movable: str, seeds: range, preset: str, split: str) -> Counter[str]:
    """Sums over clips. Raises EngineError."""
    given = dict(model=model, backend='onnxruntime', events_topic='')
    alone, both = Pipeline(Config(**given)), Pipeline(Config(**given, movable_model=movable))
    sums: Counter[str] = Counter()
    for seed in track(seeds, preset, console=Console(stderr=True)):
        clip = render_clip(find_preset(preset, events=False, **STOPS), seed, split)
        rest = resting(clip)
        for n, found, _ in pipeline_answers(alone)(clip):
            ways = {'motion': np.flatnonzero(found.moving), 'held': np.arange(len(found))}
            sums.update(count(clip, rest[n], ways, n, found))
        for n, found, _ in pipeline_answers(both)(clip):
            ways = {'picture': np.flatnonzero(found.movable >= 0), 'all': np.arange(len(found))}
            more = count(clip, rest[n], ways, n, found)
            sums.update({key: value for key, value in more.items() if key.split()[0] in WAYS})
    return sums


@command('evaluate_movable')
def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', default='gmos_nano')
    parser.add_argument('--movable-model', default='movable_nano')
    parser.add_argument('--preset', choices=sorted(PRESETS), default='video')
    parser.add_argument('--split', choices=SPLITS, default='test')
    parser.add_argument('--clips', type=int, default=20)
    parser.add_argument('--seed', type=int, default=0, help='first clip')
    parser.add_argument('--json', action='store_true', help='print JSON instead of the table')
    given = parser.parse_args(arguments)
    sums = evaluate(given.model, given.movable_model,
                    range(given.seed, given.seed + given.clips), given.preset, given.split)
    rests, frames = max(1, sums['rests']), max(1, sums['frames'])
    rows = {way: (sums[way] / rests, sums[f'{way} false'] / frames) for way in WAYS}
    if given.json:
        print(json.dumps({'rests': sums['rests'], 'frames': sums['frames'], 'recall, false': rows}))
        return 0
    table = Table('', 'recall', 'false a frame', title=f'{sums["rests"]} objects at rest in '
                  f'{sums["frames"]} frames, {given.clips} clips of {given.preset}, {given.split}')
    for way, (recall, false) in rows.items():
        table.add_row(way, f'{recall:.3f}', f'{false:.2f}')
    Console().print(table)
    return 0


if __name__ == '__main__':
    sys.exit(main())
