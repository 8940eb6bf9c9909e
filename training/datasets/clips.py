"""Rendered clips -> one packed, memory-mapped set -> augmented batches.

`python -m training.datasets.clips --clips runs/clips_train runs/clips_mid --out runs/set` packs cached clips.

Shapes: N clips, T frames, K object ids, H W the network's size. A sample is a frame i >= 1 of a clip with the events of
(stamp - window, stamp]; the voxels are stored after normalisation, as uint8 (x 255).
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mos_perception.errors import ConfigError
from mos_perception.events.voxel import voxelize
from mos_perception.masks import mask_boxes
from training.datasets.flows import decoded, mirrored, true_flows
from training.datasets.source import Batch, Source
from training.losses.matching import Targets
from training.recipes import RECIPES, Augmentation, Recipe, VoxelSettings
from training.scenes.cache import load_shard
from training.scenes.clip import Clip

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
MAX_IDS = 63


def pack(clips: Iterable[Clip], count: int, folder: Path, recipe: Recipe, about: str = '') -> int:
    """Write `count` clips as .npy files into `folder`; returns the number written.

    Fewer clips than announced shorten the set; clips must agree in their number of frames. Raises ConfigError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    written = 0
    for clip in itertools.islice(clips, count):
        rows = clip_arrays(clip, recipe)
        if not arrays:
            arrays = {name: np.lib.format.open_memmap(folder / f'{name}.npy', 'w+', np.uint8, (count, *row.shape))
                      for name, row in rows.items()}
        if rows['images'].shape != arrays['images'].shape[1:]:
            raise ConfigError(f'clip {written} has {len(clip)} frames: this set takes clips of '
                              f'{arrays["images"].shape[1]} frames, pack the others apart')
        for name, row in rows.items():
            arrays[name][written] = row
        written += 1
    for array in arrays.values():
        array.flush()
    (folder / 'set.json').write_text(json.dumps({
        'clips': written, 'about': about, 'size': recipe.net.size, 'voxel': asdict(recipe.voxel),
        'window_ns': recipe.window_ns}, indent=1))
    return written


def clip_arrays(clip: Clip, recipe: Recipe) -> dict[str, np.ndarray]:
    """What training needs of a clip at the network's size, each uint8.

    `images` (T, H, W, 3), `ids` (T, H, W), `voxels` (T - 1, C, H, W) x 255 of the windows that end at frame 1 and
    later, `moving` (T, 64); with a loss on it `flows` (T - 1, 2, H/2, W/2), see `flows.true_flows`. Raises ConfigError
    for more than 63 objects.
    """
    size, objects = recipe.net.size, clip.moving.shape[1]
    if objects > MAX_IDS + 1:
        raise ConfigError(f'clip {clip.seed} of {clip.preset} has {objects - 1} objects: training takes at most '
                          f'{MAX_IDS}, lower the preset\'s movers or look_alikes')
    voxels = [np.rint(window_voxel(clip, i, recipe.voxel, recipe.window_ns, size) * 255) for i in range(1, len(clip))]
    moving = np.zeros((len(clip), MAX_IDS + 1), np.uint8)
    moving[:, :objects] = clip.moving
    ids = [cv2.resize(image, size[::-1], interpolation=cv2.INTER_NEAREST) for image in clip.ids]
    arrays = {'images': np.stack([resized(frame, size) for frame in clip.frames]),
              'ids': np.stack(ids).astype(np.uint8), 'voxels': np.stack(voxels).astype(np.uint8), 'moving': moving}
    return arrays | ({'flows': true_flows(clip, size)} if recipe.weights.true_flow else {})


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 at `size`: by area where it shrinks, as the runtime does."""
    shrinks = image.shape[0] >= size[0] and image.shape[1] >= size[1]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def window_voxel(clip: Clip, frame: int, settings: VoxelSettings, window_ns: int, size: tuple[int, int]) -> np.ndarray:
    """The runtime's voxel (C, H, W) float32 of the window that ends at a frame of a clip."""
    return voxelize(clip.window(frame, window_ns), out_size=size, threads=1, **asdict(settings))


class PackedSet(Source):
    """A packed set, open for reading."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        """Raises ConfigError if the folder holds no set or one packed for other settings."""
        try:
            about = json.loads((folder / 'set.json').read_text())
        except OSError as error:
            raise ConfigError(f'no packed set in {folder} ({error}): run python -m training.datasets.clips') from error
        wanted = {'size': list(recipe.net.size), 'voxel': asdict(recipe.voxel), 'window_ns': recipe.window_ns}
        found = {name: about.get(name) for name in wanted}
        if found != wanted:
            raise ConfigError(f'the set in {folder} was packed with {found}, the recipe needs {wanted}: pack it again')
        self.recipe, self.seed, self.about = recipe, recipe.seed, about['about']
        self.images, self.voxels, self.ids, self.moving = (
            np.load(folder / f'{name}.npy', mmap_mode='r') for name in ('images', 'voxels', 'ids', 'moving'))
        self.flows = None
        if recipe.weights.true_flow:
            if not (folder / 'flows.npy').exists():
                raise ConfigError(f'the set in {folder} holds no flow, {recipe.name} needs it: pack it again')
            self.flows = np.load(folder / 'flows.npy', mmap_mode='r')
        self.clips, self.frames = about['clips'], self.images.shape[1]
        if self.frames <= recipe.frames:
            raise ConfigError(f'the set in {folder} has clips of {self.frames} frames, {recipe.name} needs '
                              f'{recipe.frames + 1}: pack longer clips')

    def __len__(self) -> int:
        return self.clips * (self.frames - 1)

    def draw(self, step: int) -> Batch:
        """The training batch of a step: samples drawn uniformly, with replacement."""
        rng = self.step_rng(step)
        return self.batch(rng.integers(len(self), size=self.recipe.batch), rng, self.recipe.augment)

    def batch(self, samples: np.ndarray, rng: np.random.Generator, augment: Augmentation | None) -> Batch:
        """The samples (indices below len) as tensors, augmented unless `augment` is None."""
        clips, frames = np.divmod(samples, self.frames - 1)
        if self.recipe.frames == 2:
            clips, frames = np.tile(clips, 2), np.concatenate([frames, neighbour(frames, self.frames - 2)])
        flows = None if self.flows is None else self.flows[clips, frames]
        return make_batch(self.images[clips, frames + 1], self.images[clips, frames], self.ids[clips, frames + 1],
                          self.voxels[clips, frames], self.moving[clips, frames + 1], self.recipe, rng, augment, flows)


def neighbour(frames: np.ndarray, last: int) -> np.ndarray:
    """The frame after each, or before it at the `last` one."""
    return np.where(frames < last, frames + 1, frames - 1)


def make_batch(images: np.ndarray, previous: np.ndarray, ids: np.ndarray, voxels: np.ndarray, moving: np.ndarray,
               recipe: Recipe, rng: np.random.Generator, augment: Augmentation | None,
               flows: np.ndarray | None = None) -> Batch:
    """B samples, stacked rows of `clip_arrays`, as tensors; they are changed in place unless `augment` is None.

    With two frames a sample the second frames follow the first ones and are augmented as they are.
    """
    samples = len(images) // recipe.frames
    if augment:
        for sample in range(samples):
            flips, swap = rng.random(2) < augment.flip, rng.random() < augment.polarity_swap
            for row in range(sample, len(images), samples):
                for axis in np.flatnonzero(flips):
                    images[row], previous[row], ids[row] = (np.flip(x[row], axis) for x in (images, previous, ids))
                    voxels[row] = np.flip(voxels[row], 1 + axis)
                    if flows is not None:
                        flows[row] = mirrored(flows[row], axis)
                if swap:
                    voxels[row] = np.roll(voxels[row], voxels.shape[1] // 2, 0)
    truths = [instances(*pair, recipe) for pair in zip(ids, moving)]
    clean, voxel = normalised(images), torch.from_numpy(voxels).float() / 255
    image = clean
    if augment:
        image, voxel = jitter_and_drop(clean, voxel, rng, augment, recipe.frames)
    flow = None if flows is None else decoded(flows, voxel)
    return Batch(image, voxel, clean, normalised(previous), collate(truths, recipe), flow)


def normalised(images: np.ndarray) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32, ImageNet mean and deviation (channels last in memory)."""
    scale, shift = torch.from_numpy(1 / (255 * STD)), torch.from_numpy(MEAN / STD)
    return (torch.from_numpy(images).float() * scale - shift).permute(0, 3, 1, 2)


def jitter_and_drop(image: Tensor, voxel: Tensor, rng: np.random.Generator, augment: Augmentation,
                    frames: int = 1) -> tuple[Tensor, Tensor]:
    """Brightness and contrast of the image, then a missing modality as zeros; never both of one sample.

    The `frames` blocks of samples share their draws.
    """
    count = len(image) // frames
    contrast = 1 + rng.uniform(-augment.contrast, augment.contrast, (count, 1, 1, 1)).astype(np.float32)
    shift = rng.uniform(-augment.brightness, augment.brightness, (count, 1, 1, 1)).astype(np.float32) / STD.mean()
    draw = rng.random(count)
    contrast, shift, draw = (np.concatenate([value] * frames) for value in (contrast, shift, draw))
    no_image = draw < augment.drop_image
    no_events = (draw >= augment.drop_image) & (draw < augment.drop_image + augment.drop_events)
    keep_image, keep_events = (torch.from_numpy((~gone).astype(np.float32))[:, None, None, None]
                               for gone in (no_image, no_events))
    return (image * torch.from_numpy(contrast) + torch.from_numpy(shift)) * keep_image, voxel * keep_events


def instances(ids: np.ndarray, moving: np.ndarray, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Masks (M, H, W) bool of the movers, largest first, and boxes (M, 4) xyxy px with exclusive far edges.

    Movers under `min_pixels`, and the smallest beyond the number of queries less one, belong to the background. With
    `empty_masks` absent movers follow, their boxes -1.
    """
    areas = np.bincount(ids.ravel(), minlength=len(moving))[:len(moving)]
    areas = np.where(moving.astype(bool), areas, 0)
    areas[0] = 0
    chosen = [k for k in np.argsort(-areas, kind='stable')[:recipe.net.queries - 1] if areas[k] >= recipe.min_pixels]
    if recipe.empty_masks:
        absent = [k for k in range(1, max(chosen, default=0)) if moving[k] and not (ids == k).any()]
        chosen = (chosen + absent)[:recipe.net.queries - 1]
    masks = ids[None] == np.array(chosen, ids.dtype)[:, None, None]
    boxes = mask_boxes(masks)
    boxes[~boxes.any(1)] = -1
    return masks, boxes


def collate(truths: list[tuple[np.ndarray, np.ndarray]], recipe: Recipe) -> Targets:
    """Padded targets with the background as row 0, masks area-averaged to 1 / mask_stride."""
    most = 1 + max(len(masks) for masks, _ in truths)
    labels = torch.full((len(truths), most), -1, dtype=torch.int64)
    full = torch.zeros((len(truths), most, *recipe.net.size))
    boxes = torch.full((len(truths), most, 4), -1.0)
    for row, (masks, corners) in enumerate(truths):
        count = 1 + len(masks)
        labels[row, :count] = 1
        labels[row, 0] = 0
        full[row, 0] = torch.from_numpy(~masks.any(0)).float()
        full[row, 1:count] = torch.from_numpy(masks).float()
        boxes[row, 1:count] = torch.from_numpy(corners)
    return Targets(labels, F.avg_pool2d(full, recipe.mask_stride), boxes)


def main(arguments: list[str] | None = None) -> None:
    """Command line: pack shards of cached clips."""
    parser = argparse.ArgumentParser(description='Pack cached clips into the memory-mapped arrays that training reads.')
    parser.add_argument('--clips', type=Path, nargs='+', required=True, help='folders of training.scenes.cache')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--recipe', choices=sorted(RECIPES), default='dimos_nano')
    given = parser.parse_args(arguments)
    shards = {folder: sorted(folder.glob('*.npz')) for folder in given.clips}
    # <preset>-<split>-<first seed>-<clips>.npz
    counts = {folder: sum(int(path.stem.rsplit('-', 1)[1]) for path in paths) for folder, paths in shards.items()}
    count = sum(counts.values())
    if not count:
        raise ConfigError(f'no clips in {", ".join(map(str, shards))}: run python -m training.scenes.cache first')
    about = ', '.join(f'{number} clips of {folder.name}' for folder, number in counts.items())
    clips = (clip for paths in shards.values() for path in paths for clip in load_shard(path))
    done = pack(clips, count, given.out, RECIPES[given.recipe], about)
    print(f'{given.out}: {done} clips packed ({about})')


if __name__ == '__main__':
    main()
