"""Labelled video written as `video_files` reads it: what is true, and what a system found.

    truth  JPEGImages/VIDEO/00000.jpg; of it instances.json (YouTube-VIS), panoptic.json beside
           panomasksRGB/VIDEO/*.png (VIPSeg) and data/VIDEO/mask/*.png (VSPW)
    found  vis.json; vps/pred.json beside vps/pan_pred/VIDEO/*.png; vss/VIDEO/*.png
A category of a JSON is the class + 1. Legend: T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from mos_perception.errors import DatasetError
from mos_perception.evaluation.video_ap import Code, VideoTrack
from mos_perception.evaluation.video_files import VOID
from mos_perception.evaluation.video_metrics import Panoptic
from mos_perception.formats.files import read_json, write_json
from mos_perception.formats.image_files import write_indexed, write_rgb
from mos_perception.masks import coco_codes

Record = dict[str, Any]
_FIRST_SEGMENT = 256  # ids in a PNG: stuff is its category, a thing this and its segment
_SAVE_EVERY = 20  # videos


class TruthFolder:
    """Truth in the three layouts at once; videos that are there already stay."""

    def __init__(self, root: Path, categories: Sequence[tuple[str, bool]]) -> None:
        """`categories`: name of each class, whether it is a thing. Raises DatasetError for a folder
        whose JSON is none or has other categories.
        """
        self.root, self._unsaved = root, 0
        named = [{'id': number, 'name': name, 'isthing': int(thing)}
                 for number, (name, thing) in enumerate(categories, 1)]
        self._vis: Record = {'videos': [], 'annotations': [], 'categories': [
            one for one in named if one['isthing']]}
        self._vps: Record = {'annotations': [], 'categories': named}
        if (root / 'panoptic.json').exists():
            self._vis = read_json(root / 'instances.json')
            self._vps = read_json(root / 'panoptic.json')
            if self._vps['categories'] != named:
                raise DatasetError(f'{root} has the categories {_listed(self._vps["categories"])}, '
                                   f'must be {_listed(named)}: give another folder')
        self.names = {one['video_id'] for one in self._vps['annotations']}
        # the other JSON may be a few videos ahead
        self._vis['videos'] = self._vis['videos'][:len(self.names)]
        self._vis['annotations'] = [one for one in self._vis['annotations']
                                    if one['video_id'] <= len(self.names)]

    @property
    def stamps_ns(self) -> list[int] | None:
        """(T,) of its first video, None where there is none."""
        return self._vis['videos'][0]['stamps_ns'] if self.names else None

    def add(self, name: str, frames: Iterable[np.ndarray], stamps_ns: np.ndarray,
            truth: Panoptic) -> None:
        """A video: `frames` T of (H, W, 3) uint8 RGB, `stamps_ns` (T,)."""
        videos, records = self._vis['videos'], self._vis['annotations']
        files = [f'{name}/{n:05d}.jpg' for n in range(len(stamps_ns))]
        for file, frame in zip(files, frames, strict=True):
            write_rgb(self.root / 'JPEGImages' / file, frame)
        height, width = truth.classes.shape[1:]
        video = {'id': len(videos) + 1, 'width': width, 'height': height, 'length': len(files),
                 'file_names': files, 'stamps_ns': np.asarray(stamps_ns).tolist()}
        for track in objects_of(truth):
            records.append({'id': len(records) + 1, **_track(track, video['id']), 'iscrowd': 0,
                            'areas': [code and int(coco.area(code)) for code in track.codes],
                            'bboxes': [code and coco.toBbox(code).tolist()
                                       for code in track.codes]})
        videos.append(video)
        self._vps['annotations'].append({'video_id': name, 'annotations': _panoptic(
            self.root / 'panomasksRGB' / name, truth)})
        for n, classes in enumerate(truth.classes):
            write_indexed(self.root / 'data' / name / 'mask' / f'{n:05d}.png',
                          np.where(classes < 0, 0, classes + 1))
        self.names.add(name)
        self._unsaved += 1
        if self._unsaved == _SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Write the JSONs."""
        write_json(self.root / 'instances.json', self._vis)
        write_json(self.root / 'panoptic.json', self._vps)
        self._unsaved = 0


class FoundFolder:
    """What a system found, for the three tasks at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._vis: list[Record] = []
        self._vps: list[Record] = []

    def add(self, number: int, name: str, tracks: Sequence[VideoTrack], panoptic: Panoptic,
            classes: np.ndarray) -> None:
        """A video by its number in the YouTube-VIS JSON and its name: the tracks of vis, the maps
        of vps and the classes (T, H, W) of vss.
        """
        self._vis += [{**_track(track, number), 'score': track.score} for track in tracks]
        self._vps.append({'video_id': name, 'annotations': _panoptic(
            self.root / 'vps' / 'pan_pred' / name, panoptic)})
        for n, image in enumerate(classes):
            write_indexed(self.root / 'vss' / name / f'{n:05d}.png',
                          np.where(image < 0, VOID, image))

    def save(self) -> None:
        """Write the JSONs."""
        write_json(self.root / 'vis.json', self._vis)
        write_json(self.root / 'vps' / 'pred.json', {'annotations': self._vps})


def objects_of(truth: Panoptic) -> list[VideoTrack]:
    """The things of a video."""
    found = []
    for number in np.unique(truth.segments[truth.segments > 0]).tolist():
        masks = truth.segments == number
        found.append(VideoTrack(codes_of(masks), int(truth.classes[masks][0]) + 1))
    return found


def codes_of(masks: np.ndarray) -> list[Code | None]:
    """The COCO codes of one object's masks (T, H, W) bool, None where it is not seen."""
    size = list(masks.shape[1:])
    return [{'size': size, 'counts': code} if mask.any() else None
            for mask, code in zip(masks, coco_codes(masks))]




def _listed(categories: list[Record]) -> str:
    return ', '.join(f'{one["name"]} ({"thing" if one["isthing"] else "stuff"})'
                     for one in categories)


def _track(track: VideoTrack, number: int) -> Record:
    codes = [code and {**code, 'counts': code['counts'].decode()} for code in track.codes]
    return {'video_id': number, 'category_id': track.category, 'segmentations': codes}


def _panoptic(folder: Path, video: Panoptic) -> list[Record]:
    """Write the PNGs; returns what the JSON says of the frames."""
    frames = []
    for n, (classes, segments) in enumerate(zip(video.classes, video.segments)):
        ids = np.where(classes < 0, 0, np.where(segments > 0, _FIRST_SEGMENT + segments,
                                                classes + 1)).astype(np.int64)
        red_first = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1)
        write_rgb(folder / f'{n:05d}.png', red_first.astype(np.uint8))
        there = zip(*np.unique(ids, return_index=True))
        frames.append({'file_name': f'{n:05d}.jpg', 'segments_info': [
            {'id': int(number), 'category_id': int(classes.flat[at]) + 1}
            for number, at in there if number]})
    return frames
