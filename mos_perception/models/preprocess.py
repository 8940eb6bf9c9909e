"""What networks are fed: an image tensor and a voxel grid."""

from __future__ import annotations

import numpy as np

from mos_perception.datatypes import EventWindow
from mos_perception.engine.card import ImageSpec, VoxelSpec
from mos_perception.events.voxel import voxelize
from mos_perception.motion.event_compensation import EventMotion
from mos_perception.motion.flow import at_size


def image_tensor(image: np.ndarray, size: tuple[int, int], spec: ImageSpec) -> np.ndarray:
    """(3, H, W) float32 at `size` from (H', W', 3) uint8 RGB."""
    image = at_size(image, size)
    scale, shift = image_scale(spec)
    planes = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)
    planes *= scale[:, None, None]
    planes -= shift[:, None, None]
    return planes


def image_scale(spec: ImageSpec) -> tuple[np.ndarray, np.ndarray]:
    """(3,) float32 factor of an 8-bit value, and what is taken off then."""
    scale = 1 / (255 * np.array(spec.std, np.float64))
    return scale.astype(np.float32), (np.array(spec.mean) / np.array(spec.std)).astype(np.float32)


def voxel_tensor(window: EventWindow, size: tuple[int, int], spec: VoxelSpec,
                 motion: EventMotion | None = None) -> np.ndarray:
    """(C, H, W) float32 at `size`, normalised as the card says; events moved along `motion`."""
    return voxelize(window, formulation=spec.formulation, bins=spec.bins, out_size=size,
                    resize=spec.resize, normalise=spec.normalise, norm_floor=spec.norm_floor,
                    motion=motion)
