"""Clips in files: a shard holds some tens of clips of one preset as one uncompressed .npz.

A clip with events keeps its frames as they are. One without events (ordinary video) keeps them as a
camera's video would be: JPEG of quality 95 in 4:2:0, an eighth of the bytes; its ids are lossless
(PNG).
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from mos_perception.errors import BagError
from training.scenes import esim
from training.scenes.clip import Clip

_QUALITY = 95


def save_clips(path: Path, clips: list[Clip]) -> None:
    """Write clips of one size and length as a shard, atomically."""
    objects = max(clip.moving.shape[1] for clip in clips)
    moving = np.zeros((len(clips), len(clips[0]), objects), bool)
    for row, clip in zip(moving, clips):
        row[:, :clip.moving.shape[1]] = clip.moving
    zeros = [int(clip.stamps_ns[0]) - clip.period_ns for clip in clips]
    packed = [esim.pack(clip.events, zero) for clip, zero in zip(clips, zeros)]
    frames = np.stack([clip.frames for clip in clips])
    ids = np.stack([clip.ids for clip in clips]).astype(np.uint8 if objects <= 256 else np.uint16)
    arrays = {
        'stamps_ns': np.stack([clip.stamps_ns for clip in clips]),
        'moving': moving,
        'objects': np.array([clip.moving.shape[1] for clip in clips]),
        'seed': np.array([clip.seed for clip in clips]),
        'preset': np.array([clip.preset for clip in clips]),
        'zero_ns': np.array(zeros),
        'events': np.concatenate(packed),
        'event_ends': np.cumsum([len(part) for part in packed]),
    }
    if any(len(clip.events) for clip in clips):
        arrays |= {'frames': frames, 'ids': ids}
    else:
        arrays |= _encoded('frames', [frame[..., ::-1] for clip in frames for frame in clip],
                           '.jpg')
        arrays |= _encoded('ids', [image for clip in ids for image in clip], '.png')
    part = path.with_name(path.name + f'.{os.getpid()}.part')
    with open(part, 'wb') as file:
        np.savez(file, **arrays)
    part.replace(path)


def _encoded(name: str, images: list[np.ndarray], suffix: str) -> dict[str, np.ndarray]:
    """The images' bytes end to end, and where each one ends."""
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY] if suffix == '.jpg' else []
    files = [cv2.imencode(suffix, np.ascontiguousarray(image), options)[1] for image in images]
    return {f'{name}_bytes': np.concatenate(files),
            f'{name}_ends': np.cumsum([len(file) for file in files])}


def _decoded(data: dict[str, np.ndarray], name: str, shape: tuple[int, int]) -> np.ndarray:
    """(clips, frames, H, W or H, W, 3): the images of `_encoded`, or the array that was stored as
    it is."""
    if name in data:
        return data[name]
    images = [cv2.imdecode(part, cv2.IMREAD_UNCHANGED)
              for part in np.split(data[f'{name}_bytes'], data[f'{name}_ends'][:-1])]
    stack = np.stack(images).reshape(*shape, *images[0].shape)
    return np.ascontiguousarray(stack[..., ::-1]) if name == 'frames' else stack


def load_shard(path: Path) -> list[Clip]:
    """The clips of one shard. Raises BagError for a file that is no shard."""
    try:
        with np.load(path) as shard:
            data = {name: shard[name] for name in shard.files}
        starts = np.concatenate([[0], data['event_ends'][:-1]])
        frames, ids = (_decoded(data, name, data['stamps_ns'].shape) for name in ('frames', 'ids'))
        return [Clip(frames[i], data['stamps_ns'][i],
                     esim.unpack(data['events'][starts[i]:data['event_ends'][i]],
                                 int(data['zero_ns'][i])), ids[i].astype(np.uint16),
                     data['moving'][i, :, :data['objects'][i]], int(data['seed'][i]),
                     str(data['preset'][i])) for i in range(len(starts))]
    except (OSError, KeyError, ValueError, cv2.error) as error:
        raise BagError(f'{path} is not a readable shard of clips ({error}): '
                       'delete it and run the cache command again') from error


def load_clips(folder: Path | str, limit: int | None = None) -> list[Clip]:
    """All clips (or the first `limit`) of a folder's shards, in order of seed. Raises BagError
    where there is none."""
    paths = sorted(Path(folder).glob('*.npz'))
    if not paths:
        raise BagError(f'{folder} holds no shard (*.npz): '
                       f'make some with "python -m training.scenes.cache --out {folder}"')
    clips: list[Clip] = []
    for path in paths:
        clips += load_shard(path)
        if limit is not None and len(clips) >= limit:
            return clips[:limit]
    return clips
