"""Track records of video JSON (one per object, a list over frames) to and from id images. MouseSIS and YouTube-VIS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mos_perception.formats.files import naming
from mos_perception.formats.sequence import Sequence, Stack
from mos_perception.masks import object_boxes

Moving = tuple[dict[int, bool], ...]
Boxes = tuple[dict[int, tuple[float, float, float, float]], ...]


def numbers_of(annotations: list[dict[str, Any]]) -> list[int]:
    """The object id of each record: its `object_id` (ours) or `id`; 1..K in order where those do not fit 16 bits."""
    numbers = [int(entry.get('object_id', entry['id'])) for entry in annotations]
    fits = all(0 < number < 65536 for number in numbers) and len(set(numbers)) == len(numbers)
    return numbers if fits else list(range(1, len(numbers) + 1))


def ids_of(annotations: list[dict[str, Any]], count: int, size: tuple[int, int],
           decode: Callable[[Any], np.ndarray], source: Path) -> Stack:
    """(T, H, W) u16 from track records of the file `source`. Large objects are painted first: small ones stay seen."""
    numbers = numbers_of(annotations)

    def row(frame: int) -> np.ndarray:
        image = np.zeros(size, np.uint16)
        with naming(source):
            masks = [(number, decode(entry['segmentations'][frame])) for number, entry in zip(numbers, annotations)
                     if frame < len(entry['segmentations']) and entry['segmentations'][frame]]
            for number, mask in sorted(masks, key=lambda pair: -int(pair[1].sum())):
                image[mask] = number
        return image
    return Stack(count, row)


def boxes_of(annotations: list[dict[str, Any]], count: int) -> Boxes:
    """Per frame: id -> xyxy, from `bboxes` (x, y, width, height)."""
    boxes: list[dict[int, tuple[float, float, float, float]]] = [{} for _ in range(count)]
    for number, entry in zip(numbers_of(annotations), annotations):
        for frame, box in enumerate((entry.get('bboxes') or [])[:count]):
            if box:
                boxes[frame][number] = (box[0], box[1], box[0] + box[2], box[1] + box[3])
    return tuple(boxes)


def moving_of(annotations: list[dict[str, Any]], count: int) -> Moving | None:
    """Per frame: id -> moves, from our extra list `moving`; None where no record has it."""
    if not any('moving' in entry for entry in annotations):
        return None
    moving: list[dict[int, bool]] = [{} for _ in range(count)]
    for number, entry in zip(numbers_of(annotations), annotations):
        for frame, flag in enumerate(entry.get('moving', [])[:count]):
            if flag is not None:
                moving[frame][number] = bool(flag)
    return tuple(moving)


def records_of(sequence: Sequence, first_id: int, encode: Callable[[np.ndarray], Any]) -> list[dict[str, Any]]:
    """Track records of all objects; `id` counts from `first_id`, our extra `object_id` keeps the sequence's own."""
    records: dict[int, dict[str, Any]] = {}
    count = len(sequence)
    for frame in range(count):
        ids = sequence.truth(frame)
        flags = {} if sequence.moving is None else sequence.moving[frame]
        boxes = {} if ids is None else object_boxes(ids)
        for number, (x0, y0, x1, y1) in boxes.items():
            record = records.setdefault(number, {'object_id': number, 'category_id': 1, 'iscrowd': 0, **{
                name: [None] * count for name in ('segmentations', 'areas', 'bboxes')}})
            mask = ids == number
            record['segmentations'][frame] = encode(mask)
            record['areas'][frame] = int(mask.sum())
            record['bboxes'][frame] = [x0, y0, x1 - x0, y1 - y0]
            if number in flags:
                record.setdefault('moving', [None] * count)[frame] = bool(flags[number])
    return [{'id': first_id + n, **records[number]} for n, number in enumerate(sorted(records))]
