"""Clips on disk: `python -m training.scenes.cache --preset train --count 4000 --out runs/clips --workers 2 --seed 0`.

A shard holds up to 50 clips of consecutive seeds, uncompressed. It is written under another name and renamed when
complete, and one that exists is not made again, so a command that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from mos_perception.errors import BagError, ConfigError
from training.scenes import esim
from training.scenes.catalog import SCENES, render_clip
from training.scenes.clip import Clip
from training.scenes.splits import SPLITS

SHARD = 50


def save_clips(path: Path, clips: list[Clip]) -> None:
    """Write clips of one size and length as a shard, atomically."""
    objects = max(clip.moving.shape[1] for clip in clips)
    moving = np.zeros((len(clips), len(clips[0]), objects), bool)
    for row, clip in zip(moving, clips):
        row[:, :clip.moving.shape[1]] = clip.moving
    zeros = [int(clip.stamps_ns[0]) - clip.period_ns for clip in clips]
    packed = [esim.pack(clip.events, zero) for clip, zero in zip(clips, zeros)]
    arrays = {
        'frames': np.stack([clip.frames for clip in clips]),
        'stamps_ns': np.stack([clip.stamps_ns for clip in clips]),
        'ids': np.stack([clip.ids for clip in clips]).astype(np.uint8 if objects <= 256 else np.uint16),
        'moving': moving,
        'objects': np.array([clip.moving.shape[1] for clip in clips]),
        'seed': np.array([clip.seed for clip in clips]),
        'preset': np.array([clip.preset for clip in clips]),
        'zero_ns': np.array(zeros),
        'events': np.concatenate(packed),
        'event_ends': np.cumsum([len(part) for part in packed]),
    }
    part = path.with_name(path.name + f'.{os.getpid()}.part')
    with open(part, 'wb') as file:
        np.savez(file, **arrays)
    part.replace(path)


def load_shard(path: Path) -> list[Clip]:
    """The clips of one shard. Raises BagError for a file that is no shard."""
    try:
        with np.load(path) as shard:
            data = {name: shard[name] for name in shard.files}
        starts = np.concatenate([[0], data['event_ends'][:-1]])
        return [Clip(data['frames'][i], data['stamps_ns'][i],
                     esim.unpack(data['events'][starts[i]:data['event_ends'][i]], int(data['zero_ns'][i])),
                     data['ids'][i].astype(np.uint16), data['moving'][i, :, :data['objects'][i]], int(data['seed'][i]),
                     str(data['preset'][i])) for i in range(len(starts))]
    except (OSError, KeyError, ValueError) as error:
        raise BagError(f'{path} is not a readable shard of clips ({error}): '
                       'delete it and run the cache command again') from error


def load_clips(folder: Path | str, limit: int | None = None) -> list[Clip]:
    """All clips (or the first `limit`) of a folder's shards, in order of seed. Raises BagError where there is none."""
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


def _one_thread() -> None:
    import torch
    torch.set_num_threads(1)


def _make(path: Path, preset: str, split: str, seeds: range) -> int:
    save_clips(path, [render_clip(preset, seed, split) for seed in seeds])
    return len(seeds)


def make_cache(preset: str, split: str, count: int, seed: int, folder: Path, workers: int) -> int:
    """Render the clips of seeds [seed, seed + count) that are not in `folder` yet, with progress; returns how many.

    Raises ConfigError for a count or a number of workers below 1.
    """
    if min(count, workers) < 1:
        raise ConfigError(f'count {count} and workers {workers} must be 1 or more: change them')
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    folder.mkdir(parents=True, exist_ok=True)
    jobs = {}
    for first in range(seed, seed + count, SHARD):
        seeds = range(first, min(first + SHARD, seed + count))
        path = folder / f'{preset}-{split}-{first:08d}-{len(seeds)}.npz'
        if not path.exists():
            jobs[path] = seeds
    total = sum(len(seeds) for seeds in jobs.values())
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn(),
               TextColumn('{task.fields[rate]}'))
    context = multiprocessing.get_context('spawn')
    with Progress(*columns) as progress, ProcessPoolExecutor(workers, context, initializer=_one_thread) as pool:
        bar = progress.add_task(f'clips {preset}/{split}', total=total, rate='')
        for done in as_completed([pool.submit(_make, path, preset, split, seeds) for path, seeds in jobs.items()]):
            progress.advance(bar, done.result())
            speed = progress.tasks[0].speed
            progress.update(bar, rate=f'{speed:.1f} clips/s' if speed else '')
    return total


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description='Render clips into a folder of shards.')
    parser.add_argument('--preset', default='train', choices=SCENES)
    parser.add_argument('--split', default='train', choices=SPLITS)
    parser.add_argument('--count', type=int, default=1000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, default=Path('runs/clips'))
    parser.add_argument('--workers', type=int, default=2)
    options = parser.parse_args(arguments)
    made = make_cache(options.preset, options.split, options.count, options.seed, options.out, options.workers)
    print(f'{made} clips rendered; {options.out} holds {len(list(options.out.glob("*.npz")))} shards')


if __name__ == '__main__':
    main()
