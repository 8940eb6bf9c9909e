"""The thesis' scenes on disk: neighbouring frames, and their truth for who may see it.

`python -m training.datasets.frame_pairs --videos 240 --frames 12 --out runs/mosis2d/train` renders
and packs; `frames.npy` (V, T, H, W, 3) uint8, `ids.npy` (V, T, H, W) uint8, `flow.npy`
(V, T - 1, 2, H, W) float16 px to the next frame, and `set.json`.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from mos_perception.errors import DatasetError
from training.command import command
from training.datasets.mosis2d_wrappers import boxes_of
from training.datasets.source import Source
from training.recipes_mosis import MosisRecipe
from training.scenes.moving_shapes import CORNERS, THESIS, Preset2D, build_scene
from training.scenes.splits import SPLITS

_METADATA = 'set.json'


@dataclass(frozen=True)
class PairBatch:
    """B pairs of neighbouring frames. What follows `second` is truth: losses without labels do not
    touch it.
    """

    first: Tensor
    """(B, 3, H, W) in [0, 1]."""
    second: Tensor
    """(B, 3, H, W) in [0, 1], the next frame."""
    flow: Tensor
    """(B, 2, H, W) px from first to second."""
    masks: list[Tensor]
    """Per pair (D, H, W) bool, of the first frame's visible objects."""
    boxes: list[Tensor]
    """Per pair (D, 4) px corners of the masks, far edges exclusive."""

    def to(self, device: torch.device) -> PairBatch:
        """The batch on a device."""
        return PairBatch(self.first.to(device), self.second.to(device), self.flow.to(device),
                         [mask.to(device) for mask in self.masks],
                         [box.to(device) for box in self.boxes])


def pack_pairs(preset: Preset2D, videos: int, folder: Path, seed: int = 0,
               split: str = 'train') -> None:
    """Render `videos` scenes, seeds from `seed`, into `folder`; the metadata comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    (count, height, width), parts = (preset.frames, *preset.size), {}
    for name, kind, shape in (('frames', np.uint8, (count, height, width, 3)),
                              ('ids', np.uint8, (count, height, width)),
                              ('flow', np.float16, (count - 1, 2, height, width))):
        parts[name] = np.lib.format.open_memmap(folder / f'{name}.npy', 'w+', kind,
                                                (videos, *shape))
    numbers = track(range(videos), 'videos', console=Console(stderr=True))
    for row in numbers:
        scene = build_scene(preset, seed + row, split)
        image, ids = scene.render(np.arange(count))
        image = image.mul(255).round_().clamp_(0, 255).to(torch.uint8)
        parts['frames'][row] = image.permute(0, 2, 3, 1).numpy()
        parts['ids'][row] = ids.numpy()
        parts['flow'][row] = torch.stack([scene.flow(t, ids[t])[0] for t in range(count - 1)])
    for part in parts.values():
        part.flush()
    about = (f'{videos} videos of {count} frames, {preset.name}, objects {preset.objects}, shapes '
             f'{"/".join(preset.shapes)}, split {split}, seeds from {seed}')
    text = json.dumps({'about': about, 'min_visible': preset.min_visible}, indent=1)
    (folder / f'{_METADATA}.part').write_text(text)
    os.replace(folder / f'{_METADATA}.part', folder / _METADATA)


class PairSet(Source):
    """A packed set of pairs, open for reading: `frames`, `ids`, and `min_visible` px, from which
    an object counts.
    """

    recipe: MosisRecipe

    def __init__(self, folder: Path, recipe: MosisRecipe | None = None) -> None:
        """Without a recipe nothing can be drawn. Raises DatasetError: no such set, or frames of
        another size than the recipe's.
        """
        try:
            metadata = json.loads((folder / _METADATA).read_text())
            self.about, self.min_visible = metadata['about'], metadata['min_visible']
            self.frames, self.ids, self._flow = (np.load(folder / f'{name}.npy', mmap_mode='r')
                                                 for name in ('frames', 'ids', 'flow'))
        except (OSError, ValueError, KeyError) as error:
            raise DatasetError(f'{folder} is no set of frame pairs ({error}): make one with '
                               'python -m training.datasets.frame_pairs') from error
        if recipe is None:
            return
        self.recipe, self.seed = recipe, recipe.seed
        if self.size != recipe.size:
            raise DatasetError(f'the frames in {folder} are {self.size}, {recipe.name} takes '
                               f'{recipe.size}: render them at that size')

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frames."""
        return self.frames.shape[2:4]

    @property
    def videos(self) -> int:
        """Their number."""
        return len(self.frames)

    @property
    def pairs(self) -> int:
        """How many a video has."""
        return self.frames.shape[1] - 1

    def with_ids(self, ids: np.ndarray, whose: str) -> PairSet:
        """The frames that have a neighbour on either side, with ids (V, T - 2, H, W) for the truth.

        Raises DatasetError: of other frames than these, or none of them has a neighbour among them.
        """
        if self.pairs < 3:
            raise DatasetError(f'the videos have {self.pairs + 1} frames: must be 4 or more, for '
                               'pairs of those that have a neighbour on either side')
        inner = copy.copy(self)
        inner.frames, inner._flow = self.frames[:, 1:-1], self._flow[:, 1:-1]
        if ids.shape != inner.frames.shape[:-1]:
            raise DatasetError(f'{whose}: labels are {ids.shape}, the frames '
                               f'{inner.frames.shape[:-1]}: make them of the same set')
        inner.ids, inner.about = ids, f'{self.about}, labels: {whose}'
        return inner

    def draw(self, step: int) -> PairBatch:
        """The pairs of a step, mirrored at random along both axes."""
        rng = self.step_rng(step)
        places = rng.integers(self.videos * self.pairs, size=self.recipe.batch)
        places = np.stack([places // self.pairs, places % self.pairs], 1)
        return self.batch(places, rng.random((len(places), 2)) < self.recipe.flip)

    def batch(self, places: np.ndarray, mirrored: np.ndarray | None = None) -> PairBatch:
        """The pairs at `places` (B, 2) of (video, frame); `mirrored` (B, 2) bool by x and y."""
        mirrored = np.zeros((len(places), 2), bool) if mirrored is None else mirrored
        firsts, seconds, flows, masks = [], [], [], []
        for (video, t), turned in zip(places, mirrored):
            flow = torch.from_numpy(self._flow[video, t].astype(np.float32))
            ids = torch.from_numpy(self.ids[video, t].copy())
            pair = torch.from_numpy(self.frames[video, t:t + 2].copy())
            pair = pair.permute(0, 3, 1, 2) / 255
            axes = [-1 - axis for axis in range(2) if turned[axis]]
            flow = flow * (1 - 2 * torch.from_numpy(turned).float())[:, None, None]
            pair, ids, flow = (value.flip(axes) for value in (pair, ids, flow))
            areas = torch.bincount(ids.flatten().long())
            areas[0] = 0
            objects = torch.nonzero(areas >= self.min_visible).flatten()
            firsts.append(pair[0])
            seconds.append(pair[1])
            flows.append(flow)
            masks.append(ids == objects[:, None, None])
        return PairBatch(torch.stack(firsts), torch.stack(seconds), torch.stack(flows), masks,
                         [boxes_of(mask) for mask in masks])


@command('frame_pairs')
def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description='Render pairs of frames of the thesis\' scenes.')
    option = parser.add_argument
    option('--videos', type=int, default=24, help='the thesis has 24 of 120 frames')
    option('--frames', type=int, default=THESIS.frames)
    option('--objects', type=int, nargs=2, default=THESIS.objects, metavar=('LEAST', 'MOST'))
    option('--shapes', nargs='+', choices=sorted(CORNERS), default=THESIS.shapes)
    option('--split', choices=SPLITS, default='train')
    option('--seed', type=int, default=0, help='of the first video')
    option('--out', type=Path, required=True)
    args = parser.parse_args(arguments)
    preset = replace(THESIS, frames=args.frames, objects=tuple(args.objects),
                     shapes=tuple(args.shapes))
    pack_pairs(preset, args.videos, args.out, args.seed, args.split)
    return 0


if __name__ == '__main__':
    sys.exit(main())
