"""Motion evidence of rendered clips, computed once: `python -m training.video_cache --clips
FOLDER... --out FOLDER`.

A shard of clips becomes `NAME.evidence.npy` (N, C, H, W) int8 in steps of 6 / 127, `NAME.image.npy`
(N, 3, H, W) uint8 RGB and `NAME.label.npy` (N, H, W) uint8: 0, or 1, 2, ... for each object that
moves. Arrays are read through mmap.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from mos_perception.motion.evidence import EvidenceSpec, channel_count, evidence
from mos_perception.motion.flow import pixel_grid, warp
from training.scenes.clip import Clip
from training.scenes.shards import load_shard

STEP = 6 / 127
GAPS = ((1, 3), (1, 3), (1, 4), (2, 4))  # in frames of 24 Hz: other speeds of the same scenes
BENT, BEND = 0.35, 0.012  # share of samples; widths per frame at most
PARTS = ('evidence', 'image', 'label')
_LEAST_PIXELS = 12  # an object of fewer is no target


def sample(
    clip: Clip, spec: EvidenceSpec, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evidence (C, H, W) int8, image (3, H, W) uint8 and label (H, W) uint8 of one frame near the
    clip's middle.
    """
    short, long = GAPS[rng.integers(len(GAPS))]
    at = int(rng.integers(long, len(clip) - long))
    gaps = (-short, -long, short, long)
    frames = [clip.frames[at + gap] for gap in gaps]
    if rng.random() < BENT:
        frames = bent(frames, gaps, rng)
    planes = np.rint(evidence(clip.frames[at], frames, spec) / STEP).astype(np.int8)
    image = cv2.resize(clip.frames[at], spec.size[::-1], interpolation=cv2.INTER_AREA).transpose(
        2, 0, 1
    )
    return planes, image, _label(clip, at, spec.size)


def bent(
    frames: list[np.ndarray], gaps: tuple[int, ...], rng: np.random.Generator
) -> list[np.ndarray]:
    """The frames seen through a random quadratic flow that grows with their gap: what no homography
    removes and yet is no object (Meunier, Badoual, Bouthemy 2022 add it to the flow itself).
    """
    height, width = frames[0].shape[:2]
    grid = pixel_grid((height, width))
    x, y = grid[..., 0] / width - 0.5, grid[..., 1] / height - 0.5
    terms = np.stack([x, y, x * x, x * y, y * y], 2)
    field = terms @ rng.normal(size=(5, 2)).astype(np.float32)
    field *= np.float32(width * rng.uniform(0, BEND) / max(float(np.abs(field).max()), 1e-6))
    return [warp(frame, gap * field, grid) for frame, gap in zip(frames, gaps, strict=True)]


def _label(clip: Clip, at: int, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8: 1, 2, ... for objects that moved before this frame or the next one, the largest
    first.
    """
    ids = cv2.resize(clip.ids[at], size[::-1], interpolation=cv2.INTER_NEAREST)
    moving = clip.moving[at] | clip.moving[min(at + 1, len(clip) - 1)]
    areas = np.bincount(ids.ravel(), minlength=len(moving))[: len(moving)] * moving
    areas[0] = 0
    table = np.zeros(len(moving), np.uint8)
    kept = [n for n in np.argsort(-areas, kind='stable') if areas[n] >= _LEAST_PIXELS][:250]
    table[kept] = np.arange(1, len(kept) + 1)
    return table[ids]


def cache_shard(path: Path, out: Path, spec: EvidenceSpec, seed: int) -> int:
    """One sample of each clip of a shard; nothing where it is there already. Returns how many were
    made.
    """
    name = f'{path.stem}-{seed}'
    if (out / f'{name}.label.npy').exists():
        return 0
    clips = load_shard(path)
    rng = np.random.default_rng([seed, clips[0].seed])
    arrays = [
        np.empty((len(clips), count, *spec.size), kind).squeeze(1 if count == 1 else ())
        for count, kind in ((channel_count(spec), np.int8), (3, np.uint8), (1, np.uint8))
    ]
    for row, clip in enumerate(clips):
        for array, values in zip(arrays, sample(clip, spec, rng), strict=True):
            array[row] = values
    for part, array in zip(PARTS, arrays, strict=True):
        scratch = out / f'{name}.{part}.part.npy'
        np.save(scratch, array)
        scratch.replace(out / f'{name}.{part}.npy')
    return len(clips)


def main(arguments: list[str] | None = None) -> None:
    """Command line; goes on where it ended, and with `--wait` watches folders that still grow."""
    parser = argparse.ArgumentParser(description='Cache the motion evidence of rendered clips.')
    parser.add_argument('--clips', type=Path, nargs='+', required=True)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--passes', type=int, default=1, help='samples per clip')
    parser.add_argument(
        '--wait', type=float, default=0.0, help='seconds to wait for more clips before it ends'
    )
    given = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    quiet, total = time.monotonic(), 0
    while True:
        made = 0
        for seed in range(given.passes):
            lists = [sorted(folder.glob('*.npz')) for folder in given.clips]
            for index in range(max(map(len, lists), default=0)):
                for paths in lists:
                    if index < len(paths):
                        made += cache_shard(paths[index], given.out, EvidenceSpec(), seed)
                        print(f'\r{total + made} samples', end='', flush=True)
        total += made
        if made:
            quiet = time.monotonic()
        elif time.monotonic() - quiet >= given.wait:
            print()
            return
        else:
            time.sleep(5)


if __name__ == '__main__':
    main()
