"""What training needs of a clip, at the network's size, as small arrays.

Shapes: T frames, K object ids, C planes of a voxel, H W the network's size.
"""

from __future__ import annotations

from dataclasses import asdict

import cv2
import numpy as np

from mos_perception.errors import ConfigError
from mos_perception.events.voxel import voxelize
from training.datasets.flows import true_flows
from training.recipes import Recipe, VoxelSettings
from training.scenes.clip import Clip

MAX_IDS = 63


def clip_arrays(clip: Clip, recipe: Recipe) -> dict[str, np.ndarray]:
    """What training needs of a clip, each uint8.

    `images` (T, H, W, 3); `ids` (T, H, W); `voxels` (T - 1, C, H, W) x 255, normalised, of the
    windows that end at frame 1 and later; `moving` (T, 64) by id; with a loss on it `flows`
    (T - 1, 2, H/2, W/2), see `flows.true_flows`. Raises ConfigError for more than 63 objects.
    """
    size, objects = recipe.net.size, clip.moving.shape[1]
    if objects > MAX_IDS + 1:
        raise ConfigError(f'clip {clip.seed} of {clip.preset} has {objects - 1} objects: training '
                          f'takes at most {MAX_IDS}, lower the preset\'s number of objects')
    moving = np.zeros((len(clip), MAX_IDS + 1), np.uint8)
    moving[:, :objects] = clip.moving
    voxels = [window_voxel(clip, i, recipe.voxel, recipe.window_ns, size)
              for i in range(1, len(clip))]
    arrays = {
        'images': np.stack([resized(frame, size) for frame in clip.frames]),
        'ids': np.stack([_resized_ids(ids, size) for ids in clip.ids]),
        'voxels': np.stack([np.rint(voxel * 255) for voxel in voxels]).astype(np.uint8),
        'moving': moving,
    }
    if recipe.weights.true_flow:
        arrays['flows'] = true_flows(clip, size)
    return arrays


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 at `size`: by area where it shrinks, as the runtime does."""
    shrinks = image.shape[0] >= size[0] and image.shape[1] >= size[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, size[::-1], interpolation=interpolation)


def window_voxel(clip: Clip, frame: int, settings: VoxelSettings, window_ns: int,
                 size: tuple[int, int]) -> np.ndarray:
    """The runtime's voxel (C, H, W) float32 of the window that ends at a frame of a clip."""
    return voxelize(clip.window(frame, window_ns), out_size=size, threads=1, **asdict(settings))


def _resized_ids(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 of an id image of another size."""
    return cv2.resize(ids, size[::-1], interpolation=cv2.INTER_NEAREST).astype(np.uint8)
