"""Batches of cached motion evidence, augmented: flips, crops, missing gaps and channels, other light."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mos_perception.errors import DatasetError
from mos_perception.motion.evidence import HORIZONTAL, PER_GAP, SIGNED
from training.video_cache import PARTS, STEP

MEAN, STD = (0.45, 0.45, 0.45), (0.25, 0.25, 0.25)  # of the network's input, RGB in [0, 1]
_LOOK_EVERY = 40    # batches until new files are looked for
_DROPPABLE = (2, 3, 4, 5, 6, 7)


class Batches:
    """Random samples of all files that are there, new ones included while they are still being made."""

    def __init__(self, folders: list[Path], rng: np.random.Generator) -> None:
        self._folders, self._rng = folders, rng
        self._shards: dict[Path, tuple[np.ndarray, ...]] = {}
        self._rows: list[tuple[Path, int]] = []
        self._taken = 0
        self._look()

    def __len__(self) -> int:
        return len(self._rows)

    def _look(self) -> None:
        for folder in self._folders:
            for path in sorted(folder.glob('*.label.npy')):
                if path in self._shards or '.part.' in path.name:
                    continue
                stem = path.name.removesuffix('.label.npy')
                self._shards[path] = tuple(np.load(folder / f'{stem}.{part}.npy', mmap_mode='r') for part in PARTS)
                self._rows += [(path, row) for row in range(len(self._shards[path][2]))]
        if not self._rows:
            raise DatasetError(f'no *.label.npy in {", ".join(map(str, self._folders))}: '
                               'make some with "python -m training.video_cache"')

    def take(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """`image` (B, 3, H, W) and `evidence` (B, C, H, W) float32, labels (B, H / 2, W / 2) int64."""
        self._taken += 1
        if self._taken % _LOOK_EVERY == 0:
            self._look()
        chosen = [self._rows[n] for n in self._rng.integers(len(self._rows), size=count)]
        arrays = [np.stack([self._shards[path][part][row] for path, row in chosen]) for part in range(3)]
        evidence, image, label = (torch.from_numpy(array).float() for array in arrays)
        evidence = self._gaps(evidence * STEP)
        grid, flipped = self._crops(count, evidence.shape[2:])
        evidence = functional.grid_sample(evidence, grid, align_corners=False)
        evidence[flipped] = evidence[flipped] * _signs(evidence.shape[1], HORIZONTAL)
        image = self._light(functional.grid_sample(image / 255, grid, align_corners=False))
        small = grid[:, ::2, ::2] * 0.5 + grid[:, 1::2, 1::2] * 0.5
        label = functional.grid_sample(label[:, None], small, mode='nearest', align_corners=False)
        return image, evidence, label[:, 0].long()

    def _crops(self, count: int, size: torch.Size) -> tuple[Tensor, Tensor]:
        """(B, H, W, 2) sampling grid of windows of 50 to 100 % of the image, and which are mirrored, (B,) bool."""
        scale = self._rng.uniform(0.5, 1.0, count) ** 0.7
        aspect = np.exp(self._rng.uniform(-0.15, 0.15, count))
        width, height = np.minimum(1, scale * aspect), np.minimum(1, scale / aspect)
        flip = self._rng.random(count) < 0.5
        theta = np.zeros((count, 2, 3), np.float32)
        theta[:, 0, 0], theta[:, 1, 1] = np.where(flip, -width, width), height
        theta[:, 0, 2] = (1 - width) * self._rng.uniform(-1, 1, count)
        theta[:, 1, 2] = (1 - height) * self._rng.uniform(-1, 1, count)
        grid = functional.affine_grid(torch.from_numpy(theta), [count, 1, *size], align_corners=False)
        return grid, torch.from_numpy(flip)

    def _gaps(self, evidence: Tensor) -> Tensor:
        """Causal windows (after = before turned round), time turned round, a gap or a channel that is not there."""
        planes = evidence.unflatten(1, (-1, PER_GAP))
        half = planes.shape[1] // 2
        signs = _signs(PER_GAP, SIGNED)
        for sample, kind in zip(planes, self._rng.random((len(planes), 4)), strict=True):
            if kind[0] < 0.5:
                sample[:] = sample.roll(half, 0)
            if kind[1] < 0.35:
                sample[half:] = sample[:half] * signs
            if kind[2] < 0.12:
                sample[int(kind[2] < 0.06)::2] = 0
            if kind[3] < 0.25:
                sample[:, self._rng.choice(_DROPPABLE)] = 0
        return planes.flatten(1, 2)

    def _light(self, image: Tensor) -> Tensor:
        """Gain, bias and gamma by channel, grey or no image at times; then the network's normalisation."""
        draw = lambda low, high, *shape: torch.from_numpy(  # noqa: E731
            self._rng.uniform(low, high, shape).astype(np.float32))
        count = len(image)
        image = image.clamp(0, 1) ** draw(0.7, 1.4, count, 1, 1, 1)
        image = image * draw(0.7, 1.3, count, 3, 1, 1) + draw(-0.15, 0.15, count, 3, 1, 1)
        grey = draw(0, 1, count, 1, 1, 1) < 0.3
        image = torch.where(grey, image.mean(1, keepdim=True), image)
        image = (image + 0.02 * torch.randn_like(image) - MEAN[0]) / STD[0]
        return image * (draw(0, 1, count, 1, 1, 1) > 0.15)


def _signs(channels: int, turned: tuple[int, ...]) -> Tensor:
    """(C, 1, 1): -1 for the channels of each gap that `turned` names."""
    signs = torch.ones(channels // PER_GAP, PER_GAP)
    signs[:, list(turned)] = -1
    return signs.reshape(-1, 1, 1)
