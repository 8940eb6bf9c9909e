"""The data sets of the MoSIS thesis: its 2-D scenes behind three wrappers, rendered on demand.

N. Dubbeldam, "Motion-Supervised Instance Segmentation", TU Delft 2025, sections 3.9 and 4.1.

An image is (3, H, W) float32 in [0, 1]; a box is x1, y1, x2, y2 px with exclusive far edges, the
extent of the visible mask. Item i of a set is one frame of one video; a video is
`build_scene(preset, seed + video, split)`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mos_perception.errors import ConfigError
from training.scenes.moving_shapes import THESIS, Preset2D, Scene, build_scene

VIDEOS = 24  # the comparison set of section 4.1
SHARES = (0.70, 0.15, 0.15)
SPLITS = ('train', 'val', 'test')


class Mosis2D(Dataset):
    """The base set: image (3, H, W), masks (D, H, W) bool and boxes (D, 4) float32 of a frame.

    Objects that show fewer than the preset's `min_visible` px are left out: D varies and can be 0.
    """

    def __init__(self, preset: Preset2D = THESIS, videos: int | Sequence[int] = VIDEOS,
                 seed: int = 0, split: str = 'train', frames: np.ndarray | None = None,
                 device: str = 'cpu') -> None:
        """`videos`: their number, or which.

        `frames`: (N, 2) pairs (video, frame) to keep instead of all frames.
        """
        self.preset, self.seed, self.split, self.device = preset, seed, split, device
        if frames is None:
            numbers = range(videos) if isinstance(videos, int) else videos
            frames = [(video, t) for video in numbers for t in range(preset.frames)]
        self.frames = np.asarray(frames, np.int64).reshape(-1, 2)
        self._scenes: dict[int, Scene] = {}

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return self.item(*self._at(index))

    def item(self, video: int, frame: int) -> tuple[Tensor, Tensor, Tensor]:
        """(image, masks, boxes) of a frame."""
        scene = self.scene(video)
        image, ids = scene.render(np.array([frame]), self.device)
        areas = torch.bincount(ids.flatten().long(), minlength=len(scene.shapes) + 1)[1:]
        object_ids = torch.nonzero(areas >= self.preset.min_visible).flatten() + 1
        masks = ids == object_ids[:, None, None]
        return image[0], masks, boxes_of(masks)

    def scene(self, video: int) -> Scene:
        """The scene of a video; drawn once."""
        if video not in self._scenes:
            self._scenes[video] = build_scene(self.preset, self.seed + video, self.split)
        return self._scenes[video]

    def _at(self, index: int) -> tuple[int, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f'item {index} of a set of {len(self)}: use 0 to {len(self) - 1}')
        video, frame = self.frames[index]
        return int(video), int(frame)


class _Pairs(Mosis2D):
    """Only frames that have a next one."""

    def __init__(self, *arguments: object, **named: object) -> None:
        super().__init__(*arguments, **named)
        self.frames = self.frames[self.frames[:, 1] < self.preset.frames - 1]


class ImagePair(_Pairs):
    """(I_t, I_t+1), each (3, H, W)."""

    def item(self, video: int, frame: int) -> tuple[Tensor, ...]:
        """The pair that begins at a frame."""
        return self.scene(video).render(np.array([frame, frame + 1]), self.device)[0].unbind()


class FlowSupervised(_Pairs):
    """(I_t, I_t+1, flow (2, H, W) float32, valid (H, W) bool).

    The flow is px (x, y) from t to t+1 on the grid of I_t. On an object it is its rigid motion,
    which without spin is the thesis' difference of its centres; elsewhere that of the background.
    `valid`: the point is inside the next frame and not hidden there.
    """

    def item(self, video: int, frame: int) -> tuple[Tensor, ...]:
        """The pair that begins at a frame, with its flow."""
        images, ids = self.scene(video).render(np.array([frame, frame + 1]), self.device)
        return (*images.unbind(), *self.scene(video).flow(frame, ids[0]))


class YOLOSupervised(Mosis2D):
    """(I_t, boxes (D, 4) float32): xyxy px.

    With `normalised` YOLO's (cx, cy, w, h) in shares of the image.
    """

    def __init__(self, *arguments: object, normalised: bool = False, **named: object) -> None:
        super().__init__(*arguments, **named)
        self.normalised = normalised

    def item(self, video: int, frame: int) -> tuple[Tensor, ...]:
        """A frame with its boxes."""
        image, _, boxes = super().item(video, frame)
        if self.normalised:
            height, width = self.preset.size
            near, far = boxes[:, :2], boxes[:, 2:]
            boxes = torch.cat([near + far, 2 * (far - near)], 1) / 2
            boxes = boxes / torch.tensor([width, height, width, height], device=boxes.device)
        return image, boxes


def collate(items: list[tuple[Tensor, ...]]) -> tuple[Tensor | list[Tensor], ...]:
    """For a DataLoader: each place of the items stacked, or as a list.

    Stacked where its shapes agree by nature: images.
    """
    places = []
    for place in zip(*items):
        is_image = place[0].ndim == 3 and place[0].dtype == torch.float32
        places.append(torch.stack(place) if is_image else list(place))
    return tuple(places)


def boxes_of(masks: Tensor) -> Tensor:
    """(D, 4) float32 xyxy px, far edges exclusive, of (D, H, W) bool masks, none of them empty."""
    edges = []
    for axis in (1, 2):  # any over rows leaves columns
        line = masks.any(axis)
        edges.append((line.int().argmax(1), line.shape[1] - line.flip(1).int().argmax(1)))
    (x1, x2), (y1, y2) = edges
    return torch.stack([x1, y1, x2, y2], 1).float()


def comparison_frames(by: str = 'video', preset: Preset2D = THESIS, videos: int = VIDEOS,
                      seed: int = 0) -> dict[str, np.ndarray]:
    """The 70 / 15 / 15 split of section 4.1 as (N, 2) pairs (video, frame) for `frames=` of a set.

    by='video' gives whole videos (16 / 4 / 4 of 24): the honest one. by='frame' draws single
    frames: the thesis does not say which, but its 70 % of 24 videos is no whole number; near-equal
    frames then fall on both sides.
    """
    if by not in ('video', 'frame'):
        raise ConfigError(f'split by "{by}": choose "video" or "frame"')
    every = np.array([(v, t) for v in range(videos) for t in range(preset.frames)], np.int64)
    units = videos if by == 'video' else len(every)
    order = np.random.default_rng(seed).permutation(units)
    last = round(SHARES[2] * units)
    ends = [0, units - 2 * last, units - last, units]
    parts = {name: np.sort(order[a:b]) for name, a, b in zip(SPLITS, ends, ends[1:])}
    if by == 'video':
        return {name: every[np.isin(every[:, 0], part)] for name, part in parts.items()}
    return {name: every[part] for name, part in parts.items()}
