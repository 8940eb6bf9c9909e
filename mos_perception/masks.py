"""Masks: their boxes, and their run lengths as text. Legend: N masks, H W pixels.

Boxes are (x0, y0, x1, y1) px, the far edges exclusive. Run lengths go down the columns: as
start-length pairs (MouseSIS) and as COCO's, plain or compressed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco

from mos_perception.errors import DatasetError

COCO_RLE = 'coco_rle'  # the name of compressed COCO run lengths in mos_msgs/Instance


def mask_box(mask_HW: np.ndarray) -> tuple[int, int, int, int]:
    """The extent of an (H, W) bool mask; zeros where it is empty."""
    x, y, width, height = cv2.boundingRect(mask_HW.view(np.uint8))
    return x, y, x + width, y + height


def mask_boxes(masks_NHW: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """(N, 4) float32 extents of (N, H, W) bool masks; zeros where one is empty."""
    return np.array([mask_box(mask) for mask in masks_NHW], np.float32).reshape(-1, 4)


def iou(one: np.ndarray, other: np.ndarray) -> float | None:
    """Of two (H, W) bool masks; None where both are empty."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else None


def masks_at_size(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N, H, W) bool masks at another size: bilinear, half covered or more."""
    if masks.shape[1:] == size:
        return masks
    grown = [cv2.resize(mask.astype(np.float32), (size[1], size[0]),
                        interpolation=cv2.INTER_LINEAR) >= 0.5 for mask in masks]
    return np.array(grown, bool).reshape(-1, *size)


def object_boxes(ids_HW: np.ndarray) -> dict[int, tuple[int, int, int, int]]:
    """id -> extent of every object in an (H, W) image of ids, in their order; 0 is background."""
    objects = (int(value) for value in np.unique(ids_HW) if value)
    return {object_id: mask_box(ids_HW == object_id) for object_id in objects}


def coco_codes(masks_NHW: np.ndarray) -> list[bytes]:
    """The compressed COCO run-length string of each of (N, H, W) bool masks."""
    if not len(masks_NHW):
        return []
    count, height, width = masks_NHW.shape
    columns = np.empty((count, width, height), np.uint8)  # COCO runs down the columns
    for mask, out in zip(masks_NHW.view(np.uint8), columns):
        cv2.transpose(mask, out)
    return [code['counts'] for code in coco.encode(columns.transpose(2, 1, 0))]


def coco_from_mask(mask: np.ndarray, compressed: bool = True) -> dict[str, Any]:
    """The COCO record of an (H, W) bool mask: {'size': [H, W], 'counts': text}.

    Not `compressed`: the counts are a list.
    """
    counts = coco_codes(mask[None])[0].decode() if compressed else _runs(mask).tolist()
    return {'size': [int(side) for side in mask.shape], 'counts': counts}


def mask_from_coco(record: dict[str, Any]) -> np.ndarray:
    """(H, W) bool mask of a COCO run-length record, compressed or not.

    Not by pycocotools, which hands out uninitialised memory for runs that are too short.
    Raises DatasetError for a record that is no code, or whose runs do not fill the image.
    """
    try:
        height, width = (int(side) for side in record['size'])
        counts = record['counts']
        if isinstance(counts, str):
            runs = runs_from_text(counts.encode('latin-1'))
        else:
            runs = [int(value) for value in counts]
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # UnicodeError, too
        raise DatasetError(
            f'mask record {str(record)[:60]} is no COCO run-length code: {error!r}') from error
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise DatasetError(f'mask has runs of {sum(runs)} px in all: '
                           f'must be {height} x {width} = {height * width}')
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def runs_from_text(code: bytes) -> list[int]:
    """Run lengths from a compressed COCO string, background first.

    `rleFrString` of the COCO API: five bits a letter, low ones first; 0x20 marks that more follow.
    """
    runs: list[int] = []
    value = shift = 0
    for byte in code:
        digit = byte - 48
        value |= (digit & 0x1f) << shift
        shift += 5
        if digit & 0x20:
            continue
        if digit & 0x10:  # the sign
            value -= 1 << shift
        if len(runs) > 2:  # stored as the difference to the run two before
            value += runs[-2]
        runs.append(value)
        value = shift = 0
    return runs


def pairs_from_mask(mask: np.ndarray, base: int = 1) -> str:
    """'start length start length ...' of an (H, W) bool mask; the first pixel is number `base`."""
    runs = _runs(mask)
    starts = np.cumsum(np.concatenate([[0], runs]))[:-1]
    pairs = np.stack([starts[1::2] + base, runs[1::2]], 1)
    return ' '.join(str(value) for value in pairs.reshape(-1))


def mask_from_pairs(counts: str, size: tuple[int, int], base: int = 1) -> np.ndarray:
    """(H, W) bool mask from 'start length ...' pairs.

    The MouseSIS generator counts from 0, every loader subtracts 1 as if it counted from 1, so masks
    are one pixel up of the picture; base 1 gives what everybody trains on. A run at pixel 0 then
    begins outside and loses that pixel.
    Raises DatasetError for an odd number of values or runs beyond the image.
    """
    try:
        values = np.array([int(value) for value in counts.split()], np.int64)
    except (ValueError, AttributeError, OverflowError) as error:
        raise DatasetError(f'mask runs {str(counts)[:40]!r} are no numbers: {error}') from error
    total = size[0] * size[1]
    if len(values) % 2:
        raise DatasetError(f'mask has {len(values)} run values: must be pairs of start and length')
    flat = np.zeros(total, bool)
    for start, length in values.reshape(-1, 2):
        begin = int(start) - base
        if begin < -base or length < 0 or begin + length > total:
            raise DatasetError(f'mask run of {length} px from {start}: '
                               f'must lie within {size[1]} x {size[0]} px')
        flat[max(begin, 0):begin + int(length)] = True
    return flat.reshape(size[::-1]).T


def _runs(mask: np.ndarray) -> np.ndarray:
    """Lengths of runs of equal pixels in column order.

    The first is of background, 0 long if the first pixel is set.
    """
    flat = np.asarray(mask, bool).T.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]]))
    return np.concatenate([[0], runs]) if flat.size and flat[0] else runs
