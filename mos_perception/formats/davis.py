"""DAVIS: pictures, palette masks and lists of names.

`JPEGImages/480p/<name>/00000.jpg`, `Annotations[_unsupervised]/480p/<name>/00000.png`, `ImageSets/<year>/*.txt`. The
masks are palette PNG whose index is the object id and 255 is "do not score", or (DAVIS 2016) black and white. Also
read: a folder with `frames/` and `masks/` paired by sorted name, at different resolutions if need be. There are no
times: frames are 1 / fps apart from 1 s on. No events, no motion flags: every object counts as moving.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mos_perception.errors import DatasetError
from mos_perception.formats.files import IMAGE_SUFFIXES, naming, read_indexed, read_rgb, write_indexed, write_rgb
from mos_perception.formats.sequence import Sequence, Stack

FPS = 24.0
START_NS = 1_000_000_000
VOID = 255
ANNOTATIONS = ('Annotations_unsupervised', 'Annotations')


def folders(path: str | Path) -> dict[str, tuple[Path, Path | None]]:
    """name -> (folder of frames, folder of masks or None)."""
    path = Path(path)
    found: dict[str, tuple[Path, Path | None]] = {}
    for quality in sorted((path / 'JPEGImages').glob('*')):
        for frames in sorted(folder for folder in quality.glob('*') if folder.is_dir()):
            places = [path / kind / quality.name / frames.name for kind in ANNOTATIONS]
            found[frames.name] = frames, next((place for place in places if place.is_dir()), None)
    for frames in (path / 'frames', *sorted(path.glob('*/frames'))):
        if frames.is_dir():
            masks = frames.parent / 'masks'
            found[frames.parent.name] = frames, masks if masks.is_dir() else None
    return found


def find(path: str | Path) -> list[str]:
    """Names of the sequences."""
    return list(folders(path))


def images(folder: Path) -> list[Path]:
    """Image files in order of name."""
    return sorted(file for file in folder.glob('*') if file.suffix.lower() in IMAGE_SUFFIXES)


def read(path: str | Path, name: str = '', fps: float = FPS) -> Sequence:
    """One sequence. Raises DatasetError."""
    found = folders(path)
    name = name or next(iter(found), '')
    if name not in found:
        raise DatasetError(f'{path} has no DAVIS sequence {name}; it has {", ".join(found) or "none"}')
    frames, masks = images(found[name][0]), images(found[name][1]) if found[name][1] else []
    if not frames:
        raise DatasetError(f'{found[name][0]} holds no images: fetch it again')
    if masks and len(masks) != len(frames):
        raise DatasetError(f'{found[name][1]} has {len(masks)} masks for {len(frames)} frames: fetch it again')
    size = read_rgb(frames[0]).shape[:2]
    notes = []
    if masks and read_indexed(masks[0]).shape != size:
        notes.append(f'masks brought from {read_indexed(masks[0]).shape} to {size} px, nearest pixel')
    return Sequence(name, size, START_NS + np.rint(np.arange(len(frames)) * 1e9 / fps).astype(np.int64),
                    Stack(len(frames), lambda n: read_rgb(frames[n])),
                    ids=Stack(len(frames), lambda n: ids_of(masks[n], size)) if masks else None, notes=tuple(notes))


def ids_of(file: Path, size: tuple[int, int]) -> np.ndarray:
    """(H, W) u16 ids of a mask file at `size`; black and white is object 1, void is background."""
    indices = read_indexed(file)
    if is_binary(file, indices):
        indices = (indices > 0).astype(np.uint8)
    if indices.shape != size:
        indices = cv2.resize(indices, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return np.where(indices == VOID, 0, indices).astype(np.uint16)


def is_binary(file: Path, indices: np.ndarray) -> bool:
    """Whether a mask is black and white: no palette and nothing between 0 and 255."""
    with naming(file), file.open('rb') as data:
        palette = data.read(26)[25:] == b'\x03'
    return not palette and not np.any((indices > 0) & (indices < 255))


def write(sequence: Sequence, path: str | Path, split: str = 'train', suffix: str = '.jpg', year: str = '2017',
          binary: bool = False) -> Path:
    """Add a sequence under `path` and to its list. Returns the folder of frames.

    `binary`: as DAVIS 2016, what moves in white. Raises DatasetError: no frames, ids above 254, or the sequence exists.
    """
    name = sequence.name.replace('/', '_') or 'sequence'
    frames = Path(path) / 'JPEGImages' / '480p' / name
    if sequence.frames is None:
        raise DatasetError(f'sequence {sequence.name} has no frames: DAVIS needs them')
    if frames.exists():
        raise DatasetError(f'{frames} exists: name another sequence')
    kind = ANNOTATIONS[1 if binary else 0]
    for n in range(len(sequence)):
        write_rgb(frames / f'{n:05d}{suffix}', sequence.frames[n])
        ids = sequence.truth(n)
        if ids is None:
            continue
        if ids.size and int(ids.max()) >= VOID:
            raise DatasetError(f'frame {n} has object id {int(ids.max())}: DAVIS holds 1 to 254; renumber')
        mask = Path(path) / kind / '480p' / name / f'{n:05d}.png'
        if binary:
            movers = [number for number, moves in sequence.flags(n).items() if moves]
            white = np.isin(ids, movers)[..., None].astype(np.uint8) * np.array([255, 255, 255], np.uint8)
            write_rgb(mask, white)
        else:
            write_indexed(mask, ids)
    listing = Path(path) / 'ImageSets' / year / f'{split}.txt'
    with naming(listing, 'written'):
        listing.parent.mkdir(parents=True, exist_ok=True)
        with listing.open('a') as file:
            file.write(f'{name}\n')
    return frames
