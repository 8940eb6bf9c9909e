"""DIMOS' preprocessed samples: a file per pair of frames.

`emos_preprocess/{train,eval}/<seq>/%05d.hdf5` with `valid.txt`, and `bbox_gt/{train,val}.json` (dimos.md 4.2). A file
has image1, image2 (H, W, 3) u8, mov_seg (H, W) u8 ids of image1, compact 1..N per frame, event_voxel (H, W, 10) f32 of
the events between the two (5 positive bins, then 5 negative). The events themselves and the times are gone; frames are
1 / fps apart from 1 s on. valid.txt has lines "img_<i>.png 0|1", which the original loader turns to bool as text, so
that "0" is True: here it is a number.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mos_perception.datatypes import Events
from mos_perception.errors import DatasetError
from mos_perception.formats.files import h5py, naming, read_json, write_json
from mos_perception.formats.sequence import Sequence, Stack
from mos_perception.masks import object_boxes

FPS = 30.0
START_NS = 1_000_000_000
MIN_PIXELS = 400  # moving pixels of a frame that counts
BINS = 5
ROOT = 'emos_preprocess'


def folders(path: str | Path) -> dict[str, Path]:
    """Sequence folders at or under `path` by 'split/name'."""
    path = Path(path)
    places = [path, *(folder for pattern in ('*', '*/*', f'{ROOT}/*/*') for folder in sorted(path.glob(pattern)))]
    found = [folder for folder in places if folder.is_dir() and samples(folder)]
    return {f'{folder.resolve().parent.name}/{folder.resolve().name}': folder for folder in found}


def samples(folder: Path) -> list[Path]:
    """The sample files of a sequence, in order."""
    return sorted((file for file in folder.glob('*.hdf5') if file.stem.isdecimal()), key=lambda file: int(file.stem))


def find(path: str | Path) -> list[str]:
    """Names of the sequences."""
    return list(folders(path))


def read_valid(file: Path) -> dict[int, bool]:
    """Frame number -> counts, of a valid.txt. Raises DatasetError."""
    valid = {}
    with naming(file):
        for line in file.read_text().splitlines():
            if line.strip():
                name, flag = line.split()
                valid[int(Path(name).stem.rsplit('_', 1)[-1])] = bool(int(flag))
    return valid


def read(path: str | Path, name: str = '', fps: float = FPS) -> Sequence:
    """One sequence. Frames that valid.txt calls invalid have no truth. Raises DatasetError."""
    found = folders(path)
    folder = found.get(name) if name else next(iter(found.values()), None)
    if folder is None:
        raise DatasetError(f'{path} has no DIMOS sequence {name}: it has {", ".join(found) or "none"}')
    files = samples(folder)
    numbers = [int(file.stem) for file in files]
    valid = read_valid(folder / 'valid.txt') if (folder / 'valid.txt').is_file() else {}
    numbers.append(numbers[-1] + 1)
    size = _array(files[0], 'image1').shape[:2]
    count = len(files)
    labelled = np.array([n < count and valid.get(number, True) for n, number in enumerate(numbers)])
    notes = ['ids are numbered anew in every frame: they are no tracks'] + (
        [] if valid else ['no valid.txt: all frames count'])
    stamps = START_NS + np.rint(np.array(numbers) * 1e9 / fps).astype(np.int64)
    return Sequence(
        next(key for key, value in found.items() if value == folder), size, stamps,
        Stack(count + 1, lambda n: _array(files[n], 'image1') if n < count else _array(files[-1], 'image2')),
        ids=Stack(count + 1, lambda n: _array(files[n], 'mov_seg').astype(np.uint16) if n < count
                  else np.zeros(size, np.uint16)), labelled=labelled, split=folder.parent.name, notes=tuple(notes))


def voxel(path: Path, number: int) -> np.ndarray:
    """(10, H, W) f32 voxel of the sample `number` in a sequence folder. Raises DatasetError."""
    return np.ascontiguousarray(_array(path / f'{number:05d}.hdf5', 'event_voxel').transpose(2, 0, 1))


def _array(file: Path, name: str) -> np.ndarray:
    with naming(file), h5py().File(file, 'r') as data:
        return data[name][:]


def write(sequence: Sequence, path: str | Path, split: str = 'train', min_pixels: int = MIN_PIXELS) -> Path:
    """Add a sequence to the set at `path`, only what moves. Returns its folder. Raises DatasetError."""
    name = sequence.name.replace('/', '_') or 'sequence'
    folder = Path(path) / ROOT / split / name
    if folder.exists():
        raise DatasetError(f'{folder} exists: name another sequence')
    if sequence.frames is None:
        raise DatasetError(f'sequence {sequence.name} has no frames: DIMOS needs them')
    lines, boxes = [], {}
    with naming(folder, 'written'):
        folder.mkdir(parents=True)
        for n in range(len(sequence) - 1):
            ids = compact_movers(sequence, n)
            valid = int(np.count_nonzero(ids)) >= max(min_pixels, 1) and sequence.truth(n) is not None
            lines.append(f'img_{n}.png {int(valid)}')
            boxes[f'{n:05d}'] = [list(box) for box in object_boxes(ids).values()]
            with h5py().File(folder / f'{n:05d}.hdf5', 'w') as data:
                for key, array in (('image1', sequence.frames[n]), ('image2', sequence.frames[n + 1]),
                                   ('mov_seg', ids), ('event_voxel', voxel_between(sequence, n))):
                    data.create_dataset(key, data=array, compression='lzf')
        (folder / 'valid.txt').write_text('\n'.join(lines) + '\n')
    listing = Path(path) / 'bbox_gt' / ('train.json' if split == 'train' else 'val.json')
    write_json(listing, {**(read_json(listing) if listing.exists() else {}), name: boxes})
    return folder


def compact_movers(sequence: Sequence, n: int) -> np.ndarray:
    """(H, W) u8 moving objects of frame n as 1..N in the order of their ids."""
    movers = sorted(number for number, moves in sequence.flags(n).items() if moves)
    ids = sequence.truth(n)
    out = np.zeros(sequence.size, np.uint8)
    for row, number in enumerate(movers[:255], 1):
        out[ids == number] = row
    return out


def voxel_between(sequence: Sequence, n: int) -> np.ndarray:
    """(H, W, 10) f32 counts of the events between frames n and n + 1 (dimos.md 1.2).

    Each event is shared by its two nearest bins in time between the first and the last event; fewer than two times:
    zeros, where the original divides by 0.
    """
    height, width = sequence.size
    grid = np.zeros((2 * BINS, height, width), np.float32)
    events = (sequence.events or Events.empty()).between(int(sequence.stamps_ns[n]), int(sequence.stamps_ns[n + 1]))
    if len(events) and events.t[-1] > events.t[0]:
        at = (events.t - events.t[0]) / (events.t[-1] - events.t[0]) * (BINS - 1)
        first = np.where(events.p > 0, 0, BINS)
        inside = (events.x < width) & (events.y < height)
        for shift in (0, 1):
            bins = np.floor(at).astype(np.int64) + shift
            weight = np.maximum(0, 1 - np.abs(at - bins))
            keep = inside & (bins < BINS)
            np.add.at(grid, (first[keep] + bins[keep], events.y[keep], events.x[keep]), weight[keep])
    return grid.transpose(1, 2, 0)
