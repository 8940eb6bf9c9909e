"""Clips on disk: `python -m training.scenes.cache --preset train --count 4000 --out runs/clips
--workers 2 --seed 0`.

A shard holds up to 50 clips of consecutive seeds, uncompressed. It is written under another name
and renamed when complete, and one that exists is not made again, so a command that was stopped goes
on where it was.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from mos_perception.errors import ConfigError
from training.scenes.catalog import render_clip, scene_name
from training.scenes.shards import load_clips, load_shard, save_clips
from training.scenes.splits import SPLITS

__all__ = ['load_clips', 'load_shard', 'make_cache', 'save_clips']

SHARD = 50


def _one_thread() -> None:
    import cv2
    import torch
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _make(path: Path, preset: str, split: str, seeds: range) -> int:
    save_clips(path, [render_clip(preset, seed, split) for seed in seeds])
    return len(seeds)


def make_cache(preset: str, split: str, count: int, seed: int, folder: Path, workers: int) -> int:
    """Render the clips of seeds [seed, seed + count) that are not in `folder` yet, with progress;
    returns how many.

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
    with (
        Progress(*columns) as progress,
        ProcessPoolExecutor(workers, context, initializer=_one_thread) as pool,
    ):
        bar = progress.add_task(f'clips {preset}/{split}', total=total, rate='')
        for done in as_completed([pool.submit(_make, path, preset, split, seeds)
                                  for path, seeds in jobs.items()]):
            progress.advance(bar, done.result())
            speed = progress.tasks[0].speed
            progress.update(bar, rate=f'{speed:.1f} clips/s' if speed else '')
    return total


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description='Render clips into a folder of shards.')
    parser.add_argument('--preset', default='train', type=scene_name)
    parser.add_argument('--split', default='train', choices=SPLITS)
    parser.add_argument('--count', type=int, default=1000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, default=Path('runs/clips'))
    parser.add_argument('--workers', type=int, default=os.cpu_count() or 1,
                        help='processes (default: every core)')
    options = parser.parse_args(arguments)
    made = make_cache(options.preset, options.split, options.count, options.seed, options.out,
                      options.workers)
    print(
        f'{made} clips rendered; {options.out} holds {len(list(options.out.glob("*.npz")))} shards'
    )


if __name__ == '__main__':
    main()
