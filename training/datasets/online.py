"""Scenes rendered while training: no disk, no end.

`python -m training.train --online train,mid=2 --workers 2 ...`

Clip c is the preset drawn with weights by (seed, c), with its own seed; which sample is of which
clip is settled beforehand (see `schedule`). Memory holds the R D clips of `cache_gb` (R draws of a
clip, D clips to a block). Without a cache R is 1: every clip is new. The first block needs R D
clips at once, so the first R D samples come at the pace of rendering. On one device the bytes are
the same for any number of workers; 'cpu' and 'cuda' differ by rounding.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

import numpy as np

from mos_perception.errors import ConfigError
from training.datasets.arrays import MAX_IDS, clip_arrays
from training.datasets.batches import make_batch, neighbour
from training.datasets.schedule import Schedule
from training.datasets.source import Batch, Source
from training.datasets.workers import Workers
from training.recipes import Augmentation, Recipe
from training.scenes.catalog import AnyPreset, find_scene, render_clip
from training.scenes.splits import generator

_CACHED_REUSE = 8  # default of `reuse` with a cache
_NEW_BLOCK = 64    # clips to a block without a cache: only the order within it is at stake


def parse_presets(text: str) -> dict[AnyPreset, float]:
    """'train,mid=2' -> presets with weights.

    Raises ConfigError for an unknown name or a weight that is no number.
    """
    weights: dict[AnyPreset, float] = {}
    for part in text.split(','):
        name, _, weight = part.partition('=')
        try:
            preset = find_scene(name.strip())
            weights[preset] = weights.get(preset, 0.0) + float(weight or 1)
        except ValueError as error:
            raise ConfigError(f'weight "{weight}" of preset {name} is no number: '
                              f'write {name}=2') from error
    return weights


def render_arrays(preset: AnyPreset, seed: int, split: str, device: str,
                  recipe: Recipe) -> dict[str, np.ndarray]:
    """The arrays of one clip that training needs (see `clip_arrays`), rendered on the device."""
    return clip_arrays(render_clip(preset, seed, split, device), recipe)


class OnlineSet(Source):
    """An endless set: `draw(step)` gives the batch that (seed, step) names.

    It renders ahead in the background.
    """

    def __init__(self, presets: str | AnyPreset | Mapping[AnyPreset, float], recipe: Recipe,
                 seed: int | None = None, *, split: str = 'train', workers: int = 1,
                 device: str = 'cpu', cache_gb: float = 0.0, reuse: int = 0,
                 ahead: int = 0) -> None:
        """`presets`: a name, 'train,mid=2', or presets with weights; `seed`: default the recipe's.

        `workers`: processes that render, 0 = the caller does. `cache_gb`: memory for clips to draw
        again; `reuse`: samples drawn of each (default 8 with a cache, else 1). `ahead`: clips
        rendered before they are needed, at most (default: a batch and 4 per worker). Raises
        ConfigError.
        """
        if isinstance(presets, str):
            presets = parse_presets(presets)
        self.weights = dict(presets) if isinstance(presets, Mapping) else {presets: 1.0}
        self.recipe, self.split, self.device = recipe, split, device
        self.seed = recipe.seed if seed is None else seed
        reuse = reuse or (_CACHED_REUSE if cache_gb else 1)
        self._check(workers, cache_gb, reuse)
        block, window = _NEW_BLOCK, 1
        if cache_gb:
            block = max(1, int(cache_gb * 1e9 / reuse / self._clip_bytes()))
            window = reuse * block
        self.schedule = Schedule(self.seed, reuse, block)
        self.ahead = ahead or recipe.batch + 4 * workers
        names = ', '.join(f'{preset.name}={weight:g}' for preset, weight in self.weights.items())
        self.about = (f'online {names}, split {split}, seed {self.seed}, on {device}, each clip '
                      f'drawn {reuse} times in a window of {window} clips')
        self._clips: dict[int, dict[str, np.ndarray]] = {}
        self._asked: set[int] = set()
        self._next_step = self._cursor = 0
        self._rendered = self._fresh = 0
        self._waited, self._since = 0.0, time.monotonic()
        self._workers = Workers(workers, render_arrays)

    def draw(self, step: int) -> Batch:
        """The training batch of a step. Steps in order are fast; any other begins anew there."""
        first = step * self.recipe.batch
        if step != self._next_step:
            self._seek(first)
        samples = [self.schedule.at(sample) for sample in range(first, first + self.recipe.batch)]
        rng = self.step_rng(step)
        self._plan(first)
        frames = [(clip, self._frame(clip, stream)) for clip, stream in samples]
        batch = self.batch(frames, rng, self.recipe.augment)
        for clip, stream in samples:
            if stream == self.schedule.reuse - 1:
                self._clips.pop(clip, None)
        self._next_step = step + 1
        self._plan(first + self.recipe.batch)
        return batch

    def batch(self, samples: list[tuple[int, int]], rng: np.random.Generator,
              augment: Augmentation | None) -> Batch:
        """The samples (clip, frame >= 1) as tensors, augmented unless `augment` is None."""
        rows = [(self._clip(clip), frame) for clip, frame in samples]
        if self.recipe.frames == 2:
            for arrays, frame in list(rows):
                last = len(arrays['images']) - 2
                rows.append((arrays, 1 + int(neighbour(frame - 1, last))))

        def stack(name: str, back: int = 0) -> np.ndarray:
            return np.stack([arrays[name][frame - back] for arrays, frame in rows])

        return make_batch(
            images=stack('images'),
            previous=stack('images', back=1),
            ids=stack('ids'),
            voxels=stack('voxels', back=1),
            moving=stack('moving'),
            recipe=self.recipe,
            rng=rng,
            augment=augment,
            flows=stack('flows', back=1) if self.recipe.weights.true_flow else None,
            evidence=stack('evidence', back=1) if self.recipe.evidence else None,
        )

    def scene(self, clip: int) -> tuple[AnyPreset, int]:
        """(preset, scene seed) of a clip."""
        presets = list(self.weights)
        shares = np.array([self.weights[preset] for preset in presets])
        rng = np.random.default_rng((self.seed, 2, clip))
        chosen = rng.choice(len(presets), p=shares / shares.sum())
        return presets[chosen], (self.seed << 32) + clip

    def report(self) -> dict[str, float]:
        """Since last asked: new samples per second, draws of a clip, share of time waited."""
        now = time.monotonic()
        passed = max(now - self._since, 1e-9)
        numbers = {
            'rendered_per_s': round(self._fresh / passed, 1),
            'reuse': self.schedule.reuse,
            'waited': round(self._waited / passed, 3),
        }
        self._fresh, self._waited, self._since = 0, 0.0, now
        return numbers

    def close(self) -> None:
        """Stop the workers."""
        self._workers.close()
        self._clips.clear()

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers."""
        return self._workers.pids

    def _check(self, workers: int, cache_gb: float, reuse: int) -> None:
        generator(0, self.split, 0)  # raises for an unknown split
        for preset, weight in self.weights.items():
            if not 0 < weight < float('inf'):
                raise ConfigError(f'the weight of preset {preset.name} is {weight:g}: '
                                  'it must be above 0')
        possible = workers >= 0 and 0 <= cache_gb < 1e6 and reuse >= 1 and 0 <= self.seed < 2**31
        if not self.weights or not possible:
            raise ConfigError(f'{len(self.weights)} presets, workers {workers}, cache {cache_gb} '
                              f'GB, reuse {reuse}, seed {self.seed}: give a preset, nothing below '
                              '0 and a seed below 2^31')
        if reuse > 1 and not cache_gb:
            raise ConfigError(f'each clip is to be drawn {reuse} times, which needs memory to keep '
                              'it: give --cache-gb')
        needed = 1 + self.recipe.frames
        if short := [preset for preset in self.weights if preset.frame_count < needed]:
            raise ConfigError(f'clips of preset {short[0].name} have {short[0].frame_count} '
                              f'frames, a sample needs {needed}: use a longer duration_s')

    def _clip_bytes(self) -> int:
        """Bytes of the longest clip's arrays."""
        pixels = self.recipe.net.size[0] * self.recipe.net.size[1]
        frames = max(preset.frame_count for preset in self.weights)
        planes = 2 * self.recipe.voxel.bins + 0.5 * bool(self.recipe.weights.true_flow)
        return frames * (4 * pixels + MAX_IDS + 1) + int((frames - 1) * planes * pixels)

    def _frame(self, clip: int, stream: int) -> int:
        """The frame that the stream takes of a clip."""
        frames = len(self._clip(clip)['images']) - 1
        order = np.random.default_rng((self.seed, 3, clip, stream // frames)).permutation(frames)
        return 1 + int(order[stream % frames])

    def _seek(self, sample: int) -> None:
        """Begin anew at a sample."""
        self._workers.cancel()
        self._asked.clear()
        self._clips.clear()
        self._cursor = sample

    def _plan(self, sample: int) -> None:
        """Ask for the clips that the samples from `sample` on need, in that order.

        As far ahead as allowed.
        """
        self._cursor = max(self._cursor, sample)
        limit = sample + self.recipe.batch
        while self._cursor < limit or len(self._asked) < self.ahead:
            self._ask(self.schedule.at(self._cursor)[0])
            self._cursor += 1

    def _ask(self, clip: int, first: bool = False) -> None:
        if clip not in self._clips and clip not in self._asked:
            self._asked.add(clip)
            job = (*self.scene(clip), self.split, self.device, self.recipe)
            self._workers.submit(clip, job, first)

    def _clip(self, clip: int) -> dict[str, np.ndarray]:
        """A clip's arrays, waiting for them."""
        if clip not in self._clips:
            begun = time.monotonic()
            self._ask(clip, first=True)
            self._clips[clip] = self._workers.take(clip, lambda seconds: self._note(clip, seconds))
            self._asked.discard(clip)
            self._rendered += 1
            self._fresh += len(self._clips[clip]['images']) - 1
            self._waited += time.monotonic() - begun
        return self._clips[clip]

    def _note(self, clip: int, seconds: float) -> None:
        preset, seed = self.scene(clip)
        print(f'waiting {seconds:.0f} s for clip {clip} ({preset.name}, seed {seed}); '
              f'{self._rendered} rendered so far', file=sys.stderr, flush=True)
