"""MOS-I on rendered clips: what is said to move, by tracks, while objects start and stop.

`python -m training.evaluate_mos_i --preset video --stops --clips 10`
`python -m training.evaluate_mos_i --preset parallax-hard --tracker propagation_flow --json`

The model and the tracker run as in the node, frames alone; beside them the homography baseline with
the tracker `hungarian`. `--stops`: clips of 4 s under a moving camera in which every object pauses,
as `bench.tracking` has them. J_mov and mtIoU: more is better; FP count: false masks a frame.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mos_perception.config import FIELDS, Config
from mos_perception.datatypes import Instances, Tracks
from mos_perception.evaluation.mos_i import MATCHINGS, CellCounter, MosI
from mos_perception.motion.backward_flow import BackwardFlow
from mos_perception.pipeline import Pipeline
from mos_perception.tracking import load_tracker
from training.baselines import BASELINES
from training.command import command
from training.evaluate_masks import answered
from training.scenes import render_clip
from training.scenes.clip import Clip
from training.scenes.presets import PRESETS, Preset, find_preset
from training.scenes.splits import SPLITS

FLOOR = 'homography'
STOPS = {'duration_s': 4.0, 'start_stop': 1.0, 'empty': 0.0, 'static_camera': 0.0,
         'moving_objects': (2, 4)}

Answers = Callable[[Clip], Iterator[tuple[int, Instances, Tracks]]]
"""(frame, instances, tracks) of a clip's frames, in order."""


def floor_answers(clip: Clip) -> Iterator[tuple[int, Instances, Tracks]]:
    """The baseline's, tracked along the flow."""
    baseline, tracker, backward = BASELINES[FLOOR](), load_tracker(Config()), BackwardFlow()
    for n in range(len(clip)):
        frame = clip.frame(n)
        sample = backward.of(frame)
        found = tracker.update(baseline.update(frame), frame.stamp_ns, sample.flow,
                               sample.flow_error, frame.image)
        yield n, *found


def pipeline_answers(pipeline: Pipeline) -> Answers:
    """The model and tracker of a pipeline, as the node has them."""
    def run(clip: Clip) -> Iterator[tuple[int, Instances, Tracks]]:
        row = {int(stamp): n for n, stamp in enumerate(clip.stamps_ns)}
        frames = map(clip.frame, range(len(clip)))
        for outcome in answered(pipeline, frames, clip.size, 'rendered clip'):
            yield row[outcome.stamp_ns], outcome.instances, outcome.tracks
    return run


def evaluate(methods: dict[str, Answers], preset: Preset, seeds: range,
             split: str) -> dict[str, MosI]:
    """The scores of each method over clips. Raises EngineError for a failed inference."""
    scores = {name: MosI() for name in methods}
    for seed in track(seeds, preset.name, console=Console(stderr=True)):
        clip = render_clip(preset, seed, split)
        for name, answers in methods.items():
            counter = CellCounter()
            for n, instances, tracks in answers(clip):
                ids = tracks.instance_ids(len(instances)) * instances.moving
                moving = np.flatnonzero(clip.moving[n])
                counter.add(np.where(np.isin(clip.ids[n], moving), clip.ids[n], 0),
                            instances.id_image(ids))
            scores[name].add(f'{preset.name}/{seed}', counter.cells())
    return scores


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option = parser.add_argument
    option('--model', default='gmos_nano', help='name under models/ or path of an .onnx file')
    option('--tracker', choices=FIELDS['tracker'].metadata['choices'], default='hungarian')
    option('--causal', action='store_true', help='look at no later frame')
    option('--preset', choices=sorted(PRESETS), default='video')
    option('--stops', action='store_true', help='every object pauses, the camera moves; 4 s')
    option('--split', choices=SPLITS, default='test')
    option('--clips', type=int, default=20)
    option('--seed', type=int, default=0, help='first clip')
    option('--threads', type=int, default=0, help='0 = one per core')
    option('--json', action='store_true', help='print JSON instead of the table')
    return parser


@command('evaluate_mos_i')
def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    given = _parser().parse_args(arguments)
    config = Config(model=given.model, tracker=given.tracker, causal=given.causal,
                    threads=given.threads, backend='onnxruntime', events_topic='')
    preset = find_preset(given.preset, events=False, **(STOPS if given.stops else {}))
    pipeline = Pipeline(config)
    name = f'{pipeline.model.card.id}, {given.tracker}'
    found = evaluate({name: pipeline_answers(pipeline), FLOOR: floor_answers}, preset,
                     range(given.seed, given.seed + given.clips), given.split)
    about = (f'MOS-I, {given.clips} clips of {given.preset}{" with stops" if given.stops else ""}, '
             f'split {given.split}, seeds from {given.seed}')
    scores = {key: {matching: value.summary(matching) for matching in MATCHINGS}
              for key, value in found.items()}
    if given.json:
        print(json.dumps({'about': about, 'causal': given.causal, 'scores': scores}, indent=1))
        return 0
    table = Table('', 'matching', 'J_mov', 'mtIoU', 'FP count', title=about)
    for key, rows in scores.items():
        for matching, values in rows.items():
            table.add_row(key, matching, *('-' if values[column] is None else
                                           f'{values[column]:.3f}'
                                           for column in ('J_mov', 'mtIoU', 'FP_count')))
    Console().print(table)
    return 0


if __name__ == '__main__':
    sys.exit(main())
