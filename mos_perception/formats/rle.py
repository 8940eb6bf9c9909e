"""Run lengths of masks, column by column: as start-length pairs (MouseSIS) and as COCO's, plain or compressed."""

from __future__ import annotations

from typing import Any

import numpy as np

from mos_perception.errors import DatasetError


def pairs_from_mask(mask: np.ndarray, base: int = 1) -> str:
    """'start length start length ...' of an (H, W) bool mask; the first pixel is number `base`."""
    runs = _runs(mask)
    starts = np.cumsum(np.concatenate([[0], runs]))[:-1]
    pairs = np.stack([starts[1::2] + base, runs[1::2]], 1)
    return ' '.join(str(value) for value in pairs.reshape(-1))


def mask_from_pairs(counts: str, size: tuple[int, int], base: int = 1) -> np.ndarray:
    """(H, W) bool mask from 'start length ...' pairs.

    The MouseSIS generator counts from 0, every loader subtracts 1 as if it counted from 1, so masks are one pixel up
    of the picture; base 1 gives what everybody trains on (dimos.md 3). A run at pixel 0 then begins outside and
    loses that pixel. Raises DatasetError for an odd number of values or runs beyond the image.
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
            raise DatasetError(f'mask run of {length} px from {start}: must lie within {size[1]} x {size[0]} px')
        flat[max(begin, 0):begin + int(length)] = True
    return flat.reshape(size[::-1]).T


def coco_from_mask(mask: np.ndarray, compressed: bool = True) -> dict[str, Any]:
    """{'size': [H, W], 'counts': text or list} of an (H, W) bool mask."""
    runs = [int(value) for value in _runs(mask)]
    return {'size': [int(side) for side in mask.shape], 'counts': _text(runs) if compressed else runs}


def mask_from_coco(rle: dict[str, Any]) -> np.ndarray:
    """(H, W) bool mask of a COCO run-length record, compressed or not. Raises DatasetError."""
    try:
        height, width = (int(side) for side in rle['size'])
        counts = rle['counts']
        runs = runs_from_text(counts.encode('latin-1')) if isinstance(counts, str) else [int(value) for value in counts]
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # UnicodeError is a ValueError
        raise DatasetError(f'mask record {str(rle)[:60]} is no COCO run-length code: {error!r}') from error
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise DatasetError(f'mask has runs of {sum(runs)} px in all: must be {height} x {width} = {height * width}')
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def runs_from_text(code: bytes) -> list[int]:
    """Run lengths from a compressed COCO string, background first (`rleFrString` of the COCO API)."""
    runs: list[int] = []
    value = shift = 0
    for byte in code:
        digit = byte - 48
        value |= (digit & 0x1f) << shift
        shift += 5
        if digit & 0x20:
            continue
        if digit & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs


def _runs(mask: np.ndarray) -> np.ndarray:
    """Lengths of runs of equal pixels in column order, background first (0 long if the first pixel is set)."""
    flat = np.asarray(mask, bool).T.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]]))
    return np.concatenate([[0], runs]) if flat.size and flat[0] else runs


def _text(runs: list[int]) -> str:
    """`rleToString` of the COCO API: five bits a letter, each run less the one two before it."""
    letters = []
    for n, run in enumerate(runs):
        value = run - (runs[n - 2] if n > 2 else 0)
        more = True
        while more:
            digit, value = value & 0x1f, value >> 5
            more = value != -1 if digit & 0x10 else value != 0
            letters.append(chr((digit | (0x20 if more else 0)) + 48))
    return ''.join(letters)
