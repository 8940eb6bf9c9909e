"""YouTube-VIS: pictures by video and one JSON per split with COCO run lengths per frame.

The pictures are `<split>/JPEGImages/<video>/00000.jpg`; the JSON lies at `<split>/instances.json`,
`<split>.json` or `<split>/valid.json` and holds
    videos       [{id, file_names, width, height, length}]
    annotations  [{id, video_id, category_id, iscrowd, bboxes xywh, areas,
                   segmentations: one record or null per frame}]
    categories
There are no times: frames are 1 / fps apart from 1 s on, unless our extra `stamps_ns` says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mos_perception.errors import DatasetError
from mos_perception.formats import tracks
from mos_perception.formats.files import below, naming, read_json, write_json
from mos_perception.formats.findings import Report
from mos_perception.formats.image_files import read_rgb, write_rgb
from mos_perception.formats.layout import refuse_existing, refuse_twins
from mos_perception.formats.sequence import LazyArray, Sequence, regular_stamps
from mos_perception.masks import coco_from_mask, mask_from_coco

FPS = 6.0  # of the annotated frames: every fifth of 30 Hz video

Video = dict[str, Any]


def find(path: str | Path) -> list[str]:
    """Names of the videos, 'split/folder'."""
    return [name for file in json_files(Path(path)) for name in videos(file)]


def json_files(path: Path) -> list[Path]:
    """Annotation files at or under `path`."""
    if path.is_file():
        return [path] if path.suffix == '.json' and images_folder(path).is_dir() else []
    found = [path / 'instances.json', *sorted(path.glob('*/instances.json')),
             *sorted(path.glob('*.json'))]
    return [file for file in found if file.is_file() and images_folder(file).is_dir()]


def images_folder(file: Path) -> Path:
    """Where the pictures of an annotation file lie."""
    inside = file.parent / 'JPEGImages'
    return inside if inside.is_dir() else file.parent / file.stem / 'JPEGImages'


def videos(file: Path) -> dict[str, Video]:
    """Video records by 'split/folder'. Raises DatasetError, also where two share folder or id."""
    with naming(file):
        split = images_folder(file).parent.name
        found = [video for video in read_json(file)['videos'] if video.get('file_names')]
        folders = [video['file_names'][0].split('/')[0] for video in found]
        refuse_twins(file, 'folder', folders)
        refuse_twins(file, 'id', [video['id'] for video in found])
        return {f'{split}/{folder}': video for folder, video in zip(folders, found)}


def read(path: str | Path, name: str = '', fps: float = FPS) -> Sequence:
    """One video. Raises DatasetError."""
    for file in json_files(Path(path)):
        known = videos(file)
        found = name or next(iter(known), '')
        if found in known:
            return _read(file, found, known[found], fps)
    raise DatasetError(f'{path} has no YouTube-VIS video {name}: '
                       f'it has {", ".join(find(path)[:10]) or "none"}')


def _read(file: Path, name: str, video: Video, fps: float) -> Sequence:
    with naming(file):
        files = [below(images_folder(file), picture) for picture in video['file_names']]
        size, count = (int(video['height']), int(video['width'])), len(files)
        records = _records(read_json(file), video)
        stamps = video.get('stamps_ns') or regular_stamps(range(count), fps)
        return Sequence(
            name, size, np.array(stamps, np.int64),
            frames=LazyArray(count, lambda n: read_rgb(files[n])),
            ids=tracks.id_images(records, count, size, mask_from_coco, file),
            boxes=tracks.boxes_of(records, count), moving=tracks.moving_of(records, count),
            split=name.split('/')[0])


def _records(annotations: dict[str, Any], video: Video) -> list[tracks.Record]:
    """The track records of a video."""
    records = annotations.get('annotations') or []
    return [record for record in records if record['video_id'] == video['id']]


def write(sequence: Sequence, path: str | Path, split: str = 'train', suffix: str = '.jpg',
          video: str = '', compressed: bool = True) -> Path:
    """Add a sequence to `path/<split>` as the folder `video`, by default of its name.

    `suffix`: .jpg loses exact pixels, .png keeps them. `compressed` False: run lengths as lists, as
    trackeval wants. Returns the JSON. Raises DatasetError: no frames, or the video exists.
    """
    frames = sequence.require_frames('YouTube-VIS')
    file = Path(path) / split / 'instances.json'
    video = video or sequence.name.replace('/', '_') or 'video'
    names = [f'{video}/{n:05d}{suffix}' for n in range(len(sequence))]
    pictures = file.parent / 'JPEGImages'
    refuse_existing(pictures / video, 'video')
    for n, name in enumerate(names):
        write_rgb(pictures / name, frames[n])
    annotations = tracks.read_annotations(file, 'object', {})
    video_id = tracks.next_id(annotations['videos'])
    height, width = sequence.size
    annotations['videos'].append(
        {'id': video_id, 'width': width, 'height': height, 'length': len(names),
         'file_names': names, 'stamps_ns': sequence.stamps_ns.tolist()})
    tracks.add_records(annotations, sequence, lambda mask: coco_from_mask(mask, compressed),
                       video_id=video_id, width=width, height=height)
    write_json(file, annotations)
    return file


def inspect(path: Path, report: Report) -> None:
    """Add what is wrong with the annotation files at `path` and the pictures they name."""
    for file in json_files(path):
        with report.guard(file):
            annotations = read_json(file)
            known = {video['id'] for video in annotations['videos']}
            for video in annotations['videos']:
                _inspect_video(file, annotations, video, report)
            records = annotations.get('annotations') or []
            lost = {record['video_id'] for record in records} - known
            if lost:
                report.add('annotation-without-mask', file,
                           f'annotations of unknown videos {sorted(lost)}')
            videos(file)  # which refuses two of one folder or id


def _inspect_video(file: Path, annotations: dict[str, Any], video: Video, report: Report) -> None:
    where = f'{file} (video {video["id"]})'
    pictures = [below(images_folder(file), name) for name in video['file_names']]
    there = [picture for picture in pictures if picture.is_file()]
    gone = [picture for picture in pictures if not picture.is_file()]
    if gone:
        report.add('missing-file', gone[0],
                   f'{len(gone)} pictures of video {video["id"]} are missing')
    if not pictures:
        report.add('empty-sequence', where, 'it has no pictures')
    size = (video['height'], video['width'])
    found = report.picture_sizes(where, there)
    if pictures != gone and found != size:
        report.add('size-differs', where, f'pictures have {found} px, the record says {size}')
    tracks.inspect_records(_records(annotations, video), len(pictures), size, where, report,
                           mask_from_coco)
