"""What training needs of a clip, at the network's size, as small arrays.

Shapes: T frames, K object ids, C planes of a voxel, E of evidence, H W the network's size.
"""

from __future__ import annotations

from dataclasses import asdict

import cv2
import numpy as np

from mos_perception.errors import ConfigError
from mos_perception.events.voxel import voxelize
from mos_perception.motion.builder import EvidenceBuilder, MotionEvidence
from mos_perception.motion.scene_motion import from_frames
from training.datasets.evidence import quantised
from training.datasets.flows import true_flows
from training.recipes import Recipe, VoxelSettings
from training.scenes.clip import Clip

MAX_IDS = 63


def clip_arrays(clip: Clip, recipe: Recipe) -> dict[str, np.ndarray]:
    """What training needs of a clip, each uint8.

    `images` (T, H, W, 3); `ids` (T, H, W); `voxels` (T - 1, C, H, W) x 255, normalised, of the
    windows that end at frame 1 and later; `moving` (T, 64) by id; with a loss on it `flows`
    (T - 1, 2, H/2, W/2), see `flows.true_flows`; where the network sees it `evidence`
    (T - 1, E, H, W) int8, see `evidence.quantised`. Raises ConfigError for more than 63 objects.
    """
    size, objects = recipe.net.size, clip.moving.shape[1]
    if objects > MAX_IDS + 1:
        raise ConfigError(f'clip {clip.seed} of {clip.preset} has {objects - 1} objects: training '
                          f'takes at most {MAX_IDS}, lower the preset\'s number of objects')
    moving = np.zeros((len(clip), MAX_IDS + 1), np.uint8)
    moving[:, :objects] = clip.moving
    found = _evidence(clip, recipe)
    voxels = [window_voxel(clip, i, recipe.voxel, recipe.window_ns, size,
                           found[i - 1] if recipe.compensated else None)
              for i in range(1, len(clip))]
    arrays = {
        'images': np.stack([resized(frame, size) for frame in clip.frames]),
        'ids': np.stack([_resized_ids(ids, size) for ids in clip.ids]),
        'voxels': np.stack([np.rint(voxel * 255) for voxel in voxels]).astype(np.uint8),
        'moving': moving,
    }
    if recipe.weights.true_flow:
        arrays['flows'] = true_flows(clip, size)
    if found:
        arrays['evidence'] = np.stack([quantised(one.tensor) for one in found])
    return arrays


def _evidence(clip: Clip, recipe: Recipe) -> list[MotionEvidence]:
    """Of every frame but the first, among all others of the clip; empty if none is asked for."""
    if recipe.evidence is None:
        return []
    builder = EvidenceBuilder(recipe.evidence, threads=1)
    frames = [clip.frame(i) for i in range(len(clip))]
    return [builder.build(frame, [other for other in frames if other is not frame])
            for frame in frames[1:]]


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 at `size`: by area where it shrinks, as the runtime does."""
    shrinks = image.shape[0] >= size[0] and image.shape[1] >= size[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, size[::-1], interpolation=interpolation)


def window_voxel(clip: Clip, frame: int, settings: VoxelSettings, window_ns: int,
                 size: tuple[int, int], evidence: MotionEvidence | None = None) -> np.ndarray:
    """The runtime's voxel (C, H, W) float32 of the window that ends at a frame of a clip.

    `evidence` of that frame: then the events are moved along the static scene's motion.
    """
    window = clip.window(frame, window_ns)
    motion = None
    if evidence is not None:
        motion = from_frames(window, evidence, int(clip.stamps_ns[frame]))
    return voxelize(window, out_size=size, threads=1, motion=motion, **asdict(settings))


def _resized_ids(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 of an id image of another size."""
    return cv2.resize(ids, size[::-1], interpolation=cv2.INTER_NEAREST).astype(np.uint8)
