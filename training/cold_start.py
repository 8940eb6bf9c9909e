"""The first teacher of MoSIS: objects found by motion alone, no label, nothing learned before.

`python -m training.cold_start --data runs/mosis2d/train --out runs/mosis2d/cold` writes a cache for
`training.train_video --movable`; `--score` says instead how good its masks are (frame pairs know
the truth), `--truth` caches that: the supervised pair. How they are found:
`training.moving_objects`; what more frames and a student make of them: `training.label_rounds`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from mos_perception.errors import DatasetError
from mos_perception.evaluation.metrics import MaskAp
from mos_perception.formats.files import read_json, write_json
from mos_perception.masks import mask_boxes
from training.command import command
from training.datasets.frame_pairs import PairSet
from training.moving_objects import Part, Video

SCALE = 2            # times the frames' size: what is cached, so that maps at half have the frames'
SHARD = 20           # videos of a file
_METADATA = 'made_of.json'

Teacher = Callable[[int], list[list[Part]]]
"""The number of a video of a set -> the labels of each of its frames but the first and last."""


def by_motion(pairs: PairSet) -> Teacher:
    """What moves, each frame by itself."""
    def labels(number: int) -> list[list[Part]]:
        video = Video(np.asarray(pairs.frames[number]))
        return [video.find(t) for t in range(1, pairs.pairs)]
    return labels


def by_truth(pairs: PairSet) -> Teacher:
    """The truth: gain 1 each."""
    def labels(number: int) -> list[list[Part]]:
        return [[Part(mask, 1.0, {}) for mask in objects(ids, pairs.min_visible)]
                for ids in pairs.ids[number, 1:-1]]
    return labels


def label(masks: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 of disjoint masks: 1, 2, ..., the largest first."""
    found = np.zeros(size, np.uint8)
    for number, mask in enumerate(sorted(masks, key=np.count_nonzero, reverse=True)[:250], 1):
        found[mask] = number
    return found


def objects(ids: np.ndarray, least: int) -> list[np.ndarray]:
    """(H, W) bool of each object of ids (H, W) that shows `least` pixels."""
    areas = np.bincount(ids.ravel())
    return [ids == number for number in range(1, len(areas)) if areas[number] >= least]


def cache(pairs: PairSet, out: Path, teacher: Teacher, made_by: dict[str, str]) -> None:
    """Write `coldNNNN.image.npy` and `.label.npy`; shards that are there stay. `made_by` names the
    teacher: DatasetError where `out` has shards of another one or of other data.
    """
    _claim(out, made_by | {'data': pairs.about, 'videos of a file': str(SHARD)})
    for begin in track(range(0, pairs.videos, SHARD), 'labels', console=Console(stderr=True)):
        file = out / f'cold{begin // SHARD:04}.label.npy'
        if file.exists():
            continue
        images, labels = [], []
        for number in range(begin, min(begin + SHARD, pairs.videos)):
            for t, found in enumerate(teacher(number), 1):
                large = cv2.resize(np.asarray(pairs.frames[number, t]), None, fx=SCALE, fy=SCALE,
                                   interpolation=cv2.INTER_CUBIC)
                images.append(large.transpose(2, 0, 1))
                small = label([part.mask for part in found], pairs.size)
                labels.append(small.repeat(SCALE, 0).repeat(SCALE, 1))
        for path, values in ((out / f'{file.name[:8]}.image.npy', images), (file, labels)):
            scratch = path.with_suffix('.part.npy')
            np.save(scratch, np.stack(values))
            scratch.replace(path)


def labelled(pairs: PairSet, folder: Path) -> PairSet:
    """The inner frames of a set with the labels that were cached of it in `folder`.

    Raises DatasetError: nothing was, or of another set.
    """
    made_of = read_json(folder / _METADATA)
    if made_of.get('data') != pairs.about:
        raise DatasetError(f'{folder} holds labels of "{made_of.get("data")}", asked for are those '
                           f'of "{pairs.about}": give the set they were made of')
    small = [np.load(file, mmap_mode='r')[:, ::SCALE, ::SCALE]
             for file in sorted(folder.glob('*.label.npy'))]
    if not small:
        raise DatasetError(f'{folder} has no *.label.npy: run the command that makes them again')
    ids = np.concatenate(small).reshape(-1, pairs.pairs - 1, *pairs.size)
    return pairs.with_ids(ids, made_of['teacher'])


def _claim(out: Path, made_of: dict[str, str]) -> None:
    """Say in the folder what its shards are made of, or find that it says so."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / _METADATA
    known = read_json(path) if path.exists() else None
    if known == made_of:
        return
    if known is not None or any(out.glob('*.label.npy')):
        raise DatasetError(f'{out} holds labels made of {known or "what it does not say"}, asked '
                           f'for are those of {made_of}: give another --out, or delete the folder')
    write_json(path, made_of)


def score(pairs: PairSet, teacher: Teacher) -> tuple[float, float, float] | None:
    """Mask (mAP, AP50, AP75) of the labels themselves, by their score; None without objects."""
    result = MaskAp()
    for number in track(range(pairs.videos), 'score', console=Console(stderr=True)):
        for found, ids in zip(teacher(number), pairs.ids[number, 1:-1], strict=True):
            masks = [part.mask for part in found]
            result.add(objects(ids, pairs.min_visible), masks,
                       np.array([part.score for part in found], np.float32), mask_boxes(masks))
    return result.values()


def run(given: argparse.Namespace, pairs: PairSet, teacher: Teacher,
        made_by: dict[str, str]) -> None:
    """What `--out` and `--score` ask for; `made_by` as `cache` takes it. Raises DatasetError: no
    frame of the set has a neighbour on either side.
    """
    if pairs.pairs < 2:
        raise DatasetError(f'the videos of {given.data} have {pairs.pairs + 1} frames: labels are '
                           'made where there is one before and one after, render 3 or more')
    if given.out is not None:
        cache(pairs, given.out, teacher, made_by)
    if given.score and (values := score(pairs, teacher)) is not None:
        print('mask mAP {:.3f}, AP50 {:.3f}, AP75 {:.3f}'.format(*values))


def options(description: str) -> argparse.ArgumentParser:
    """`--data`, `--out`, `--score`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--data', type=Path, required=True,
                        help='set of training.datasets.frame_pairs')
    parser.add_argument('--out', type=Path, help='where the cache goes')
    parser.add_argument('--score', action='store_true', help='AP of the labels')
    return parser


def parsed(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """The arguments; ends where nothing is asked for."""
    given = parser.parse_args(arguments)
    if given.out is None and not given.score:
        parser.error('give --out, --score or both')
    cv2.setNumThreads(1)
    return given


@command('cold_start')
def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = options(__doc__.splitlines()[0])
    parser.add_argument('--truth', action='store_true', help="the truth's labels instead")
    given = parsed(parser, arguments)
    pairs = PairSet(given.data)
    if given.truth:
        run(given, pairs, by_truth(pairs), {'teacher': 'truth'})
    else:
        run(given, pairs, by_motion(pairs), {'teacher': 'motion'})
    return 0


if __name__ == '__main__':
    sys.exit(main())
