"""YouTube-VIS: `<split>/JPEGImages/<video>/00000.jpg` and one JSON per split with COCO run lengths per frame.

videos [{id, file_names, width, height, length}], annotations [{id, video_id, category_id, iscrowd, segmentations: one
record or null per frame, bboxes xywh, areas}], categories. The JSON lies at `<split>/instances.json`, `<split>.json` or
`<split>/valid.json`. There are no times: frames are 1 / fps apart from 1 s on, unless our extra `stamps_ns` says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mos_perception import masks
from mos_perception.errors import DatasetError
from mos_perception.formats import tracks
from mos_perception.formats.files import naming, read_json, read_rgb, write_json, write_rgb
from mos_perception.formats.sequence import Sequence, Stack

FPS = 6.0  # of the annotated frames: every fifth of 30 Hz video
START_NS = 1_000_000_000


def find(path: str | Path) -> list[str]:
    """Names of the videos, 'split/folder'."""
    return [name for file in json_files(Path(path)) for name in videos(file)]


def json_files(path: Path) -> list[Path]:
    """Annotation files at or under `path`."""
    if path.is_file():
        return [path] if path.suffix == '.json' and images_folder(path).is_dir() else []
    found = [path / 'instances.json', *sorted(path.glob('*/instances.json')), *sorted(path.glob('*.json'))]
    return [file for file in found if file.is_file() and images_folder(file).is_dir()]


def images_folder(file: Path) -> Path:
    """Where the pictures of an annotation file lie."""
    inside = file.parent / 'JPEGImages'
    return inside if inside.is_dir() else file.parent / file.stem / 'JPEGImages'


def videos(file: Path) -> dict[str, dict[str, Any]]:
    """Video records by 'split/folder'. Raises DatasetError."""
    with naming(file):
        split = images_folder(file).parent.name
        return {f'{split}/{entry["file_names"][0].split("/")[0]}': entry
                for entry in read_json(file)['videos'] if entry.get('file_names')}


def read(path: str | Path, name: str = '', fps: float = FPS) -> Sequence:
    """One video. Raises DatasetError."""
    for file in json_files(Path(path)):
        known = videos(file)
        if known and (name in known or not name):
            return _read(file, name or next(iter(known)), known[name or next(iter(known))], fps)
    raise DatasetError(f'{path} has no YouTube-VIS video {name}: it has {", ".join(find(path)[:10]) or "none"}')


def _read(file: Path, name: str, video: dict[str, Any], fps: float) -> Sequence:
    with naming(file):
        folder, size = images_folder(file), (int(video['height']), int(video['width']))
        count = len(video['file_names'])
        rows = [entry for entry in read_json(file).get('annotations') or [] if entry['video_id'] == video['id']]
        stamps = video.get('stamps_ns') or [START_NS + round(n * 1e9 / fps) for n in range(count)]
        return Sequence(
            name, size, np.array(stamps, np.int64), Stack(count, lambda n: read_rgb(folder / video['file_names'][n])),
            ids=tracks.ids_of(rows, count, size, masks.mask_from_coco, file), boxes=tracks.boxes_of(rows, count),
            moving=tracks.moving_of(rows, count), split=name.split('/')[0])


def write(sequence: Sequence, path: str | Path, split: str = 'train', suffix: str = '.jpg', video: str = '',
          compressed: bool = True) -> Path:
    """Add a sequence to `path/<split>`. Returns the JSON. `compressed` False: run lengths as lists, as trackeval wants.

    Raises DatasetError: no frames, or the video exists.
    """
    if sequence.frames is None:
        raise DatasetError(f'sequence {sequence.name} has no frames: YouTube-VIS needs them')
    file = Path(path) / split / 'instances.json'
    video = video or sequence.name.replace('/', '_') or 'video'
    names = [f'{video}/{n:05d}{suffix}' for n in range(len(sequence))]
    if (file.parent / 'JPEGImages' / video).exists():
        raise DatasetError(f'{file.parent / "JPEGImages" / video} exists: name another video')
    for n, name in enumerate(names):
        write_rgb(file.parent / 'JPEGImages' / name, sequence.frames[n])
    whole = read_json(file) if file.exists() else {'info': {}, 'videos': [], 'annotations': [],
                                                   'categories': [{'id': 1, 'name': 'object'}]}
    number = 1 + max((entry['id'] for entry in whole['videos']), default=0)
    height, width = sequence.size
    whole['videos'].append({'id': number, 'width': width, 'height': height, 'length': len(names), 'file_names': names,
                            'stamps_ns': sequence.stamps_ns.tolist()})
    first = 1 + max((entry['id'] for entry in whole['annotations']), default=0)
    whole['annotations'] += [{**record, 'video_id': number, 'width': width, 'height': height} for record in
                             tracks.records_of(sequence, first, lambda mask: masks.coco_from_mask(mask, compressed))]
    write_json(file, whole)
    return file
