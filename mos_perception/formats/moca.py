"""MoCA, moving camouflaged animals (Lamdouar et al. 2020), as charigyang/motiongrouping cuts it.

    JPEGImages/<name>/00000.jpg
    annotations.csv      ,file_list,spatial_coordinates,metadata
A row is one frame's animal: '/<name>/00000.jpg', '[2,x,y,width,height]' px ('[]': none), and
{'1': '0'} moves from place, '1' moves its limbs, '2' rests ({}: as in the row before). There are
boxes, no masks: `ids` is None. As in the published evaluation a box that begins outside is shifted
in, not cut. There are no times: frames are 1 / fps apart from 1 s on.
"""

from __future__ import annotations

import ast
import csv
from pathlib import Path

import numpy as np

from mos_perception.formats.files import naming, read_table
from mos_perception.formats.findings import Report
from mos_perception.formats.image_files import read_rgb, write_rgb
from mos_perception.formats.layout import chosen, images, refuse_existing
from mos_perception.formats.sequence import Box, LazyArray, Sequence, regular_stamps
from mos_perception.masks import object_boxes

FPS = 8.0  # every third of 24 Hz
TABLE = 'annotations.csv'
COLUMNS = ('file_list', 'spatial_coordinates', 'metadata')
_STATIC = '2'

Annotation = tuple[Box, bool]
"""A box and whether the animal moves."""


def table(path: str | Path) -> dict[str, dict[str, Annotation]]:
    """Sequence -> file stem -> annotation. Raises DatasetError."""
    file = Path(path) / TABLE
    found: dict[str, dict[str, Annotation]] = {}
    motion = ''
    rows = sorted(read_table(file, COLUMNS), key=lambda row: row[1]['file_list'])
    for number, row in rows:
        with naming(f'{file} line {number}'):
            numbers = ast.literal_eval(row['spatial_coordinates'])
            parts = row['file_list'].split('/')
            given = ast.literal_eval(row['metadata'])
            if len(parts) < 2 or not isinstance(given, dict) or not isinstance(numbers, list):
                raise ValueError(f'{row} is no annotation')
            if not numbers:
                continue
            motion = str(given.get('1', motion)) if given else motion
            _, x, y, width, height = (float(value) for value in numbers)
            if not np.isfinite([x, y, width, height]).all() or width < 0 or height < 0:
                raise ValueError(f'box {numbers}')
            x, y = max(x, 0.0), max(y, 0.0)
            found.setdefault(parts[-2], {})[Path(parts[-1]).stem] = (
                (x, y, x + width, y + height), motion != _STATIC)
    return found


def _known(path: str | Path) -> dict[str, dict[str, Annotation]]:
    path = Path(path)
    if not (path / TABLE).is_file():
        return {}
    return {name: rows for name, rows in table(path).items()
            if images(path / 'JPEGImages' / name)}


def find(path: str | Path) -> list[str]:
    """Names of the sequences that have pictures and boxes. Raises DatasetError."""
    return list(_known(path))


def read(path: str | Path, name: str = '', fps: float = FPS) -> Sequence:
    """One sequence. Raises DatasetError."""
    known = _known(path)
    rows = chosen(known, name, path, 'MoCA')
    name = name or next(iter(known))
    frames = images(Path(path) / 'JPEGImages' / name)
    found = [rows.get(file.stem) for file in frames]
    return Sequence(name, read_rgb(frames[0]).shape[:2],
                    regular_stamps(range(len(frames)), fps),
                    LazyArray(len(frames), lambda n: read_rgb(frames[n])),
                    moving=tuple({} if row is None else {1: row[1]} for row in found),
                    boxes=tuple({} if row is None else {1: row[0]} for row in found))


def write(sequence: Sequence, path: str | Path) -> Path:
    """Add a sequence and the boxes of its first object. Returns the folder of frames.

    Raises DatasetError: no frames, or the sequence exists.
    """
    frames, name = sequence.require_frames('MoCA'), sequence.file_name
    folder, lines = Path(path) / 'JPEGImages' / name, []
    refuse_existing(folder, 'sequence')
    for n in range(len(sequence)):
        write_rgb(folder / f'{n:05d}.png', frames[n])
        ids = sequence.truth(n)
        boxes = sequence.boxes[n] if sequence.boxes is not None else object_boxes(
            ids if ids is not None else np.zeros(sequence.size, np.uint16))
        number = min(boxes, default=None)
        if number is None:
            lines.append((f'/{name}/{n:05d}.png', '[]', '{}'))
            continue
        x0, y0, x1, y1 = (float(value) for value in boxes[number])
        moves = (sequence.moving is None or sequence.moving[n].get(number, False))
        lines.append((f'/{name}/{n:05d}.png', repr([2, x0, y0, x1 - x0, y1 - y0]),
                      repr({'1': '0' if moves else _STATIC})))
    file = Path(path) / TABLE
    with naming(file, 'written'), file.open('a', newline='') as out:
        writer = csv.writer(out)
        if not out.tell():
            writer.writerow(('', *COLUMNS))
        writer.writerows((n, *line) for n, line in enumerate(lines))
    return folder


def inspect(path: Path, report: Report) -> None:
    """Add what is wrong with the table and the pictures it names."""
    with report.guard(path / TABLE):
        for name, rows in table(path).items():
            folder = path / 'JPEGImages' / name
            frames = images(folder)
            if not frames:
                report.add('missing-file', folder, 'the table names it, it has no pictures')
                continue
            report.picture_sizes(folder, frames)
            lost = sorted(rows.keys() - {file.stem for file in frames})
            if lost:
                report.add('annotation-without-mask', folder,
                           f'{len(lost)} boxes have no picture, the first is {lost[0]}')
