"""Track records of video JSON to and from id images: MouseSIS and YouTube-VIS.

A record is one object; its `segmentations`, `bboxes` (x, y, width, height) and `areas` are lists
over the frames of the video, null where the object is not seen. Legend: T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mos_perception.formats.files import naming, read_json
from mos_perception.formats.findings import Report
from mos_perception.formats.sequence import Box, Boxes, LazyArray, Moving, Sequence
from mos_perception.masks import object_boxes

Record = dict[str, Any]
Decoder = Callable[[Any], np.ndarray]  # a record's code of one frame -> (H, W) bool mask
Encoder = Callable[[np.ndarray], Any]


def object_ids(records: list[Record]) -> list[int]:
    """The object id of each record: its `object_id` (our extra key) or its `id`.

    1..K in order where those do not fit 16 bits.
    """
    ids = [int(record.get('object_id', record['id'])) for record in records]
    fits = all(0 < object_id < 65536 for object_id in ids) and len(set(ids)) == len(ids)
    return ids if fits else list(range(1, len(ids) + 1))


def id_images(records: list[Record], count: int, size: tuple[int, int], decode: Decoder,
              source: Path) -> LazyArray:
    """(T, H, W) u16 from the track records of the file `source`, T being `count`.

    Large objects are painted first, so that small ones stay seen.
    """
    ids = object_ids(records)

    def image_of(frame: int) -> np.ndarray:
        image = np.zeros(size, np.uint16)
        masks: list[tuple[int, np.ndarray]] = []
        with naming(source):
            for object_id, record in zip(ids, records):
                codes = record['segmentations']
                if frame < len(codes) and codes[frame]:
                    masks.append((object_id, decode(codes[frame])))
            for object_id, mask in sorted(masks, key=lambda pair: -int(pair[1].sum())):
                image[mask] = object_id
        return image
    return LazyArray(count, image_of)


def boxes_of(records: list[Record], count: int) -> Boxes:
    """The boxes in the `bboxes` of the records of a video of `count` frames."""
    boxes: list[dict[int, Box]] = [{} for _ in range(count)]
    for object_id, record in zip(object_ids(records), records):
        for frame, box in enumerate((record.get('bboxes') or [])[:count]):
            if box:
                boxes[frame][object_id] = (box[0], box[1], box[0] + box[2], box[1] + box[3])
    return tuple(boxes)


def moving_of(records: list[Record], count: int) -> Moving | None:
    """The flags in our extra list `moving`; None where no record has it."""
    if not any('moving' in record for record in records):
        return None
    moving: list[dict[int, bool]] = [{} for _ in range(count)]
    for object_id, record in zip(object_ids(records), records):
        for frame, flag in enumerate(record.get('moving', [])[:count]):
            if flag is not None:
                moving[frame][object_id] = bool(flag)
    return tuple(moving)


def records_of(sequence: Sequence, first_id: int, encode: Encoder) -> list[Record]:
    """Track records of all objects.

    `id` counts from `first_id`; our extra `object_id` keeps the sequence's own.
    """
    records: dict[int, Record] = {}
    for frame in range(len(sequence)):
        ids = sequence.truth(frame)
        if ids is None:
            continue
        flags = {} if sequence.moving is None else sequence.moving[frame]
        for object_id, (x0, y0, x1, y1) in object_boxes(ids).items():
            if object_id not in records:
                records[object_id] = _empty_record(object_id, len(sequence))
            record, mask = records[object_id], ids == object_id
            record['segmentations'][frame] = encode(mask)
            record['areas'][frame] = int(mask.sum())
            record['bboxes'][frame] = [x0, y0, x1 - x0, y1 - y0]
            if object_id in flags:
                record.setdefault('moving', [None] * len(sequence))
                record['moving'][frame] = bool(flags[object_id])
    return [{'id': first_id + n, **records[object_id]}
            for n, object_id in enumerate(sorted(records))]


def _empty_record(object_id: int, count: int) -> Record:
    """The record of an object that is seen in none of `count` frames."""
    return {'object_id': object_id, 'category_id': 1, 'iscrowd': 0,
            'segmentations': [None] * count, 'areas': [None] * count, 'bboxes': [None] * count}


def read_annotations(file: Path, category: str, info: dict[str, Any]) -> dict[str, Any]:
    """What an annotation file holds, for `add_records`; without one, a set of one category."""
    if file.exists():
        return read_json(file)
    return {'info': info, 'videos': [], 'annotations': [],
            'categories': [{'id': 1, 'name': category}]}


def add_records(annotations: dict[str, Any], sequence: Sequence, encode: Encoder,
                **fields: Any) -> None:
    """Add the track records of a sequence, each with `fields`, to what an annotation file holds."""
    records = records_of(sequence, next_id(annotations['annotations']), encode)
    annotations['annotations'] += [{**record, **fields} for record in records]


def next_id(entries: list[dict[str, Any]]) -> int:
    """The first id above those of the entries."""
    return 1 + max((entry['id'] for entry in entries), default=0)


def inspect_records(records: Iterable[Record], count: int, size: tuple[int, int], where: str,
                    report: Report, decode: Decoder) -> None:
    """Compare track records with a video of `count` frames of `size`; findings are `where`."""
    records, seen = list(records), set()
    for record in records:
        with report.guard(where, 'mask-code'):
            codes = record['segmentations']
            if len(codes) != count:
                report.add('count-differs', where, f'object {record["id"]} has {len(codes)} masks '
                           f'for {count} frames')
            for code in filter(None, codes):
                if tuple(code['size']) != tuple(size):
                    report.add('size-differs', where, f'object {record["id"]} has masks of '
                               f'{code["size"]} px, frames are {list(size)}')
                if decode(code).any():
                    seen.add(record['id'])
    report.object_ids(where, seen, {record['id'] for record in records})
