"""What a frozen model finds in rendered clips, cached for the referring tracker: `python -m
training.tracker_cache --model gmos_nano --count 150 --out runs/queries`, or `--segmenter RUN`.

Clips are rendered here, long ones with crossings, or read from `--clips` (training.scenes.cache).
One file per clip, `NAME.npz`: of each instance the arrays of `Tokens`, its `frame` and its `object`
(the id that it covers best, at IoU 0.2 or more, static ones too; 0 = none), and `stamps_ns` of the
frames. `NAME-truth.npz` holds the same of the true masks of what moves, with the embedding of the
model's instance there. With `--truth-only` no model runs, which costs a hundredth, and embeddings
are zeros. A segmenter's files have the start of its weights' sha256 in their names.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from mos_perception.config import Config
from mos_perception.datatypes import Instances, SyncedInput
from mos_perception.engine.card import embedding_channels
from mos_perception.errors import DatasetError
from mos_perception.evaluation.metrics import match
from mos_perception.masks import mask_boxes
from mos_perception.models import Model, load_model
from mos_perception.tracking.tokens import Tokens, tokens
from training.answers import answers
from training.checkpoints import read_state
from training.frame_segments import load_segmenter, read_frame
from training.scenes import render_clip
from training.scenes.clip import Clip
from training.scenes.presets import find_preset
from training.scenes.shards import load_shard

PRESET = find_preset('train', duration_s=2.0, moving_objects=(2, 5), distractors=(0, 2), empty=0.0,
                     area=(0.01, 0.06), object_speed=(0.15, 0.8), occlusion=True, occluders=0.6,
                     camouflage=0.05, light=(0.3, 1.0), start_stop=0.2, events=False)
"""Clips of 60 frames whose objects cross each other and pass behind things."""
LEAST_IOU = 0.2  # a poor mask of an object is that object's: its slot shall not let go
LEAST_PIXELS = 30
_PARTS = tuple(part.name for part in fields(Tokens))


@dataclass(frozen=True)
class Sequence:
    """A clip as the tracker sees it: `frames` T lists of instances, `objects` T arrays (N,) of who
    each is (0 = nobody known), `stamps_ns` (T,).
    """

    frames: list[Tokens]
    objects: list[np.ndarray]
    stamps_ns: np.ndarray

    def save(self, path: Path) -> None:
        """As one file, whole or not there."""
        arrays = {name: np.concatenate([getattr(frame, name) for frame in self.frames])
                  for name in _PARTS}
        counts = [len(frame) for frame in self.frames]
        part = path.with_suffix('.part')
        with open(part, 'wb') as stream:
            np.savez(stream, **arrays, frame=np.repeat(np.arange(len(counts)), counts),
                     object=np.concatenate(self.objects), stamps_ns=self.stamps_ns)
        os.replace(part, path)


def load_sequence(path: Path) -> Sequence:
    """Raises DatasetError for a file that is none of ours."""
    try:
        with np.load(path) as data:
            arrays = {name: data[name] for name in (*_PARTS, 'frame', 'object', 'stamps_ns')}
    except (OSError, ValueError, KeyError) as error:
        raise DatasetError(f'{path} is no file of training.tracker_cache ({error}): delete it and '
                           'make it again') from error
    every = Tokens(*(arrays[name] for name in _PARTS))
    rows = [np.flatnonzero(arrays['frame'] == at) for at in range(len(arrays['stamps_ns']))]
    return Sequence([every.take(row) for row in rows], [arrays['object'][row] for row in rows],
                    arrays['stamps_ns'])


def load_folder(folders: list[Path]) -> list[Sequence]:
    """All sequences of some folders. Raises DatasetError where there is none or where their
    embeddings differ in size.
    """
    found = [load_sequence(path) for folder in folders for path in sorted(folder.glob('*.npz'))]
    if not found:
        raise DatasetError(f'no *.npz in {", ".join(map(str, folders))}: make some with "python -m '
                           'training.tracker_cache"')
    sizes = {frame.embeddings.shape[1] for one in found for frame in one.frames}
    if len(sizes) > 1:
        raise DatasetError(f'embeddings have {sorted(sizes)} channels: a tracker is for models of '
                           'one size; give folders of such')
    return found


def found_in(model: Model, clip: Clip) -> Iterator[Instances]:
    """The model's instances of each frame, as the robot sees them."""
    windowed = model.card.window is not None and len(clip.events)
    length = round(model.card.window.length_ms * 1e6) if windowed else 0
    samples = (SyncedInput(clip.frame(at).stamp_ns, '', clip.frame(at),
                           clip.window(at, length) if windowed else None, clip.size)
               for at in range(len(clip)))
    for instances, _ in answers(model, samples, model.card.evidence):
        yield instances


def true_instances(clip: Clip, at: int) -> tuple[Instances, np.ndarray]:
    """The masks of what moves in a frame, and their ids."""
    masks, ids = clip.moving_masks(at, LEAST_PIXELS)
    ones = np.ones(len(masks), np.float32)
    return Instances(masks, mask_boxes(masks), ones, ones, ones.astype(bool),
                     np.zeros((len(masks), 0), np.float32)), ids


def named(instances: Instances, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((N,) the id in `ids` (H, W) that each instance covers, 0 = none; (ids,) the instance of each
    id, -1 = none).
    """
    areas = np.bincount(ids.ravel())
    table = np.zeros((len(areas), len(instances)))
    for row, mask in enumerate(instances.masks):
        common = np.bincount(ids[mask], minlength=len(areas))
        table[:, row] = common / np.maximum(areas + np.count_nonzero(mask) - common, 1)
    table[0] = 0
    objects, owner = np.zeros(len(instances), np.int64), np.full(len(areas), -1, np.int64)
    for number, row in match(table, LEAST_IOU):
        objects[row], owner[number] = number, row
    return objects, owner


def true_sequence(clip: Clip, channels: int) -> Sequence:
    """What is true of a clip; embeddings are zeros of as many channels."""
    frames, objects = [], []
    for at in range(len(clip)):
        truth, ids = true_instances(clip, at)
        frames.append(replace(tokens(truth, clip.frames[at]),
                              embeddings=np.zeros((len(ids), channels), np.float32)))
        objects.append(ids)
    return Sequence(frames, objects, clip.stamps_ns)


def sequences(found_instances: Iterable[Instances], clip: Clip) -> tuple[Sequence, Sequence]:
    """What was found in each frame of a clip, and what is true."""
    kinds: tuple[list, list, list, list] = ([], [], [], [])
    for at, instances in enumerate(found_instances):
        objects, owner = named(instances, clip.ids[at])
        found = tokens(instances, clip.frames[at])
        truth, ids = true_instances(clip, at)
        there = np.append(found.embeddings, np.zeros_like(found.embeddings, shape=(
            1, found.embeddings.shape[1])), 0)[owner[ids]]
        true = replace(tokens(truth, clip.frames[at]), embeddings=there)
        for kept, new in zip(kinds, (found, objects, true, ids)):
            kept.append(new)
    return (Sequence(kinds[0], kinds[1], clip.stamps_ns),
            Sequence(kinds[2], kinds[3], clip.stamps_ns))


def finder(given: argparse.Namespace) -> tuple[int, Callable[[Clip], Iterator[Instances]]]:
    """Channels of the embeddings, and what finds the instances of a clip's frames."""
    if given.segmenter is None:
        model = load_model(Config(model=given.model, threads=given.threads))
        return embedding_channels(model.card), lambda clip: found_in(model, clip)
    torch.set_num_threads(given.threads)
    network = load_segmenter(given.segmenter)
    return network.config.channels, lambda clip: (read_frame(network, frame).things
                                                  for frame in clip.frames)


def prefix(given: argparse.Namespace) -> str:
    """How the names of the files begin. Raises DatasetError where --out has another segmenter's."""
    if given.segmenter is None:
        return given.model
    digest = hashlib.sha256()  # of the values: the file's header has the time and no fixed order
    for _, value in sorted(read_state(given.segmenter / 'segmenter.safetensors').items()):
        digest.update(value.numpy().tobytes())
    start = f'segmenter-{digest.hexdigest()[:12]}'
    others = [path.name for path in sorted(given.out.glob('segmenter-*.npz'))
              if not path.name.startswith(f'{start}-')]
    if others:
        raise DatasetError(f'{given.out} has {len(others)} files of another segmenter or of other '
                           f'steps, such as {others[0]}; those of {given.segmenter} begin with '
                           f'{start}: give another --out or delete the old')
    return start


def clips(given: argparse.Namespace) -> Iterator[tuple[str, Clip | None]]:
    """(name of the file without its ending, clip), None where it is there already. Raises
    DatasetError.
    """
    end, start = '-truth' if given.truth_only else '', prefix(given)
    if given.clips is None:
        for seed in range(given.seed, given.seed + given.count):
            name = f'{start}-{seed:06d}{end}'
            there = (given.out / f'{name}.npz').exists()
            yield name, None if there else render_clip(PRESET, seed, 'train')
        return
    left = given.count
    for path in sorted(path for folder in given.clips for path in folder.glob('*.npz')):
        for clip in load_shard(path) if left > 0 else ():
            name = f'{start}-{clip.preset}-{clip.seed:06d}{end}'
            left -= 1
            if left >= 0:
                yield name, None if (given.out / f'{name}.npz').exists() else clip


def main(arguments: list[str] | None = None) -> None:
    """Command line; goes on where it ended."""
    parser = argparse.ArgumentParser(description='Cache what a model finds in rendered clips.')
    source = parser.add_mutually_exclusive_group()
    source.add_argument('--model', default='gmos_nano')
    source.add_argument('--segmenter', type=Path,
                        help='instead: the --run of training.train_segmenter')
    parser.add_argument('--clips', type=Path, nargs='+', help='folders of shards; default: render')
    parser.add_argument('--count', type=int, default=100, help='clips')
    parser.add_argument('--seed', type=int, default=0, help='of the first clip rendered')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--truth-only', action='store_true', help='no model runs')
    parser.add_argument('--threads', type=int, default=1)
    given = parser.parse_args(arguments)
    cv2.setNumThreads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    channels, found_by = finder(given)
    for done, (name, clip) in enumerate(clips(given), 1):
        if clip is not None and given.truth_only:
            true_sequence(clip, channels).save(given.out / f'{name}.npz')
        elif clip is not None:
            found, truth = sequences(found_by(clip), clip)
            truth.save(given.out / f'{name}-truth.npz')
            found.save(given.out / f'{name}.npz')
        print(f'\r{done} of {given.count} clips', end='', flush=True)
    print()


if __name__ == '__main__':
    main()
