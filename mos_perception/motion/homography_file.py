"""The file of parameter `homography_file`: a JSON object, as `mos register` writes it.

    {"event_size": [260, 346], "frame_size": [480, 640],       (height, width)
     "homography": [[...], [...], [...]]}                      event pixel (x, y, 1) -> frame pixel
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mos_perception.errors import ConfigError
from mos_perception.image_encodings import MAX_SIDE


@dataclass(frozen=True)
class Homography:
    """`matrix` (3, 3) takes a pixel of an event camera to one of a frame, sizes (height, width)."""

    matrix: np.ndarray
    event_size: tuple[int, int]
    frame_size: tuple[int, int]


def read_homography(path: str | Path) -> Homography:
    """The homography in a file. Raises ConfigError naming the file and what is wrong with it."""
    try:
        found = json.loads(Path(path).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f'homography_file {path} cannot be read: {error}; make one with '
                          '`mos register BAG`') from error
    try:
        matrix = np.array(found['homography'], np.float64)
        sizes = [_size(found[name]) for name in ('event_size', 'frame_size')]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(
            f'homography_file {path}: {type(error).__name__}: {error}; it must hold event_size '
            'and frame_size, [height, width] each, and a homography of 3 x 3 numbers') from error
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise ConfigError(f'homography_file {path}: homography is {matrix.tolist()}: must be 3 x 3 '
                          'finite numbers')
    if abs(np.linalg.det(matrix / max(np.abs(matrix).max(), 1e-300))) < 1e-12:
        raise ConfigError(f'homography_file {path}: homography {matrix.tolist()} is singular: '
                          'estimate it again')
    return Homography(matrix, *sizes)


def write_homography(path: Path, found: Homography, **notes: Any) -> None:
    """Write the file, whole or not at all; `notes` are further values for people."""
    values = {'event_size': list(found.event_size), 'frame_size': list(found.frame_size),
              'homography': found.matrix.tolist(), **notes}
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f'.{path.name}.{os.getpid()}')
    scratch.write_text(json.dumps(values, indent=1) + '\n')
    scratch.replace(path)


def _size(value: Any) -> tuple[int, int]:
    height, width = value
    if not all(type(side) is int and 0 < side <= MAX_SIDE for side in (height, width)):
        raise ValueError(f'size {value}: two whole numbers within [1, {MAX_SIDE}]')
    return height, width
