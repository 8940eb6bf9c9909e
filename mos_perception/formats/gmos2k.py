"""GMOS-2K: masks of moving objects and when each of them moves (Xie et al. 2026).

    time_annotation.csv      seq_name,time_anno,ann_frames,vid_frames,dataset,split
    annotations/<dataset>/<split>/<name>/00000.png
    images/<dataset>/[<split>/]<name>/00000.jpg      ours: put or link the source's pictures there
`time_anno` is a literal {'1': [[first, last], ...]} over annotated frames, both ends inside; past
the end it is cut. Masks are palette PNG, ids 1..N over what moves at some time. A row without
intervals is a video in which nothing moves. YouTube-VOS' and MoCA's videos are annotated every
fifth frame: pictures are taken by the masks' names, or in order where there are as many. There are
no times: frames are 1 / fps apart from 1 s on.
"""

from __future__ import annotations

import ast
import csv
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mos_perception.errors import DatasetError
from mos_perception.formats.files import naming, read_table
from mos_perception.formats.findings import Report
from mos_perception.formats.image_files import read_indexed, read_rgb, write_indexed, write_rgb
from mos_perception.formats.layout import chosen, frames_of, images, refuse_existing
from mos_perception.formats.sequence import LazyArray, Moving, Sequence, regular_stamps

FPS = 24.0
TABLE = 'time_annotation.csv'
COLUMNS = ('seq_name', 'time_anno', 'ann_frames', 'vid_frames', 'dataset', 'split')
MAX_ID = 255

Intervals = dict[int, list[tuple[int, int]]]


@dataclass(frozen=True)
class Row:
    """One video of the table: where it is, and id -> [(first, last)] frames in which it moves."""

    dataset: str
    split: str
    name: str
    intervals: Intervals
    frames: int

    @property
    def id(self) -> str:
        """'dataset/split/name'."""
        return f'{self.dataset}/{self.split}/{self.name}'

    def masks(self, path: Path) -> list[Path]:
        """Mask files below the data set's folder."""
        return images(path / 'annotations' / self.id)

    def pictures(self, path: Path) -> list[Path]:
        """Image files; [] where nobody put them there."""
        return (images(path / 'images' / self.id)
                or images(path / 'images' / self.dataset / self.name))

    def moving(self, frames: int) -> Moving:
        """Per frame: id -> moves, of every object of the table."""
        return tuple({number: any(first <= n <= last for first, last in spans)
                      for number, spans in self.intervals.items()} for n in range(frames))


def parse_intervals(text: str) -> Intervals:
    """id -> [(first, last)] of a `time_anno` literal. Raises DatasetError."""
    def wrong(what: str) -> DatasetError:
        return DatasetError(f'time_anno {text[:80]!r}: {what}; must be '
                            "{'1': [[first, last], ...]} with 0 <= first <= last")
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise wrong(f'no literal ({type(error).__name__})') from error
    if not isinstance(found, dict):
        raise wrong(f'is a {type(found).__name__}')
    intervals: Intervals = {}
    for key, spans in found.items():
        if not (isinstance(key, str) and key.isascii() and key.isdecimal()
                and 1 <= int(key) <= MAX_ID):
            raise wrong(f'object {key!r} is no id of 1 to {MAX_ID}')
        if not isinstance(spans, (list, tuple)) or not all(
                isinstance(span, (list, tuple)) and len(span) == 2
                and all(type(end) is int for end in span) and 0 <= span[0] <= span[1]
                for span in spans):
            raise wrong(f'intervals of object {key}')
        if int(key) in intervals:
            raise wrong(f'object {key} is there twice')
        intervals[int(key)] = [(first, last) for first, last in spans]
    return intervals


def table(path: str | Path) -> list[Row]:
    """The rows of the table, whether their masks are there or not. Raises DatasetError."""
    file = Path(path) / TABLE
    rows = []
    for number, given in read_table(file, COLUMNS):
        place = f'{file} line {number}'
        if any(part in ('', '.', '..') or '/' in part or '\\' in part
               for part in (given['dataset'], given['split'], given['seq_name'])):
            raise DatasetError(f'{place}: dataset, split and seq_name must be names of folders')
        try:
            intervals = parse_intervals(given['time_anno'])
        except DatasetError as error:
            raise DatasetError(f'{place}: {error}') from error
        with naming(place):
            rows.append(Row(given['dataset'], given['split'], given['seq_name'], intervals,
                            int(given['ann_frames'])))
    return rows


def _rows(path: str | Path) -> dict[str, Row]:
    path = Path(path)
    if not (path / TABLE).is_file():
        return {}
    return {row.id: row for row in table(path) if row.masks(path) or row.pictures(path)}


def find(path: str | Path) -> list[str]:
    """Ids 'dataset/split/name' of the rows that have masks or pictures. Raises DatasetError."""
    return list(_rows(path))


def read(path: str | Path, name: str = '', fps: float = FPS) -> Sequence:
    """One video; a row without masks is one in which nothing is annotated. Raises DatasetError."""
    path = Path(path)
    row = chosen(_rows(path), name, path, 'GMOS-2K')
    masks, pictures, notes = row.masks(path), row.pictures(path), []
    if not masks and row.intervals:
        raise DatasetError(f'{path / "annotations" / row.id} has no masks: fetch it again')
    at = list(range(len(masks or pictures)))
    if masks and pictures:
        at = frames_of(masks, pictures, path / 'annotations' / row.id)
    if len(at) != row.frames:
        notes.append(f'the table says {row.frames} frames, there are {len(at)}')
    if any(last >= len(at) for spans in row.intervals.values() for _, last in spans):
        notes.append(f'an interval ends after the last of {len(at)} frames: cut')
    size = (read_indexed(masks[0]) if masks else read_rgb(pictures[0])).shape[:2]

    def ids(n: int) -> np.ndarray:
        if not masks:
            return np.zeros(size, np.uint16)
        found = read_indexed(masks[n])
        if found.shape != size:
            raise DatasetError(f'{masks[n]} is {found.shape}, the first mask {size} (height, '
                               'width): fetch it again')
        return found.astype(np.uint16)

    def frame(n: int) -> np.ndarray:
        image = read_rgb(pictures[at[n]])
        if image.shape[:2] != size:  # annotations are what is scored
            image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
        return image

    return Sequence(row.id, size, regular_stamps(at, fps),
                    LazyArray(len(at), frame) if pictures else None, ids=LazyArray(len(at), ids),
                    moving=row.moving(len(at)), split=row.split, notes=tuple(notes))


def write(sequence: Sequence, path: str | Path, dataset: str = 'own', split: str = 'train') -> Path:
    """Add a video and its row, static objects left out and the others numbered from 1.

    Returns the folder of masks. Raises DatasetError: no ids, or the video exists.
    """
    name, path = sequence.file_name, Path(path)
    if sequence.ids is None:
        raise DatasetError(f'sequence {sequence.name} has no ids: GMOS-2K needs them')
    folder = path / 'annotations' / dataset / split / name
    refuse_existing(folder, 'sequence')
    moves = [sorted(number for number, yes in sequence.flags(n).items() if yes)
             for n in range(len(sequence))]
    names = {number: new for new, number in enumerate(sorted(set().union(*moves)), 1)}
    if len(names) > MAX_ID:
        raise DatasetError(f'{len(names)} objects move: GMOS-2K holds {MAX_ID}; split the sequence')
    intervals = {str(new): _runs([number in there for there in moves])
                 for number, new in names.items()}
    renumber = np.zeros(65536, np.uint8)
    renumber[list(names)] = list(names.values())
    for n in range(len(sequence)):
        ids = sequence.truth(n)
        write_indexed(folder / f'{n:05d}.png',
                      renumber[ids] if ids is not None else np.zeros(sequence.size, np.uint8))
        if sequence.frame_exists(n):
            write_rgb(path / 'images' / dataset / split / name / f'{n:05d}.png',
                      sequence.frames[n])
    file = path / TABLE
    with naming(file, 'written'), file.open('a', newline='') as lines:
        writer = csv.writer(lines)
        if not lines.tell():
            writer.writerow(COLUMNS)
        writer.writerow((name, repr(intervals), len(sequence), len(sequence), dataset, split))
    return folder


def _runs(flags: list[bool]) -> list[list[int]]:
    edges = np.diff(np.concatenate([[0], flags, [0]]).astype(int))
    return [[int(first), int(end) - 1] for first, end in zip(np.flatnonzero(edges == 1),
                                                             np.flatnonzero(edges == -1))]


def inspect(path: Path, report: Report) -> None:
    """Add what is wrong with the table, and with masks and pictures of its videos."""
    with report.guard(path / TABLE):
        for row in table(path):
            masks, pictures = row.masks(path), row.pictures(path)
            folder = path / 'annotations' / row.id
            if not masks:
                if row.intervals:
                    report.add('missing-file', folder, 'it has no masks')
                continue
            seen: set[int] = set()
            sizes = set()
            for file in masks:
                with report.guard(file):
                    indices = read_indexed(file)
                    sizes.add(indices.shape)
                    seen |= set(np.unique(indices[indices > 0]).tolist())
            if len(sizes) > 1:
                report.add('size-differs', folder, f'masks have sizes {sorted(sizes)}')
            report.object_ids(folder, seen, set(row.intervals))
            if pictures:
                report.picture_sizes(folder, pictures)
                with report.guard(folder, 'count-differs'):
                    frames_of(masks, pictures, folder)
