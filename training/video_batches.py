"""Batches of cached motion evidence, augmented: flips, crops, missing gaps and channels, other
light.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mos_perception.errors import DatasetError
from mos_perception.models.gmos.colour import colour_bins
from mos_perception.motion.evidence import HORIZONTAL, PER_GAP, SIGNED
from training.video_cache import PARTS, STEP

MEAN, STD = (0.45, 0.45, 0.45), (0.25, 0.25, 0.25)  # of the network's input, RGB in [0, 1]
CROP = (96, 160)  # of 128x224: the network has no fixed size, and a step costs half
_LOOK_EVERY = 40  # batches until new files are looked for
_DROPPABLE = (2, 3, 4, 5, 6, 7)


@dataclass(frozen=True)
class Batch:
    """`image` (B, 3, H, W) and `evidence` (B, C, H, W) float32 of `CROP`, `labels` (B, H / 2, W /
    2) int64, `bins` (B, H, W) int64 of the colours.
    """

    image: Tensor
    evidence: Tensor
    labels: Tensor
    bins: np.ndarray


class Batches:
    """Random samples of all files that are there, new ones included while they are still being
    made.
    """

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
                self._shards[path] = tuple(
                    np.load(folder / f'{stem}.{part}.npy', mmap_mode='r') for part in PARTS
                )
                self._rows += [(path, row) for row in range(len(self._shards[path][2]))]
        if not self._rows:
            raise DatasetError(
                f'no *.label.npy in {", ".join(map(str, self._folders))}: '
                'make some with "python -m training.video_cache"'
            )

    def take(self, count: int) -> Batch:
        """`count` random samples, augmented."""
        self._taken += 1
        if self._taken % _LOOK_EVERY == 0:
            self._look()
        parts: list[list[np.ndarray]] = [[], [], []]
        for number in self._rng.integers(len(self._rows), size=count):
            path, row = self._rows[number]
            for part, values in zip(
                parts, self._crop(tuple(array[row] for array in self._shards[path])), strict=True
            ):
                part.append(values)
        evidence, image, label = (torch.from_numpy(np.stack(part)) for part in parts)
        return Batch(
            self._light(image.float() / 255),
            self._gaps(evidence.float() * STEP),
            label[:, ::2, ::2].long(),
            np.stack([colour_bins(values) for values in parts[1]]),
        )

    def _crop(self, arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """A window of `CROP` of evidence, image and label, mirrored at times."""
        height, width = arrays[2].shape
        top = 2 * self._rng.integers((height - CROP[0]) // 2 + 1)
        left = 2 * self._rng.integers((width - CROP[1]) // 2 + 1)
        evidence, image, label = (
            array[..., top : top + CROP[0], left : left + CROP[1]] for array in arrays
        )
        if self._rng.random() < 0.5:
            evidence, image, label = evidence[..., ::-1].copy(), image[..., ::-1], label[..., ::-1]
            for channel in HORIZONTAL:
                evidence[channel::PER_GAP] *= -1
        return evidence, image, label

    def _gaps(self, evidence: Tensor) -> Tensor:
        """Causal windows (after = before turned round), time turned round, a gap or a channel that
        is not there.
        """
        planes = evidence.unflatten(1, (-1, PER_GAP))
        half = planes.shape[1] // 2
        signs = _signs(PER_GAP, SIGNED)
        for sample, kind in zip(planes, self._rng.random((len(planes), 4)), strict=True):
            if kind[0] < 0.5:
                sample[:] = sample.roll(half, 0)
            if kind[1] < 0.35:
                sample[half:] = sample[:half] * signs
            if kind[2] < 0.12:
                sample[int(kind[2] < 0.06) :: 2] = 0
            if kind[3] < 0.25:
                sample[:, self._rng.choice(_DROPPABLE)] = 0
        return planes.flatten(1, 2)

    def _light(self, image: Tensor) -> Tensor:
        """Gain, bias and gamma by channel, grey or no image at times; then the network's
        normalisation.
        """
        draw = lambda low, high, *shape: torch.from_numpy(  # noqa: E731
            self._rng.uniform(low, high, shape).astype(np.float32)
        )
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
