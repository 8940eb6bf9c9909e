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
from mos_perception.events.voxel import channels
from mos_perception.models.gmos.colour import colour_bins
from mos_perception.motion.evidence import PER_GAP, mirrored
from training.datasets.evidence import STEP, flipped
from training.video_cache import PARTS, VOXEL

MEAN, STD = (0.45, 0.45, 0.45), (0.25, 0.25, 0.25)  # of the network's input, RGB in [0, 1]
CROP = (96, 160)  # of 128x224: the network has no fixed size, and a step costs half
SEEN = ('voxel', 'evidence', 'image', 'label')  # parts of a sample
_LOOK_EVERY = 40  # batches until new files are looked for
_DROPPABLE = (2, 3, 4, 5, 6, 7)
WITH_EVENTS = 0.7   # share of a batch, where there are such samples
_BLIND = 0.15  # share that sees no image, where there is something else to see
_NO_FRAME, _NO_EVENTS, _SWAP = 0.35, 0.25, 0.2  # shares of those; _SWAP: polarities change places


@dataclass(frozen=True)
class Batch:
    """`image` (B, 3, H, W) and `evidence` (B, C, H, W) float32 of `CROP`, `voxel` (B, V, H / 2, W /
    2) float32, `labels` (B, H / 2, W / 2) int64, `bins` (B, H, W) int64 of the colours.
    """

    image: Tensor
    evidence: Tensor
    voxel: Tensor
    labels: Tensor
    bins: np.ndarray


class Batches:
    """Random samples of all files that are there, new ones included while they are still being
    made.
    """

    def __init__(self, folders: list[Path], rng: np.random.Generator) -> None:
        self._folders, self._rng = folders, rng
        self._shards: dict[Path, dict[str, np.ndarray]] = {}
        self._rows: dict[bool, list[tuple[Path, int]]] = {False: [], True: []}  # by: has events
        self._taken = 0
        self._look()

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))

    def _look(self) -> None:
        for folder in self._folders:
            for path in sorted(folder.glob('*.label.npy')):
                if path in self._shards or '.part.' in path.name:
                    continue
                stem = path.name.removesuffix('.label.npy')
                files = {part: folder / f'{stem}.{part}.npy' for part in PARTS}
                shard = {
                    part: np.load(file, mmap_mode='r')
                    for part, file in files.items() if file.exists()
                }
                self._shards[path] = shard
                self._rows['voxel' in shard] += [(path, row) for row in range(len(shard['label']))]
        if not len(self):
            raise DatasetError(
                f'no *.label.npy in {", ".join(map(str, self._folders))}: '
                'make some with "python -m training.video_cache"'
            )

    def take(self, count: int) -> Batch:
        """`count` random samples, augmented."""
        self._taken += 1
        if self._taken % _LOOK_EVERY == 0:
            self._look()
        samples = [self._crop(self._sample()) for _ in range(count)]
        stacked = {part: np.stack([sample[part] for sample in samples]) for part in SEEN}
        seen = np.array([sample['seen'] for sample in samples])
        there = torch.from_numpy(seen)[:, None, None, None]
        tensors = {part: torch.from_numpy(values) for part, values in stacked.items()}
        bins = np.stack([colour_bins(values) for values in stacked['image']])
        evidence = self._gaps(stacked['evidence'] * np.float32(STEP))
        return Batch(
            self._light(tensors['image'].float() / 255, _BLIND * bool(evidence.shape[1])) * there,
            torch.from_numpy(evidence),
            tensors['voxel'].float() / 255,
            tensors['label'][:, ::2, ::2].long(),
            bins * seen[:, None, None],
        )

    def _sample(self) -> dict[str, np.ndarray]:
        """One sample's parts and `seen`, whether there is a frame: without one the evidence is that
        of its events. A part that is not there is zeros.
        """
        events = bool(self._rows[True]) and self._rng.random() < WITH_EVENTS
        rows = self._rows[events or not self._rows[False]]
        path, row = rows[self._rng.integers(len(rows))]
        sample = {part: array[row] for part, array in self._shards[path].items()}
        sample['seen'] = np.bool_(True)
        if 'voxel' in sample:
            draw, swap = self._rng.random(2)
            drawn = sample.pop('drawn', None)
            if draw < _NO_FRAME and drawn is not None:
                sample |= {'seen': np.bool_(False), 'evidence': drawn}
            if _NO_FRAME <= draw < _NO_FRAME + _NO_EVENTS:
                del sample['voxel']
            elif swap < _SWAP:
                sample['voxel'] = np.roll(sample['voxel'], len(sample['voxel']) // 2, 0)
        height, width = sample['label'].shape
        sample.setdefault('evidence', np.zeros((0, height, width), np.int8))
        if 'voxel' not in sample:
            planes = channels(VOXEL.formulation, VOXEL.bins)
            sample['voxel'] = np.zeros((planes, height // 2, width // 2), np.uint8)
        return sample

    def _crop(self, sample: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A window of `CROP` of all parts, mirrored at times."""
        height, width = sample['label'].shape
        top = int(self._rng.integers((height - CROP[0]) // 2 + 1))
        left = int(self._rng.integers((width - CROP[1]) // 2 + 1))
        mirror = self._rng.random() < 0.5
        found = {'seen': sample['seen']}
        for part in SEEN:
            scale = 1 if part == 'voxel' else 2
            rows = slice(scale * top, scale * top + scale * CROP[0] // 2)
            columns = slice(scale * left, scale * left + scale * CROP[1] // 2)
            values = sample[part][..., rows, columns]
            if mirror:
                values = flipped(values, 1) if part == 'evidence' else values[..., ::-1]
            found[part] = values
        return found

    def _gaps(self, evidence: np.ndarray) -> np.ndarray:
        """(B, C, H, W) with causal windows (after = before turned round), time turned round,
        a gap or a channel that is not there.
        """
        if not evidence.shape[1]:
            return evidence
        planes = evidence.reshape(len(evidence), -1, PER_GAP, *evidence.shape[2:])
        half = planes.shape[1] // 2
        for sample, kind in zip(planes, self._rng.random((len(planes), 4)), strict=True):
            if kind[0] < 0.5:
                sample[:] = np.roll(sample, half, 0)
            if kind[1] < 0.35:
                sample[half:] = mirrored(sample[:half])
            if kind[2] < 0.12:
                sample[int(kind[2] < 0.06) :: 2] = 0
            if kind[3] < 0.25:
                sample[:, self._rng.choice(_DROPPABLE)] = 0
        return planes.reshape(evidence.shape)

    def _light(self, image: Tensor, blind: float) -> Tensor:
        """Gain, bias and gamma by channel, grey at times, no image in a share `blind`; then the
        network's normalisation.
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
        return image * (draw(0, 1, count, 1, 1, 1) > blind)
