"""DAVIS: pictures, palette masks and lists of names.

    JPEGImages/480p/<name>/00000.jpg
    Annotations[_unsupervised]/480p/<name>/00000.png
    ImageSets/<year>/*.txt
The masks are palette PNG whose index is the object id and 255 is "do not score", or (DAVIS 2016)
black and white. Also read: a folder with `frames/` and `masks/` paired by sorted name, at different
resolutions if need be. There are no times: frames are 1 / fps apart from 1 s on. No events, no
motion flags: every object counts as moving.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mos_perception.errors import DatasetError
from mos_perception.formats.files import naming
from mos_perception.formats.findings import Report
from mos_perception.formats.image_files import (
    is_palette_png,
    read_indexed,
    read_rgb,
    write_indexed,
    write_rgb,
)
from mos_perception.formats.layout import chosen, images, refuse_existing
from mos_perception.formats.sequence import LazyArray, Sequence, regular_stamps

FPS = 24.0
VOID = 255
ANNOTATIONS = ('Annotations_unsupervised', 'Annotations')


def folders(path: str | Path) -> dict[str, tuple[Path, Path | None]]:
    """name -> (folder of frames, folder of masks or None)."""
    path = Path(path)
    found: dict[str, tuple[Path, Path | None]] = {}
    for frames in sorted((path / 'JPEGImages').glob('*/*')):
        if frames.is_dir():
            places = [path / kind / frames.parent.name / frames.name for kind in ANNOTATIONS]
            masks = next((place for place in places if place.is_dir()), None)
            found[frames.name] = frames, masks
    for frames in (path / 'frames', *sorted(path.glob('*/frames'))):
        if frames.is_dir():
            masks = frames.parent / 'masks'
            found[frames.parent.name] = frames, masks if masks.is_dir() else None
    return found


def find(path: str | Path) -> list[str]:
    """Names of the sequences."""
    return list(folders(path))


def read(path: str | Path, name: str = '', fps: float = FPS) -> Sequence:
    """One sequence. Raises DatasetError."""
    found = folders(path)
    frame_folder, mask_folder = chosen(found, name, path, 'DAVIS')
    frames, masks = images(frame_folder), images(mask_folder) if mask_folder else []
    if not frames:
        raise DatasetError(f'{frame_folder} holds no images: fetch it again')
    if masks and len(masks) != len(frames):
        raise DatasetError(f'{mask_folder} has {len(masks)} masks for {len(frames)} frames: '
                           'fetch it again')
    size, ids, void, notes = read_rgb(frames[0]).shape[:2], None, None, []
    if masks:
        ids = LazyArray(len(frames), lambda n: ids_of(masks[n], size))
        void = LazyArray(len(frames), lambda n: void_of(masks[n], size))
        mask_size = read_indexed(masks[0]).shape
        if mask_size != size:
            notes.append(f'masks brought from {mask_size} to {size} px, nearest pixel')
    return Sequence(name or next(iter(found)), size, regular_stamps(range(len(frames)), fps),
                    LazyArray(len(frames), lambda n: read_rgb(frames[n])), ids=ids,
                    void=void, notes=tuple(notes))


def ids_of(file: Path, size: tuple[int, int]) -> np.ndarray:
    """(H, W) u16 ids of a mask file, brought to `size`; black and white is object 1.

    Void is background. Raises DatasetError.
    """
    indices = read_indexed(file)
    if is_binary(file, indices):
        indices = (indices > 0).astype(np.uint8)
    if indices.shape != size:
        indices = cv2.resize(indices, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return np.where(indices == VOID, 0, indices).astype(np.uint16)


def void_of(file: Path, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool, which pixels of a mask file must not be scored. Raises DatasetError."""
    indices = read_indexed(file)
    if is_binary(file, indices):
        return np.zeros(size, bool)
    void = (indices == VOID).view(np.uint8)
    return cv2.resize(void, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT).view(bool)


def is_binary(file: Path, indices: np.ndarray) -> bool:
    """Whether a mask is black and white: no palette and nothing between 0 and 255."""
    with naming(file), file.open('rb') as data:
        palette = is_palette_png(data.read(26))
    return not palette and not np.any((indices > 0) & (indices < 255))


def write(sequence: Sequence, path: str | Path, split: str = 'train', suffix: str = '.jpg',
          year: str = '2017', binary: bool = False) -> Path:
    """Add a sequence under `path` and to its list. Returns the folder of frames.

    `suffix`: .jpg loses exact pixels, .png keeps them. `binary`: as DAVIS 2016, what moves in
    white. Raises DatasetError: no frames, ids above 254, or the sequence exists.
    """
    name = sequence.file_name
    folder = Path(path) / 'JPEGImages' / '480p' / name
    frames = sequence.require_frames('DAVIS')
    refuse_existing(folder, 'sequence')
    masks = Path(path) / ANNOTATIONS[1 if binary else 0] / '480p' / name
    for n in range(len(sequence)):
        write_rgb(folder / f'{n:05d}{suffix}', frames[n])
        ids = sequence.truth(n)
        if ids is None:
            continue
        if ids.size and int(ids.max()) >= VOID:
            raise DatasetError(f'frame {n} has object id {int(ids.max())}: '
                               'DAVIS holds 1 to 254; renumber')
        if binary:
            moving = [object_id for object_id, moves in sequence.flags(n).items() if moves]
            white = np.isin(ids, moving).astype(np.uint8) * 255
            write_rgb(masks / f'{n:05d}.png', np.repeat(white[..., None], 3, -1))
        else:
            write_indexed(masks / f'{n:05d}.png', ids)
    listing = Path(path) / 'ImageSets' / year / f'{split}.txt'
    with naming(listing, 'written'):
        listing.parent.mkdir(parents=True, exist_ok=True)
        with listing.open('a') as file:
            file.write(f'{name}\n')
    return folder


def inspect(path: Path, report: Report) -> None:
    """Add what is wrong with the sequences at `path` and with the lists of their names."""
    found = folders(path)
    for frames, masks in found.values():
        pictures = images(frames)
        if not pictures:
            report.add('empty-sequence', frames, 'it has no pictures')
            continue
        report.picture_sizes(frames, pictures)
        if masks is None:
            report.add('missing-annotations', frames, 'it has no folder of masks')
        else:
            _inspect_masks(masks, pictures, report)
    for listing in sorted(path.glob('ImageSets/*/*.txt')):
        for name in sorted(_listed(listing) - set(found)):
            report.add('missing-file', f'{listing}: {name}',
                       'the list names a sequence that is not there')


def _inspect_masks(folder: Path, pictures: list[Path], report: Report) -> None:
    files = images(folder)
    masked = {file.stem for file in files}
    lacking = sorted({file.stem for file in pictures} - masked)
    if lacking:
        report.add('missing-file', folder,
                   f'{len(lacking)} frames have no mask, the first is {lacking[0]}')
    sizes = set()
    for file in files:
        with report.guard(file):
            sizes.add(read_indexed(file).shape)
    if len(sizes) > 1:
        report.add('size-differs', folder, f'masks have sizes {sorted(sizes)}')


def _listed(listing: Path) -> set[str]:
    """The sequences that a list names: one a line, or a pair of files a line as in DAVIS 2016."""
    names = set()
    for line in listing.read_text().splitlines():
        if line.strip():
            parts = line.split()[0].strip('/').split('/')
            names.add(parts[-2 if '.' in line else -1])
    return names
