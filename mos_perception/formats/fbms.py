"""FBMS-59 (Ochs, Malik and Brox 2014): few frames of each video are annotated, in grey levels.

    Trainingset | Testset/<name>/<name>_0001.jpg
    Trainingset | Testset/<name>/GroundTruth/<name>_0001.pgm      black is background
    ... or GroundTruth/<name>_0001_gt.ppm                         white is background, too
A mask's number is that of its frame. Conventions of charigyang/motiongrouping: grey above 0.1 of
white is an object (0.4 in marple2, 0.05 in marple7). Each grey level of a sequence is an object,
1..N from dark to bright; the papers score the union, on the annotated frames alone ("grouped").
There are no times and no motion flags: frames are 1 / fps apart from 1 s on.
"""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from mos_perception.errors import DatasetError
from mos_perception.formats.files import naming
from mos_perception.formats.findings import Report
from mos_perception.formats.image_files import read_rgb, write_rgb
from mos_perception.formats.layout import chosen, images, refuse_existing
from mos_perception.formats.sequence import LazyArray, Sequence, regular_stamps, unless_all

FPS = 24.0
SPLITS = ('Trainingset', 'Testset')
_DARK = {'marple2': 0.4, 'marple7': 0.05}
_DARKEST, _WHITE = 0.1, 0.99  # of 255
_LEVELS = range(26, 253)  # that we write: apart from background in either form


def folders(path: str | Path) -> dict[str, Path]:
    """'split/name' -> folder of the sequences that have ground truth."""
    found = (folder for split in SPLITS for folder in sorted((Path(path) / split).glob('*')))
    return {f'{folder.parent.name}/{folder.name}': folder for folder in found
            if (folder / 'GroundTruth').is_dir()}


def find(path: str | Path) -> list[str]:
    """Names of the sequences, 'split/name'."""
    return list(folders(path))


def _number(file: Path) -> int:
    """The last number in a file's name. Raises DatasetError."""
    numbers = re.findall(r'\d+', file.stem)
    if not numbers:
        raise DatasetError(f'{file} has no number in its name: fetch it again')
    return int(numbers[-1])


def masks_of(folder: Path, frames: list[Path]) -> dict[int, Path]:
    """Frame index -> mask file. Raises DatasetError where a mask has no frame."""
    truth = folder / 'GroundTruth'
    files = sorted(file for file in truth.glob('*.ppm') if 'PROB' not in file.name)
    files = files or sorted(truth.glob('*.pgm'))
    index = {_number(file): n for n, file in enumerate(frames)}
    found = {}
    for file in files:
        if (number := _number(file)) not in index:
            raise DatasetError(f'{file} is of frame {number}, which is not there: fetch it again')
        found[index[number]] = file
    return found


def grey_of(file: Path, name: str) -> np.ndarray:
    """(H, W) u8 grey levels of a mask file of sequence `name`, 0 where it is background."""
    grey = cv2.cvtColor(read_rgb(file), cv2.COLOR_RGB2GRAY)
    share = grey / 255
    if file.suffix == '.ppm':
        share[share > _WHITE] = 0
    return np.where(share > _DARK.get(name, _DARKEST), grey, 0).astype(np.uint8)


def read(path: str | Path, name: str = '', fps: float = FPS) -> Sequence:
    """One sequence. Raises DatasetError."""
    found = folders(path)
    folder = chosen(found, name, path, 'FBMS')
    frames = images(folder)
    if not frames:
        raise DatasetError(f'{folder} holds no images: fetch it again')
    masks = masks_of(folder, frames)
    size = read_rgb(frames[0]).shape[:2]
    levels: set[int] = set()
    for file in masks.values():
        grey = grey_of(file, folder.name)
        if grey.shape != size:
            raise DatasetError(f'{file} is {grey.shape}, the frames {size} (height, width): '
                               'fetch it again')
        levels |= set(np.unique(grey[grey > 0]).tolist())
    table = np.zeros(256, np.uint16)
    table[sorted(levels)] = np.arange(1, len(levels) + 1)

    def ids(n: int) -> np.ndarray:
        if n not in masks:
            return np.zeros(size, np.uint16)
        return table[grey_of(masks[n], folder.name)]

    labelled = np.array([n in masks for n in range(len(frames))])
    return Sequence(name or next(iter(found)), size, regular_stamps(range(len(frames)), fps),
                    LazyArray(len(frames), lambda n: read_rgb(frames[n])),
                    ids=LazyArray(len(frames), ids), has_label=unless_all(labelled),
                    split=folder.parent.name)


def write(sequence: Sequence, path: str | Path, split: str = 'Testset') -> Path:
    """Add a sequence, its objects numbered from 1 in the order of their ids. Returns its folder.

    Raises DatasetError: no frames or ids, more than 227 objects, or the sequence exists.
    """
    frames, name = sequence.require_frames('FBMS'), sequence.file_name
    folder = Path(path) / split / name
    refuse_existing(folder, 'sequence')
    if sequence.ids is None:
        raise DatasetError(f'sequence {sequence.name} has no ids: FBMS needs them')
    numbers = sorted({int(number) for n in range(len(sequence))
                      for number in np.unique(sequence.ids[n]) if number})
    if len(numbers) > len(_LEVELS):
        raise DatasetError(f'sequence {sequence.name} has {len(numbers)} objects: FBMS holds '
                           f'{len(_LEVELS)}')
    level = np.zeros(65536, np.uint8)
    level[numbers] = _LEVELS[:len(numbers)]
    for n in range(len(sequence)):
        write_rgb(folder / f'{name}_{n + 1:04d}.png', frames[n])
        ids, file = sequence.truth(n), folder / 'GroundTruth' / f'{name}_{n + 1:04d}.pgm'
        if ids is not None:
            with naming(file, 'written'):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(cv2.imencode('.pgm', level[ids])[1].tobytes())
    return folder


def inspect(path: Path, report: Report) -> None:
    """Add what is wrong with the sequences at `path`."""
    for folder in folders(path).values():
        frames = images(folder)
        if not frames:
            report.add('empty-sequence', folder, 'it has no pictures')
            continue
        size = report.picture_sizes(folder, frames)
        with report.guard(folder, 'missing-file'):
            masks = masks_of(folder, frames)
            if not masks:
                report.add('missing-annotations', folder, 'it has no masks')
            for file in masks.values():
                with report.guard(file):
                    if (found := grey_of(file, folder.name).shape) != size:
                        report.add('size-differs', file, f'it is {found}, the frames are {size}')
