"""SegTrackv2, and other sets brought into its form (FBMS_clean of charigyang/motiongrouping).

    JPEGImages/<name>/00000.jpg or .png
    GroundTruth/<name>/00000.png         one object, or
    GroundTruth/<name>/<k>/00000.png     object k = 1, 2, ...
`Annotations` may stand for `GroundTruth`. Masks are white on black and found by the pictures'
names, in order where there are as many; frames without one are not annotated. Where objects
overlap, the last one is seen. The papers score the union of the objects (motiongrouping merges
those of drift, bmx, cheetah, hummingbird and monkeydog): the protocol "grouped". There are no times
and no motion flags: frames are 1 / fps apart from 1 s on, every object counts as moving.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mos_perception.errors import DatasetError
from mos_perception.formats.findings import Report
from mos_perception.formats.image_files import read_indexed, read_rgb, write_rgb
from mos_perception.formats.layout import chosen, frames_of, images, refuse_existing
from mos_perception.formats.sequence import LazyArray, Sequence, regular_stamps, unless_all

FPS = 24.0
TRUTH = ('GroundTruth', 'Annotations')
_WHITE = 127  # a mask's pixel above it is the object


def folders(path: str | Path) -> dict[str, tuple[Path, dict[int, Path]]]:
    """name -> (folder of frames, object id -> folder of masks); those that have masks."""
    path = Path(path)
    found = {}
    for frames in sorted((path / 'JPEGImages').glob('*')):
        truth = next((path / kind / frames.name for kind in TRUTH
                      if (path / kind / frames.name).is_dir()), None)
        if truth is None or not frames.is_dir() or not images(frames):
            continue
        parts = {int(part.name): part for part in truth.glob('*')
                 if part.is_dir() and part.name.isdecimal() and part.name.isascii()}
        found[frames.name] = frames, dict(sorted(parts.items())) or {1: truth}
    return found


def find(path: str | Path) -> list[str]:
    """Names of the sequences."""
    return list(folders(path))


def _masks(parts: dict[int, Path], frames: list[Path]) -> dict[int, dict[int, Path]]:
    """Frame number -> object id -> mask file."""
    found: dict[int, dict[int, Path]] = {}
    for number, folder in parts.items():
        masks = images(folder)
        for at, file in zip(frames_of(masks, frames, folder), masks):
            found.setdefault(at, {})[number] = file
    return found


def read(path: str | Path, name: str = '', fps: float = FPS) -> Sequence:
    """One sequence. Raises DatasetError."""
    found = folders(path)
    folder, parts = chosen(found, name, path, 'SegTrack')
    if max(parts) > 65535:
        raise DatasetError(f'{folder} has object {max(parts)}: must be at most 65535')
    frames = images(folder)
    masks = _masks(parts, frames)
    size = read_rgb(frames[0]).shape[:2]

    def ids(n: int) -> np.ndarray:
        seen = np.zeros(size, np.uint16)
        for number, file in masks.get(n, {}).items():
            mask = read_indexed(file)
            if mask.shape != size:
                raise DatasetError(f'{file} is {mask.shape}, its frame {size} (height, width): '
                                   'fetch it again')
            seen[mask > _WHITE] = number
        return seen

    labelled = np.array([n in masks for n in range(len(frames))])
    return Sequence(name or next(iter(found)), size, regular_stamps(range(len(frames)), fps),
                    LazyArray(len(frames), lambda n: read_rgb(frames[n])),
                    ids=LazyArray(len(frames), ids), has_label=unless_all(labelled))


def write(sequence: Sequence, path: str | Path) -> Path:
    """Add a sequence, an object a folder. Returns the folder of frames.

    Raises DatasetError: no frames or ids, or the sequence exists.
    """
    frames, name = sequence.require_frames('SegTrack'), sequence.file_name
    folder, truth = (Path(path) / kind / name for kind in ('JPEGImages', TRUTH[0]))
    refuse_existing(folder, 'sequence')
    if sequence.ids is None:
        raise DatasetError(f'sequence {sequence.name} has no ids: SegTrack needs them')
    numbers = sorted({int(number) for n in range(len(sequence))
                      for number in np.unique(sequence.ids[n]) if number} or {1})
    for n in range(len(sequence)):
        write_rgb(folder / f'{n:05d}.png', frames[n])
        ids = sequence.truth(n)
        if ids is not None:
            for number in numbers:
                white = np.repeat((ids == number).astype(np.uint8)[..., None] * 255, 3, -1)
                write_rgb(truth / str(number) / f'{n:05d}.png', white)
    return folder


def inspect(path: Path, report: Report) -> None:
    """Add what is wrong with the sequences at `path`."""
    for folder, parts in folders(path).values():
        frames = images(folder)
        size = report.picture_sizes(folder, frames)
        with report.guard(folder, 'missing-file'):
            for masks in _masks(parts, frames).values():
                for file in masks.values():
                    with report.guard(file):
                        found = read_indexed(file)
                        if found.shape != size:
                            report.add('size-differs', file, f'it is {found.shape}, the frames '
                                                             f'are {size}')
                        if len(np.unique(found)) > 2:
                            report.add('mask-values', file, 'it is not black and white')
