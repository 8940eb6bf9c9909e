"""Motion evidence of rendered clips, computed once: `python -m training.video_cache --clips
FOLDER... --out FOLDER`.

A shard of clips becomes `NAME.evidence.npy` (N, C, H, W) int8 in steps of 6 / 127, `NAME.image.npy`
(N, 3, H, W) uint8 RGB and `NAME.label.npy` (N, H, W) uint8: 0, or 1, 2, ... for each object that
moves; where the clips have events `NAME.voxel.npy` (N, V, H / 2, W / 2) uint8 x 255 of compensated
ones and `NAME.drawn.npy`, the evidence of images drawn of events alone. With `--movable` there is
no evidence, and the label is of all objects, those at rest too. Arrays are read through mmap.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from mos_perception.datatypes import Frame
from mos_perception.engine.card import VoxelSpec
from mos_perception.models.gmos.model import half
from mos_perception.models.preprocess import voxel_tensor
from mos_perception.motion.builder import EvidenceBuilder
from mos_perception.motion.event_image import event_image
from mos_perception.motion.evidence import EvidenceSpec
from mos_perception.motion.flow import FlowSettings, at_size, pixel_grid, warp
from mos_perception.motion.scene_motion import scene_motion
from training.datasets.evidence import quantised
from training.scenes.clip import Clip
from training.scenes.shards import load_shard

GAPS = ((1, 3), (1, 3), (1, 4), (2, 4))  # in frames of 24 Hz: other speeds of the same scenes
BENT, BEND = 0.35, 0.012  # share of samples; widths per frame at most
PARTS = ('voxel', 'drawn', 'evidence', 'image', 'label')  # a label is there when all are
VOXEL = VoxelSpec('dimos', 5, 'max', 24.0, 'bin', compensated=True)
WINDOW_NS = 100_000_000
OF_VIDEO = EvidenceSpec()
OF_EVENTS = EvidenceSpec((160, 224), flow=FlowSettings((256, 352)), fade_ms=50.0, epipolar=True)
"""Evidence of clips with events, of sensors as 4:3; of 15 to 300 ms this fading served the most."""
BY_EVENTS = 0.3  # share of event samples whose motion is found without frames
_LEAST_PIXELS = 12  # an object of fewer is no target


def sample(
    clip: Clip, spec: EvidenceSpec, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """The parts of one frame: near the clip's middle, or any but the first of a clip with events.
    """
    if len(clip.events):
        return event_sample(clip, spec, rng)
    gaps_frames = GAPS[rng.integers(len(GAPS))]
    long = gaps_frames[-1]
    at = int(rng.integers(long, len(clip) - long))
    offsets = tuple(offset for offset in range(-long, long + 1) if offset)
    frames = [clip.frames[at + offset] for offset in offsets]
    if rng.random() < BENT:
        frames = bent(frames, offsets, rng)
    # whatever its speed, a gap is shown as the one the network knows
    now_ns = clip.frame(at).stamp_ns
    away_ms = np.interp(np.abs(offsets), (0, *gaps_frames), (0, *spec.gaps_ms)) * np.sign(offsets)
    around = [Frame(now_ns + round(1e6 * away), image)
              for away, image in zip(away_ms, frames, strict=True)]
    found = EvidenceBuilder(spec, threads=1).build(Frame(now_ns, clip.frames[at]), around)
    return _parts(clip, at, found.tensor)


def event_sample(
    clip: Clip, spec: EvidenceSpec, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """As the runtime sees it: gaps by time, events without the motion that frames or events tell.
    """
    at = int(rng.integers(1, len(clip)))
    window = clip.window(at, WINDOW_NS)
    found, drawn = (
        EvidenceBuilder(spec, threads=1).build(shown[at], shown[:at] + shown[at + 1 :])
        for shown in ([clip.frame(i) for i in range(len(clip))], drawn_images(clip, spec))
    )
    known = drawn if rng.random() < BY_EVENTS else found
    grid = voxel_tensor(window, half(spec.size), VOXEL, scene_motion(window, known, window.t1_ns))
    return _parts(clip, at, found.tensor) | {
        'voxel': np.rint(255 * grid).astype(np.uint8),
        'drawn': quantised(drawn.tensor),
    }


def movable_sample(clip: Clip, size: tuple[int, int], rng: np.random.Generator
                   ) -> dict[str, np.ndarray]:
    """A frame of the clip and the objects in it that can move, whether they do or not."""
    at = int(rng.integers(len(clip)))
    every = np.arange(clip.moving.shape[1]) > 0
    return {'image': at_size(clip.frames[at], size).transpose(2, 0, 1),
            'label': object_label(clip.ids[at], every, size)}


def drawn_images(clip: Clip, spec: EvidenceSpec) -> list[Frame]:
    """An image of the events at each frame's stamp."""
    windows = [clip.window(i, WINDOW_NS) for i in range(len(clip))]
    return [Frame(window.t1_ns, event_image(window, spec.fade_ms)) for window in windows]


def _parts(clip: Clip, at: int, planes: np.ndarray) -> dict[str, np.ndarray]:
    size = planes.shape[1:]
    image = at_size(clip.frames[at], size).transpose(2, 0, 1)
    return {'evidence': quantised(planes), 'image': image, 'label': moving_label(clip, at, size)}


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


def moving_label(clip: Clip, at: int, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8: 1, 2, ... for objects that move at this frame, the largest first."""
    return object_label(clip.ids[at], moves_at(clip, at), size)


def moves_at(clip: Clip, at: int) -> np.ndarray:
    """(K + 1,) bool: the objects that moved before this frame or the next one."""
    return clip.moving[at] | clip.moving[min(at + 1, len(clip) - 1)]


def object_label(ids: np.ndarray, wanted: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 of the ids that are `wanted` (K + 1,) bool: 1, 2, ..., the largest first."""
    return numbered(ids, wanted, size, 250)[0]


def numbered(ids: np.ndarray, wanted: np.ndarray, size: tuple[int, int],
             most: int) -> tuple[np.ndarray, list[int]]:
    """`object_label` of the `most` largest objects, and the ids of 1, 2, ..."""
    ids = cv2.resize(ids, size[::-1], interpolation=cv2.INTER_NEAREST)
    areas = np.bincount(ids.ravel(), minlength=len(wanted))[: len(wanted)] * wanted
    areas[0] = 0
    table = np.zeros(len(wanted), np.uint8)
    kept = [int(n) for n in np.argsort(-areas, kind='stable') if areas[n] >= _LEAST_PIXELS][:most]
    table[kept] = np.arange(1, len(kept) + 1)
    return table[ids], kept


def cache_shard(path: Path, out: Path, seed: int, of_video: EvidenceSpec = OF_VIDEO,
                movable: bool = False) -> int:
    """One sample of each clip of a shard; nothing where it is there already. Returns how many were
    made. `of_video`: the evidence of clips without events; `movable`: none, see `movable_sample`.
    """
    name = f'{path.stem}-{seed}'
    if (out / f'{name}.label.npy').exists():
        return 0
    clips = load_shard(path)
    rng = np.random.default_rng([seed, clips[0].seed])
    spec = OF_EVENTS if len(clips[0].events) else of_video
    samples = [movable_sample(clip, of_video.size, rng) if movable else sample(clip, spec, rng)
               for clip in clips]
    for part in (one for one in PARTS if one in samples[0]):
        scratch = out / f'{name}.{part}.part.npy'
        np.save(scratch, np.stack([one[part] for one in samples]))
        scratch.replace(out / f'{name}.{part}.npy')
    return len(clips)


def main(arguments: list[str] | None = None) -> None:
    """Command line; goes on where it ended, and with `--wait` watches folders that still grow."""
    parser = argparse.ArgumentParser(description='Cache the motion evidence of rendered clips.')
    parser.add_argument('--clips', type=Path, nargs='+', required=True)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--passes', type=int, default=1, help='samples per clip')
    parser.add_argument(
        '--epipolar', action='store_true',
        help='parallax as dimos_light sees it, which clips with events have anyway',
    )
    parser.add_argument('--movable', action='store_true',
                        help='single pictures and all that can move in them')
    parser.add_argument(
        '--wait', type=float, default=0.0, help='seconds to wait for more clips before it ends'
    )
    given = parser.parse_args(arguments)
    of_video = replace(OF_VIDEO, epipolar=given.epipolar)
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
                        made += cache_shard(paths[index], given.out, seed, of_video,
                                            given.movable)
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
