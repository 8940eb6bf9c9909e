"""Truth and predictions of the tasks of labelled video, from the files of their data sets.

    vis  YouTube-VIS or OVIS JSON; predictions [{video_id, category_id, score, segmentations}]
    vps  panoptic_gt_VIPSeg_*.json beside panomasksRGB/VIDEO/*.png (an id a pixel, red first);
         predictions pred.json beside pan_pred/VIDEO/*.png of the same form
    vss  VSPW, data/VIDEO/mask/*.png: class + 1, 0 and 255 void; predictions VIDEO/*.png: the class
         from 0, 255 void
Every error of a file is a DatasetError that names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from mos_perception.errors import DatasetError
from mos_perception.evaluation.video_ap import Code, VideoTrack, occlusion_of
from mos_perception.evaluation.video_metrics import Panoptic
from mos_perception.formats.files import naming, read_json
from mos_perception.formats.image_files import read_indexed, read_rgb
from mos_perception.formats.layout import images, refuse_twins
from mos_perception.masks import coco_codes, mask_from_coco

OCCLUSION = {'no_occlusion': 0.0, 'slight_occlusion': 0.25, 'severe_occlusion': 0.75}
VOID = 255


@dataclass(frozen=True)
class Video:
    """One video of a JSON: its number there, (height, width) and frames."""

    number: int
    name: str
    size: tuple[int, int]
    frames: int


def read_videos(path: Path) -> list[Video]:
    """The videos of a YouTube-VIS or OVIS JSON; two of one id are refused."""
    with naming(path):
        found = [Video(int(one['id']), one['file_names'][0].split('/')[0],
                       (int(one['height']), int(one['width'])), len(one['file_names']))
                 for one in read_json(path)['videos']]
    refuse_twins(path, 'id', [video.number for video in found])
    return found


def read_objects(path: Path) -> dict[int, list[VideoTrack]]:
    """The true objects by the number of their video; run lengths or polygons."""
    videos = {video.number: video for video in read_videos(path)}
    found: dict[int, list[VideoTrack]] = {number: [] for number in videos}
    with naming(path):
        for record in read_json(path)['annotations'] or []:
            video = _video(videos, record)
            levels = [OCCLUSION[name] for name in record.get('occlusion') or [] if name]
            found[video.number].append(VideoTrack(
                _codes(record, video), int(record['category_id']),
                crowd=bool(record.get('iscrowd', 0)), occlusion=occlusion_of(levels)))
    return found


def read_results(path: Path, videos: list[Video]) -> dict[int, list[VideoTrack]]:
    """The predicted tracks by the number of their video."""
    known = {video.number: video for video in videos}
    found: dict[int, list[VideoTrack]] = {number: [] for number in known}
    with naming(path):
        for record in read_json(path):
            video, score = _video(known, record), float(record['score'])
            if not np.isfinite(score):
                raise DatasetError(f'{path}: a track of video {video.number} has score {score}: '
                                   'must be a finite number')
            found[video.number].append(VideoTrack(_codes(record, video),
                                                  int(record['category_id']), score))
    return found


def _video(videos: dict[int, Video], record: dict[str, Any]) -> Video:
    number = int(record['video_id'])
    if number not in videos:
        raise DatasetError(f'a track is of video {number}, which the truth does not have: it has '
                           f'{", ".join(map(str, list(videos)[:10]))}')
    return videos[number]


def _codes(record: dict[str, Any], video: Video) -> list[Code | None]:
    """The COCO code of each frame. Raises DatasetError where they are no masks of the video."""
    given = record['segmentations']
    if len(given) != video.frames:
        raise DatasetError(f'a track of video {video.number} has {len(given)} masks for its '
                           f'{video.frames} frames: must be one, or null, for each')
    return [_code(one, video.size) if one else None for one in given]


def _code(given: Any, size: tuple[int, int]) -> Code:
    if isinstance(given, list):
        outlines = [[float(value) for value in outline] for outline in given]
        if any(len(outline) < 6 or len(outline) % 2 or not np.isfinite(outline).all()
               for outline in outlines):
            raise DatasetError('an outline must be three or more pairs of finite x and y')
        return coco.merge(coco.frPyObjects(outlines, *size))
    mask = mask_from_coco(given)
    if mask.shape != size:
        raise DatasetError(f'a mask is of {mask.shape} px, its video of {size} px')
    return {'size': list(size), 'counts': coco_codes(np.ascontiguousarray(mask)[None])[0]}


def read_vps(truth: Path, predictions: Path) -> tuple[frozenset[int], Iterator[
        tuple[str, Panoptic, Panoptic]]]:
    """The classes that are things, and the videos one after the other: name, truth, prediction.
    `truth`: the JSON; `predictions`: the folder.
    """
    with naming(truth):
        about = read_json(truth)
        things = frozenset(int(one['id']) for one in about['categories'] if one['isthing'])
        wanted = _by_video(truth, about)
    with naming(predictions / 'pred.json'):
        given = _by_video(predictions / 'pred.json', read_json(predictions / 'pred.json'))
    if missing := sorted(set(wanted) - set(given)):
        raise DatasetError(f'{predictions / "pred.json"} lacks {len(missing)} videos of the truth: '
                           f'{", ".join(map(str, missing[:10]))}')

    def videos() -> Iterator[tuple[str, Panoptic, Panoptic]]:
        for name, frames in wanted.items():
            yield (str(name), _panoptic(truth.parent / 'panomasksRGB' / str(name), frames, things),
                   _panoptic(predictions / 'pan_pred' / str(name), given[name], things))
    return things, videos()


def _by_video(path: Path, about: dict[str, Any]) -> dict[Any, list[dict[str, Any]]]:
    """The frames of each video of a panoptic JSON."""
    refuse_twins(path, 'id', [one['video_id'] for one in about['annotations']])
    return {one['video_id']: one['annotations'] for one in about['annotations']}


def _panoptic(folder: Path, frames: list[dict[str, Any]], things: frozenset[int]) -> Panoptic:
    classes, segments = [], []
    for frame in frames:
        path = folder / Path(frame['file_name']).with_suffix('.png').name
        ids = read_rgb(path).astype(np.int64) @ [1, 256, 65536]
        with naming(folder):
            infos = {int(one['id']): one for one in frame['segments_info']}
        shown = np.full(ids.shape, -1, np.int64)
        names = np.zeros(ids.shape, np.int64)
        for number in np.unique(ids).tolist():
            info = infos.get(number)
            if info is None and number:
                raise DatasetError(f'{path} has pixels of segment {number}, of which its JSON says '
                                   'nothing: fetch or write both again')
            if info is not None and not info.get('iscrowd', 0):
                category = int(info['category_id'])
                shown[ids == number] = category
                names[ids == number] = number if category in things else 0
        classes.append(shown)
        segments.append(names)
    sizes = {one.shape for one in classes}
    if len(sizes) != 1:
        raise DatasetError(f'{folder} has frames of {sorted(sizes)} px: must be one size, and one '
                           'frame or more')
    return Panoptic(np.stack(classes), np.stack(segments))


def read_vss(root: Path, predictions: Path, split: str) -> Iterator[tuple[str, np.ndarray,
                                                                        np.ndarray]]:
    """Name, true and predicted classes (T, H, W), void < 0, of the videos of `<split>.txt`, or of
    all where there is no such file.
    """
    names = root / f'{split}.txt'
    with naming(names):
        found = names.read_text().split() if names.is_file() else sorted(
            folder.name for folder in (root / 'data').glob('*') if folder.is_dir())
    if not found:
        raise DatasetError(f'{root} has no videos in data/: is it the folder of VSPW?')
    for name in found:
        truth, given = (images(folder) for folder in (root / 'data' / name / 'mask',
                                                      predictions / name))
        if not truth or [file.stem for file in truth] != [file.stem for file in given]:
            raise DatasetError(f'{predictions / name} has {len(given)} masks, the truth '
                               f'{len(truth)}: must be one of the same name for each')
        wanted = np.stack([read_indexed(file) for file in truth]).astype(np.int64)
        shown = np.stack([read_indexed(file) for file in given]).astype(np.int64)
        yield (name, np.where((wanted == 0) | (wanted == VOID), -1, wanted - 1),
               np.where(shown == VOID, -1, shown))
