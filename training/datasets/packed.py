"""Rendered clips -> one packed, memory-mapped set.

`python -m training.datasets.packed --clips runs/clips_train runs/clips_mid --out runs/set` packs
cached clips.

A sample is a frame i >= 1 of a clip with the events of (stamp - window, stamp].
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mos_perception.errors import ConfigError
from training.datasets.arrays import clip_arrays
from training.datasets.batches import make_batch, neighbour
from training.datasets.source import Batch, Source
from training.recipes import RECIPES, Augmentation, Recipe
from training.scenes.clip import Clip
from training.scenes.shards import load_shard


def pack(clips: Iterable[Clip], count: int, folder: Path, recipe: Recipe, about: str = '') -> int:
    """Write `count` clips as .npy files into `folder`; returns the number written.

    Fewer clips than announced shorten the set; clips must agree in their number of frames. Raises
    ConfigError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    written = 0
    for clip in itertools.islice(clips, count):
        rows = clip_arrays(clip, recipe)
        if not arrays:
            arrays = {name: np.lib.format.open_memmap(folder / f'{name}.npy', 'w+', row.dtype,
                                                      (count, *row.shape))
                      for name, row in rows.items()}
        if rows['images'].shape != arrays['images'].shape[1:]:
            raise ConfigError(f'clip {written} has {len(clip)} frames: this set takes clips of '
                              f'{arrays["images"].shape[1]} frames, pack the others apart')
        for name, row in rows.items():
            arrays[name][written] = row
        written += 1
    for array in arrays.values():
        array.flush()
    metadata = {'clips': written, 'about': about, **_made_for(recipe)}
    (folder / 'set.json').write_text(json.dumps(metadata, indent=1))
    return written


class PackedSet(Source):
    """A packed set, open for reading."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        """Raises ConfigError if the folder holds no set or one packed for other settings."""
        try:
            metadata = json.loads((folder / 'set.json').read_text())
        except OSError as error:
            raise ConfigError(f'no packed set in {folder} ({error}): '
                              'run python -m training.datasets.packed') from error
        wanted = _made_for(recipe)
        found = {name: metadata.get(name) for name in wanted}
        if found != wanted:
            raise ConfigError(f'the set in {folder} was packed with {found}, the recipe needs '
                              f'{wanted}: pack it again')
        self.recipe, self.seed, self.about = recipe, recipe.seed, metadata['about']
        self.images = _mapped(folder, 'images')
        self.voxels = _mapped(folder, 'voxels')
        self.ids = _mapped(folder, 'ids')
        self.moving = _mapped(folder, 'moving')
        self.flows = None
        if recipe.weights.true_flow:
            if not (folder / 'flows.npy').exists():
                raise ConfigError(f'the set in {folder} holds no flow, {recipe.name} needs it: '
                                  'pack it again')
            self.flows = _mapped(folder, 'flows')
        self.evidence = _mapped(folder, 'evidence') if recipe.evidence else None
        self.clips, self.frames = metadata['clips'], self.images.shape[1]
        if self.frames <= recipe.frames:
            raise ConfigError(f'the set in {folder} has clips of {self.frames} frames, '
                              f'{recipe.name} needs {recipe.frames + 1}: pack longer clips')

    def __len__(self) -> int:
        return self.clips * (self.frames - 1)

    def draw(self, step: int) -> Batch:
        """The training batch of a step: samples drawn uniformly, with replacement."""
        rng = self.step_rng(step)
        samples = rng.integers(len(self), size=self.recipe.batch)
        return self.batch(samples, rng, self.recipe.augment)

    def batch(self, samples: np.ndarray, rng: np.random.Generator,
              augment: Augmentation | None) -> Batch:
        """The samples (indices below len) as tensors, augmented unless `augment` is None."""
        clips, frames = np.divmod(samples, self.frames - 1)
        if self.recipe.frames == 2:
            clips = np.tile(clips, 2)
            frames = np.concatenate([frames, neighbour(frames, self.frames - 2)])
        return make_batch(
            images=self.images[clips, frames + 1],
            previous=self.images[clips, frames],
            ids=self.ids[clips, frames + 1],
            voxels=self.voxels[clips, frames],
            moving=self.moving[clips, frames + 1],
            recipe=self.recipe,
            rng=rng,
            augment=augment,
            flows=None if self.flows is None else self.flows[clips, frames],
            evidence=None if self.evidence is None else self.evidence[clips, frames],
        )


def _made_for(recipe: Recipe) -> dict:
    """What of a recipe a packed set depends on, as JSON gives it back."""
    made_for = {'size': recipe.net.size, 'voxel': asdict(recipe.voxel),
                'window_ns': recipe.window_ns}
    if recipe.evidence:
        made_for |= {'evidence': asdict(recipe.evidence), 'compensated': recipe.compensated}
    return json.loads(json.dumps(made_for))


def _mapped(folder: Path, name: str) -> np.ndarray:
    return np.load(folder / f'{name}.npy', mmap_mode='r')


def main(arguments: list[str] | None = None) -> None:
    """Command line: pack shards of cached clips."""
    parser = argparse.ArgumentParser(
        description='Pack cached clips into the memory-mapped arrays that training reads.')
    parser.add_argument('--clips', type=Path, nargs='+', required=True,
                        help='folders of training.scenes.cache')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--recipe', choices=sorted(RECIPES), default='dimos_nano')
    args = parser.parse_args(arguments)
    shards = {folder: sorted(folder.glob('*.npz')) for folder in args.clips}
    # <preset>-<split>-<first seed>-<clips>.npz
    counts = {folder: sum(int(path.stem.rsplit('-', 1)[1]) for path in paths)
              for folder, paths in shards.items()}
    count = sum(counts.values())
    if not count:
        raise ConfigError(f'no clips in {", ".join(map(str, shards))}: '
                          'run python -m training.scenes.cache first')
    about = ', '.join(f'{number} clips of {folder.name}' for folder, number in counts.items())
    paths = itertools.chain.from_iterable(shards.values())
    clips = itertools.chain.from_iterable(map(load_shard, paths))
    done = pack(clips, count, args.out, RECIPES[args.recipe], about)
    print(f'{args.out}: {done} clips packed ({about})')


if __name__ == '__main__':
    main()
