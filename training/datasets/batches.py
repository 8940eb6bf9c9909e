"""Stacked rows of `arrays.clip_arrays` -> augmented batches of tensors.

Shapes: B samples, M moving objects, K object ids, C planes of a voxel, H W the network's size.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mos_perception.masks import mask_boxes
from training.datasets.evidence import STEP, flipped, looking_back
from training.datasets.flows import decoded, mirrored
from training.datasets.source import Batch
from training.losses.matching import Targets
from training.recipes import Augmentation, Recipe

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def neighbour(frames: np.ndarray, last: int) -> np.ndarray:
    """The frame after each, or before it at the `last` one."""
    return np.where(frames < last, frames + 1, frames - 1)


def make_batch(images: np.ndarray, previous: np.ndarray, ids: np.ndarray, voxels: np.ndarray,
               moving: np.ndarray, recipe: Recipe, rng: np.random.Generator,
               augment: Augmentation | None, flows: np.ndarray | None = None,
               evidence: np.ndarray | None = None) -> Batch:
    """B samples, stacked rows of `clip_arrays`, as tensors, augmented unless `augment` is None.

    `previous` (B, H, W, 3) are the images of the frames before. Augmentation changes the arrays in
    place. With two frames a sample the second frames follow the first ones and are augmented alike.
    """
    if augment:
        flip_and_swap(images, previous, ids, voxels, flows, evidence, rng, augment, recipe.frames)
    truths = [instances(*pair, recipe) for pair in zip(ids, moving)]
    unaugmented = normalised(images)
    voxel = torch.from_numpy(voxels).float() / 255
    image = unaugmented
    if augment:
        image, voxel = jitter_and_drop(unaugmented, voxel, rng, augment, recipe.frames)
    if evidence is not None:
        # what is not there shows no motion
        seen = (image != 0).flatten(1).any(1).numpy()
        evidence = _seen(evidence, seen, rng, augment.causal if augment else 0.0)
    return Batch(
        image=image,
        voxel=voxel,
        unaugmented=unaugmented,
        previous=normalised(previous),
        targets=collate(truths, recipe),
        flow=None if flows is None else decoded(flows, voxel),
        evidence=None if evidence is None else torch.from_numpy(evidence),
    )


def _seen(evidence: np.ndarray, seen: np.ndarray, rng: np.random.Generator,
          causal: float) -> np.ndarray:
    """(B, E, H, W) float32 of int8, zeros where no image is `seen` (B,); of some the past alone."""
    planes = [looking_back(one) if back else one
              for one, back in zip(evidence, rng.random(len(evidence)) < causal)]
    return np.stack(planes).astype(np.float32) * (STEP * seen[:, None, None, None]).astype('f4')


def flip_and_swap(images: np.ndarray, previous: np.ndarray, ids: np.ndarray, voxels: np.ndarray,
                  flows: np.ndarray | None, evidence: np.ndarray | None,
                  rng: np.random.Generator, augment: Augmentation, frames: int = 1) -> None:
    """Mirror samples and let polarities change places, all arrays alike, in place.

    The `frames` blocks of samples share their draws.
    """
    samples = len(images) // frames
    for sample in range(samples):
        flips = rng.random(2) < augment.flip
        swap = rng.random() < augment.polarity_swap
        for row in range(sample, len(images), samples):
            for axis in np.flatnonzero(flips):
                for array in (images, previous, ids):
                    array[row] = np.flip(array[row], axis)
                voxels[row] = np.flip(voxels[row], 1 + axis)
                if flows is not None:
                    flows[row] = mirrored(flows[row], axis)
                if evidence is not None:
                    evidence[row] = flipped(evidence[row], axis)
            if swap:
                voxels[row] = np.roll(voxels[row], voxels.shape[1] // 2, 0)


def jitter_and_drop(image: Tensor, voxel: Tensor, rng: np.random.Generator, augment: Augmentation,
                    frames: int = 1) -> tuple[Tensor, Tensor]:
    """Brightness and contrast of the image, then a missing modality as zeros.

    Never both of one sample. The `frames` blocks of samples share their draws.
    """
    shape = (len(image) // frames, 1, 1, 1)
    contrast = 1 + rng.uniform(-augment.contrast, augment.contrast, shape).astype(np.float32)
    shift = rng.uniform(-augment.brightness, augment.brightness, shape).astype(np.float32)
    shift = shift / STD.mean()
    draw = rng.random(len(image) // frames)
    contrast, shift, draw = (np.concatenate([value] * frames) for value in (contrast, shift, draw))
    no_image = draw < augment.drop_image
    no_events = ~no_image & (draw < augment.drop_image + augment.drop_events)
    jittered = image * torch.from_numpy(contrast) + torch.from_numpy(shift)
    return jittered * _zero_where(no_image), voxel * _zero_where(no_events)


def normalised(images: np.ndarray) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32, ImageNet mean and deviation.

    Channels last in memory.
    """
    scale, shift = torch.from_numpy(1 / (255 * STD)), torch.from_numpy(MEAN / STD)
    return (torch.from_numpy(images).float() * scale - shift).permute(0, 3, 1, 2)


def instances(ids: np.ndarray, moving: np.ndarray, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Masks (M, H, W) bool of the moving objects, largest first, and boxes (M, 4) xyxy px.

    `ids` (H, W), `moving` (K,) by id; the far edges of the boxes are exclusive. Objects under
    `min_pixels`, and the smallest beyond the number of queries less one, belong to the background.
    With `empty_masks` absent moving objects follow, their boxes -1.
    """
    areas = np.bincount(ids.ravel(), minlength=len(moving))[:len(moving)]
    areas = np.where(moving.astype(bool), areas, 0)
    areas[0] = 0
    limit = recipe.net.queries - 1
    largest = np.argsort(-areas, kind='stable')[:limit]
    chosen = [k for k in largest if areas[k] >= recipe.min_pixels]
    if recipe.empty_masks:
        below = range(1, max(chosen, default=0))
        absent = [k for k in below if moving[k] and not (ids == k).any()]
        chosen = (chosen + absent)[:limit]
    masks = ids[None] == np.array(chosen, ids.dtype)[:, None, None]
    boxes = mask_boxes(masks)
    boxes[~boxes.any(1)] = -1
    return masks, boxes


def collate(truths: list[tuple[np.ndarray, np.ndarray]], recipe: Recipe) -> Targets:
    """Padded targets with the background as row 0, masks area-averaged to 1 / mask_stride."""
    rows = 1 + max(len(masks) for masks, _ in truths)
    labels = torch.full((len(truths), rows), -1, dtype=torch.int64)
    full = torch.zeros((len(truths), rows, *recipe.net.size))
    boxes = torch.full((len(truths), rows, 4), -1.0)
    for sample, (masks, corners) in enumerate(truths):
        count = 1 + len(masks)
        labels[sample, :count] = 1
        labels[sample, 0] = 0
        full[sample, 0] = torch.from_numpy(~masks.any(0)).float()
        full[sample, 1:count] = torch.from_numpy(masks).float()
        boxes[sample, 1:count] = torch.from_numpy(corners)
    return Targets(labels, F.avg_pool2d(full, recipe.mask_stride), boxes)


def _zero_where(gone: np.ndarray) -> Tensor:
    """(B, 1, 1, 1) float32: 0 where `gone` (B,) is True, else 1."""
    return torch.from_numpy((~gone).astype(np.float32))[:, None, None, None]
