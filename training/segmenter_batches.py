"""Batches of labelled frames for the segmenter, from folders of `training.labelled_clips`.

Legend: B images, N segments of an image, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mos_perception.errors import DatasetError
from mos_perception.formats.files import naming, read_json
from mos_perception.formats.image_files import read_rgb


@dataclass(frozen=True)
class Augmentation:
    """What is done to frames: the same looks otherwise."""

    mirrored: float = 0.5
    """Share of frames whose left and right are exchanged."""
    gain: tuple[float, float] = (0.7, 1.2)
    """Factor of the pixel values, drawn per frame."""


@dataclass(frozen=True)
class Batch:
    """`images` (B, 3, H, W) float in [0, 1]; per image `masks` (N, H, W) float of 0 and 1 and their
    `classes` (N,) int64; `labels` (B, H, W) int64 the class of a pixel, -1 = void.
    """

    images: Tensor
    masks: list[Tensor]
    classes: list[Tensor]
    labels: Tensor


@dataclass(frozen=True)
class _Frame:
    picture: Path
    segments: Path
    classes: dict[int, int]  # of a segment's id


class LabelledFrames:
    """All frames of some folders that have a segment, read when asked for."""

    def __init__(self, folders: list[Path]) -> None:
        """Raises DatasetError for folders without such frames, or whose classes are not those of
        the first, things before stuff.
        """
        self._frames: list[_Frame] = []
        self.categories: list[str] = []
        self.things = 0
        for folder in folders:
            file = folder / 'panoptic.json'
            about = read_json(file)
            with naming(file):
                names = [str(one['name']) for one in about['categories']]
                flags = [bool(one['isthing']) for one in about['categories']]
                self.things = sum(flags)
                if flags != sorted(flags, reverse=True):
                    raise DatasetError(f'{file} has stuff before things in its categories: must be '
                                       'things first; order them so')
                place = {int(one['id']): row for row, one in enumerate(about['categories'])}
                self.categories = self.categories or names
                if names != self.categories:
                    raise DatasetError(f'{file} has the classes {", ".join(names)}, '
                                       f'{folders[0]} has {", ".join(self.categories)}: '
                                       'give folders of one kind')
                self._frames += [
                    _Frame(folder / 'JPEGImages' / video['video_id'] / frame['file_name'],
                           (folder / 'panomasksRGB' / video['video_id'] / frame['file_name']
                            ).with_suffix('.png'),
                           {int(one['id']): place[int(one['category_id'])]
                            for one in frame['segments_info']})
                    for video in about['annotations'] for frame in video['annotations']
                    if frame['segments_info']]
        if not self._frames:
            raise DatasetError(f'no frames in {", ".join(map(str, folders))} that have a segment: '
                               'make some with "python -m training.labelled_clips"')

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the first frame; `batch` wants all to be of it."""
        return read_rgb(self._frames[0].picture).shape[:2]

    def frame(self, at: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Picture (H, W, 3) uint8, masks (N, H, W) bool, classes (N,) int64. Raises DatasetError.
        """
        one = self._frames[at]
        ids = read_rgb(one.segments).astype(np.int64) @ [1, 256, 65536]
        numbers = np.array(list(one.classes), np.int64)
        return (read_rgb(one.picture), ids[None] == numbers[:, None, None],
                np.array(list(one.classes.values()), np.int64))

    def batch(self, made: Augmentation, rng: np.random.Generator, size: int) -> Batch:
        """`size` random frames. Raises DatasetError where their sizes differ."""
        rows = [augmented(*self.frame(int(at)), made, rng)
                for at in rng.integers(len(self), size=size)]
        sizes = {image.shape for image, _, _ in rows}
        if len(sizes) > 1:
            raise DatasetError(f'pictures of {sorted(sizes)} (height, width, 3): must be of one '
                               'size; give folders of such')
        labels = np.stack([np.where(masks.any(0), classes[masks.argmax(0)], -1)
                           for _, masks, classes in rows])
        images = np.stack([image.transpose(2, 0, 1) for image, _, _ in rows])
        return Batch(torch.from_numpy(images),
                     [torch.from_numpy(masks.astype(np.float32)) for _, masks, _ in rows],
                     [torch.from_numpy(classes) for _, _, classes in rows],
                     torch.from_numpy(labels))


def augmented(image: np.ndarray, masks: np.ndarray, classes: np.ndarray, made: Augmentation,
              rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Picture as float32 in [0, 1], masks and classes after what is done to a frame."""
    bright = np.float32(rng.uniform(*made.gain) / 255)
    if rng.random() < made.mirrored:
        image, masks = image[:, ::-1], masks[:, :, ::-1]
    return np.clip(image * bright, 0, 1), np.ascontiguousarray(masks), classes
