"""Score what is seen on ordinary video: J and F of the union of the instances, per sequence.

`python -m training.evaluate --data DAVIS_FOLDER --frames-only --model gmos_nano` calls it.

At the annotation's size, all frames but the first; J per object where the annotation has several,
each object matched to one instance per frame. Baselines are scored beside the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mos_perception.datatypes import Frame, Instances, SyncedInput
from mos_perception.engine.card import load_card, save_card
from mos_perception.engine.model_files import find_model
from mos_perception.errors import DatasetError
from mos_perception.evaluation.boundary import boundary_f, region_j
from mos_perception.evaluation.metrics import match
from mos_perception.formats import davis
from mos_perception.formats.image_files import read_indexed, read_rgb
from mos_perception.formats.layout import images
from mos_perception.formats.sequence import regular_stamps
from mos_perception.masks import masks_at_size
from mos_perception.models import Model
from mos_perception.motion.history import Surroundings
from mos_perception.stages import StageTimes
from training.answers import answers
from training.baselines import BASELINES
from training.video_pictures import Pictures

WITHOUT_EVENTS = ('homography', 'mog2')
TITLE = {False: 'frames only, centred window', True: 'frames only, causal'}


@dataclass(frozen=True)
class Video:
    """A sequence: `frames` (T), `masks` (T, h, w) uint8 of object ids, 255 = do not score."""

    name: str
    frames: list[Frame]
    masks: list[np.ndarray]

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the annotation."""
        return self.masks[0].shape


Predictor = Callable[[Video], Iterator[Instances]]
"""The instances of each frame of a video, in their order."""


@dataclass
class VideoScores:
    """One method's scores: per sequence the means over its frames, `j_objects` over objects."""

    j: dict[str, float] = field(default_factory=dict)
    f: dict[str, float] = field(default_factory=dict)
    j_objects: dict[str, float] = field(default_factory=dict)
    stage_ms: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """J_mean, F_mean (means of the sequences' means) and `sequences`, for `--json`."""
        sequences = {name: {'J': round(self.j[name], 4), 'F': round(self.f[name], 4)}
                     | ({'J_objects': round(self.j_objects[name], 4)}
                        if name in self.j_objects else {}) for name in self.j}
        return {'J_mean': round(float(np.mean(list(self.j.values()))), 4),
                'F_mean': round(float(np.mean(list(self.f.values()))), 4),
                'sequences': sequences}


def read_videos(folder: Path, fps: float = davis.FPS) -> Iterator[Video]:
    """The sequences of a DAVIS folder that have masks, one at a time. Raises DatasetError."""
    found = {name: pair for name, pair in davis.folders(folder).items() if pair[1] is not None}
    if not found:
        raise DatasetError(f'{folder} has no sequence with masks: it must hold JPEGImages and '
                           'Annotations, or frames/ and masks/ per sequence')
    for name in track(found, str(folder), console=Console(stderr=True)):
        frames, masks = (images(part) for part in found[name])
        if len(frames) != len(masks):
            raise DatasetError(f'{found[name][1]} has {len(masks)} masks for {len(frames)} frames: '
                               'fetch it again')
        stamps = regular_stamps(range(len(frames)), fps)
        yield Video(name, [Frame(int(stamp), read_rgb(file))
                           for stamp, file in zip(stamps, frames)], [_ids(file) for file in masks])


def _ids(file: Path) -> np.ndarray:
    """(h, w) uint8: black and white is object 1, else the palette's index."""
    indices = read_indexed(file)
    return (indices > 0).astype(np.uint8) if davis.is_binary(file, indices) else indices


def model_predictor(model: Model, spec: Surroundings | None, stages: StageTimes) -> Predictor:
    """The model as the robot runs it: a frame is answered when its neighbours in time are there.

    `stages` gathers the summed milliseconds of each stage.
    """
    def predict(video: Video) -> Iterator[Instances]:
        samples = (SyncedInput(frame.stamp_ns, '', frame, None, video.size)
                   for frame in video.frames)
        for instances, booked in answers(model, samples, spec):
            for name, value in booked.items():
                stages[name] = stages.get(name, 0.0) + value
            yield instances
    return predict


def baseline_predictor(name: str) -> Predictor:
    """A classical baseline, frame by frame."""
    def predict(video: Video) -> Iterator[Instances]:
        baseline = BASELINES[name]()
        baseline.reset()
        for frame in video.frames:
            yield baseline.update(frame, None)
    return predict


def score_videos(predictors: dict[str, Predictor], videos: Iterable[Video],
                 keep: Callable[[str, Video, int, np.ndarray, float], None] | None = None,
                 ) -> dict[str, VideoScores]:
    """The scores of every method. `keep` sees (method, video, frame, union mask, J) of each frame.
    """
    table = {name: VideoScores() for name in predictors}
    for video in videos:
        for name, predict in predictors.items():
            j, f, objects = [], [], []
            for index, instances in enumerate(predict(video)):
                if index == 0:
                    continue
                truth = video.masks[index]
                masks = masks_at_size(instances.masks, truth.shape)
                union = masks.any(0) if len(masks) else np.zeros(truth.shape, bool)
                void = truth == davis.VOID
                wanted = (truth > 0) & ~void
                j.append(region_j(union, wanted, void))
                f.append(boundary_f(union, wanted, void))
                objects.append(object_j(masks, truth))
                if keep is not None:
                    keep(name, video, index, union, j[-1])
            scores = table[name]
            scores.j[video.name], scores.f[video.name] = float(np.mean(j)), float(np.mean(f))
            ids = {number for row in objects for number in row}
            if len(ids) > 1:
                scores.j_objects[video.name] = float(np.mean(
                    [np.mean([row[number] for row in objects if number in row])
                     for number in ids]))
    return table


def object_j(masks: np.ndarray, truth: np.ndarray) -> dict[int, float]:
    """J of each object id in `truth` (h, w): with one instance each, of the greatest summed J."""
    void = truth == davis.VOID
    ids = [int(number) for number in np.unique(truth[~void]) if number]
    table = np.array([[region_j(mask, truth == number, void) for mask in masks]
                      for number in ids]).reshape(len(ids), len(masks))
    found = dict.fromkeys(ids, 0.0)
    for row, column in match(table):
        found[ids[row]] = float(table[row, column])
    return found


def show(scores: dict[str, VideoScores], title: str) -> None:
    """Print J and F per sequence and their means, the first method's worst sequence first."""
    first = next(iter(scores.values()))
    table = Table(title=title)
    table.add_column('')
    for name in scores:
        table.add_column(f'{name} J', justify='right')
        table.add_column('F', justify='right')
    for sequence in sorted(first.j, key=first.j.__getitem__):
        table.add_row(sequence, *(f'{values[sequence]:.3f}' for method in scores.values()
                                  for values in (method.j, method.f)))
    table.add_section()
    table.add_row('mean', *(f'{np.mean(list(values.values())):.3f}' for method in scores.values()
                            for values in (method.j, method.f)))
    Console(width=120).print(table)


def evaluate_videos(model: Model, folder: Path, as_json: bool, update_card: bool,
                    pictures: Path | None) -> int:
    """Score `model` and the baselines on a DAVIS folder, print it, return the exit status.

    `pictures`: folder for the best and worst sequences. Raises DatasetError.
    """
    spec = model.card.surroundings
    causal = spec is None or not spec.centred
    kept, stages = Pictures(), StageTimes()
    name = model.card.id
    predictors = {name: model_predictor(model, spec, stages)}
    predictors |= {f'baseline: {key}': baseline_predictor(key) for key in WITHOUT_EVENTS}
    scores = score_videos(predictors, read_videos(folder),
                          lambda method, *found: kept.add(*found) if method == name else None)
    about = f'{name}: {folder.name}, {TITLE[causal]}'
    if spec is not None and spec.centred:
        about += f', delay {spec.gaps_ms[-1]:g} ms or the nearest frame'
    result = {'about': about, **scores[name].as_dict(),
              'baselines': {key: value.as_dict() for key, value in scores.items() if key != name}}
    if pictures is not None:
        kept.write(pictures, scores[name].j)
    if update_card:
        key = f'{folder.name} causal' if causal else folder.name
        path = find_model(name)
        card = load_card(path)  # as it is on disk: the model's own may be causal
        save_card(replace(card, scores=card.scores | {key: result}), path)
    if as_json:
        print(json.dumps(result, indent=1))
    else:
        show(scores, about)
    return 0
