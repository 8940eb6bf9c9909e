"""A recording's answered frames: small maps of all in memory, samples of some on disk.

Legend: T frames, H W of the evidence, h w of the network's maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np

from mos_perception.datatypes import Instances
from mos_perception.masks import masks_at_size
from training.adapt.mine import UNSURE, support
from training.adapt.survey import MOST_CLIPPED
from training.adapt.watch import Seen

SHARD = 64          # samples in one file
OFF = 1.2           # of `mine.support`: a pixel above it does not follow the camera
SAMPLE_PARTS = ('evidence', 'image', 'voxel')


@dataclass(frozen=True)
class Answers:
    """`stamps_ns` (T,) int64; `logits` (T, h, w) float16 of the foreground; `supports` (T, h, w)
    float16 as `mine.support` has it; `greys` (T, H, W) uint8; `ids` (T, h, w) uint8, number of the
    instance that a pixel belongs to, 0 none; `clipped`, `off` (T,) shares of pixels too dark or
    bright and off the camera's motion; `missing_gaps` (T,); `sampled` (S,) rows whose samples are
    on disk, SHARD to a file.
    """

    stamps_ns: np.ndarray
    logits: np.ndarray
    supports: np.ndarray
    greys: np.ndarray
    ids: np.ndarray
    clipped: np.ndarray
    off: np.ndarray
    missing_gaps: np.ndarray
    sampled: np.ndarray

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def rows(self, rows: slice) -> Answers:
        """Those of some frames; `sampled` is empty."""
        cut = {item.name: getattr(self, item.name)[rows] for item in fields(self)}
        return Answers(**cut | {'sampled': np.empty(0, np.int64)})

    def save(self, path: Path) -> None:
        """Write all to an .npz file, whole or not at all."""
        scratch = path.with_suffix('.part.npz')
        np.savez(scratch, **{item.name: getattr(self, item.name) for item in fields(self)})
        scratch.replace(path)

    @staticmethod
    def load(path: Path) -> Answers:
        """Read what `save` wrote."""
        with np.load(path) as found:
            return Answers(**{item.name: found[item.name] for item in fields(Answers)})


class Gatherer:
    """Takes frames as they are answered; writes `parts` of every `stride`-th of the first `until`
    to `folder`, as `STEM-000.evidence.npy` and so on, for `Batches`.
    """

    def __init__(self, folder: Path, stem: str, stride: int, until: int,
                 parts: Sequence[str] = SAMPLE_PARTS) -> None:
        self._parts = parts
        self._folder, self._stem, self._stride, self._until = folder, stem, stride, until
        self._rows: list[tuple] = []
        self._pending: list[Seen] = []
        self._sampled: list[int] = []

    def __len__(self) -> int:
        return len(self._rows)

    def keep(self, seen: Seen) -> None:
        """Take one answered frame. Raises OSError where its sample cannot be written."""
        strength = support(seen.evidence)
        row = len(self._rows)
        self._rows.append((
            seen.stamp_ns, seen.logits.astype(np.float16), strength.astype(np.float16), seen.grey,
            ids_of(seen.instances, seen.logits.shape), seen.clipped,
            float((strength > OFF).mean()), seen.missing_gaps,
        ))
        teaches = row < self._until and row % self._stride == 0 and seen.clipped <= MOST_CLIPPED
        if teaches:
            self._sampled.append(row)
            self._pending.append(seen)
            if len(self._pending) == SHARD:
                self._flush()

    def answers(self) -> Answers:
        """All that was taken; what waits is written."""
        self._flush()
        columns = [np.array(column) for column in zip(*self._rows)] or [np.empty(0)] * 8
        return Answers(*columns, np.array(self._sampled, np.int64))

    def _flush(self) -> None:
        if not self._pending:
            return
        number = (len(self._sampled) - 1) // SHARD
        for part in self._parts:
            values = [getattr(seen, part) for seen in self._pending]
            if values[0] is not None:
                np.save(shard_file(self._folder, self._stem, number, part), np.stack(values))
        self._pending.clear()


def shard_file(folder: Path, stem: str, number: int, part: str) -> Path:
    """Where a part of a shard is."""
    return folder / f'{stem}-{number:03}.{part}.npy'


def write_labels(folder: Path, stem: str, sampled: Sequence[int], labels: np.ndarray) -> None:
    """The labels (T, h, w) of the `sampled` rows beside their shards, at the evidence's size; rows
    beyond T teach nothing.
    """
    beyond = np.full(labels.shape[1:], UNSURE, np.uint8)
    for number in range(-(-len(sampled) // SHARD)):
        rows = sampled[number * SHARD:(number + 1) * SHARD]
        small = np.stack([labels[row] if row < len(labels) else beyond for row in rows])
        path = shard_file(folder, stem, number, 'label')
        scratch = path.with_suffix('.part.npy')
        np.save(scratch, small.repeat(2, 1).repeat(2, 2))
        scratch.replace(path)


def ids_of(instances: Instances, size: tuple[int, int]) -> np.ndarray:
    """(h, w) uint8: 1, 2, ... where the instances are, at `size`."""
    found = np.zeros(size, np.uint8)
    for number, mask in enumerate(masks_at_size(instances.masks, size)[:254], 1):
        found[mask] = number
    return found


def at_image_size(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N, H, W) bool masks of ids (h, w), none empty."""
    large = cv2.resize(ids, size[::-1], interpolation=cv2.INTER_NEAREST)
    return np.array([large == number for number in np.unique(large) if number],
                    bool).reshape(-1, *size)
