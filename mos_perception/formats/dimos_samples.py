"""DIMOS' preprocessed samples: a file per pair of frames.

`emos_preprocess/{train,eval}/<seq>/%05d.hdf5` with `valid.txt`, and `bbox_gt/{train,val}.json`. In
a file
    image1, image2  (H, W, 3) u8
    mov_seg         (H, W) u8 ids of image1, compact 1..N per frame
    event_voxel     (H, W, 10) f32 of the events between the two: 5 positive bins, 5 negative
The events themselves and the times are gone; frames are 1 / fps apart from 1 s on. valid.txt has
lines "img_<i>.png 0|1", which the original loader turns to bool as text, so that "0" is True: here
it is a number.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mos_perception.datatypes import Events
from mos_perception.formats.files import h5py, naming, read_json, write_json
from mos_perception.formats.findings import Report
from mos_perception.formats.layout import chosen, refuse_existing
from mos_perception.formats.sequence import LazyArray, Sequence, regular_stamps
from mos_perception.masks import object_boxes

FPS = 30.0
MIN_PIXELS = 400  # moving pixels of a frame that counts
BINS = 5
ROOT = 'emos_preprocess'
ARRAYS = ('image1', 'image2', 'mov_seg', 'event_voxel')


def folders(path: str | Path) -> dict[str, Path]:
    """Sequence folders at or under `path` by 'split/name'."""
    path = Path(path)
    places = [path]
    for pattern in ('*', '*/*', f'{ROOT}/*/*'):
        places += sorted(path.glob(pattern))
    found = {}
    for folder in places:
        if folder.is_dir() and samples(folder):
            whole = folder.resolve()
            found[f'{whole.parent.name}/{whole.name}'] = folder
    return found


def samples(folder: Path) -> list[Path]:
    """The sample files of a sequence, in order."""
    files = (file for file in folder.glob('*.hdf5') if file.stem.isdecimal())
    return sorted(files, key=lambda file: int(file.stem))


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
    folder = chosen(found, name, path, 'DIMOS')
    files = samples(folder)
    listing = folder / 'valid.txt'
    valid = read_valid(listing) if listing.is_file() else {}
    numbers = [int(file.stem) for file in files]
    has_label = [valid.get(number, True) for number in numbers]
    size = _array(files[0], 'image1').shape[:2]
    count = len(files)  # of the pairs; the last one's second frame is a frame more, without truth

    def frame(n: int) -> np.ndarray:
        return _array(files[n], 'image1') if n < count else _array(files[-1], 'image2')

    def ids(n: int) -> np.ndarray:
        if n == count:
            return np.zeros(size, np.uint16)
        return _array(files[n], 'mov_seg').astype(np.uint16)
    notes = ['ids are numbered anew in every frame: they are no tracks']
    if not valid:
        notes.append('no valid.txt: all frames count')
    return Sequence(
        next(key for key, place in found.items() if place == folder), size,
        regular_stamps([*numbers, numbers[-1] + 1], fps), LazyArray(count + 1, frame),
        ids=LazyArray(count + 1, ids), has_label=np.array([*has_label, False]),
        split=folder.parent.name, notes=tuple(notes))


def voxel(folder: Path, number: int) -> np.ndarray:
    """(10, H, W) f32 voxel of the sample `number` in a sequence folder. Raises DatasetError."""
    voxel_HWC = _array(folder / f'{number:05d}.hdf5', 'event_voxel')
    return np.ascontiguousarray(voxel_HWC.transpose(2, 0, 1))


def _array(file: Path, name: str) -> np.ndarray:
    with naming(file), h5py().File(file, 'r') as data:
        return data[name][:]


def write(sequence: Sequence, path: str | Path, split: str = 'train',
          min_pixels: int = MIN_PIXELS) -> Path:
    """Add a sequence to the set at `path`, only what moves. Returns its folder.

    Frames with fewer than `min_pixels` moving pixels are marked invalid.
    Raises DatasetError: no frames, or the sequence exists.
    """
    name = sequence.file_name
    folder = Path(path) / ROOT / split / name
    refuse_existing(folder, 'sequence')
    frames = sequence.require_frames('DIMOS')
    lines, boxes = [], {}
    with naming(folder, 'written'):
        folder.mkdir(parents=True)
        for n in range(len(sequence) - 1):
            ids = compact_moving_ids(sequence, n)
            valid = int(np.count_nonzero(ids)) >= max(min_pixels, 1)
            lines.append(f'img_{n}.png {int(valid)}')
            boxes[f'{n:05d}'] = [list(box) for box in object_boxes(ids).values()]
            arrays = frames[n], frames[n + 1], ids, voxel_between(sequence, n)
            with h5py().File(folder / f'{n:05d}.hdf5', 'w') as data:
                for key, array in zip(ARRAYS, arrays, strict=True):
                    data.create_dataset(key, data=array, compression='lzf')
        (folder / 'valid.txt').write_text('\n'.join(lines) + '\n')
    listing = Path(path) / 'bbox_gt' / ('train.json' if split == 'train' else 'val.json')
    known = read_json(listing) if listing.exists() else {}
    write_json(listing, {**known, name: boxes})
    return folder


def compact_moving_ids(sequence: Sequence, n: int) -> np.ndarray:
    """(H, W) u8 moving objects of frame n as 1..N in the order of their ids."""
    moving = sorted(object_id for object_id, moves in sequence.flags(n).items() if moves)
    ids = sequence.truth(n)
    out = np.zeros(sequence.size, np.uint8)
    for row, object_id in enumerate(moving[:255], 1):
        out[ids == object_id] = row
    return out


def voxel_between(sequence: Sequence, n: int) -> np.ndarray:
    """(H, W, 10) f32 counts of the events between frames n and n + 1.

    As the files of DIMOS hold them: each event is shared by its two nearest bins in time between
    the first and the last event; fewer than two times: zeros, where the original divides by 0.
    """
    height, width = sequence.size
    grid = np.zeros((2 * BINS, height, width), np.float32)
    start, end = (int(stamp) for stamp in sequence.stamps_ns[n:n + 2])
    events = (sequence.events or Events.empty()).between(start, end)
    if len(events) and events.t[-1] > events.t[0]:
        at = (events.t - events.t[0]) / (events.t[-1] - events.t[0]) * (BINS - 1)
        first = np.where(events.p > 0, 0, BINS)
        inside = (events.x < width) & (events.y < height)
        for shift in (0, 1):
            bins = np.floor(at).astype(np.int64) + shift
            weight = np.maximum(0, 1 - np.abs(at - bins))
            keep = inside & (bins < BINS)
            places = first[keep] + bins[keep], events.y[keep], events.x[keep]
            np.add.at(grid, places, weight[keep])
    return grid.transpose(1, 2, 0)


def inspect(path: Path, report: Report) -> None:
    """Add what is wrong with the sequence folders at `path`."""
    for folder in folders(path).values():
        files = samples(folder)
        numbers = [int(file.stem) for file in files]
        report.frame_times(folder, np.array(numbers, np.int64) * 10**9)
        _inspect_samples(files, report)
        listing = folder / 'valid.txt'
        if not listing.is_file():
            report.add('missing-file', listing,
                       'it says which frames count; all do without it')
            continue
        with report.guard(listing):
            lacking = sorted(set(numbers) - set(read_valid(listing)))
            if lacking:
                report.add('count-differs', listing,
                           f'{len(lacking)} samples have no line, the first is {lacking[0]}')


def _inspect_samples(files: list[Path], report: Report) -> None:
    """Each file has all arrays, all of one size."""
    size = None
    for file in files:
        with report.guard(file), h5py().File(file, 'r') as data:
            missing = set(ARRAYS) - set(data)
            if missing:
                report.add('missing-array', file, f'it lacks {", ".join(sorted(missing))}')
                continue
            shapes = {data[name].shape[:2] for name in ARRAYS}
            size = size or data['image1'].shape[:2]
            if shapes != {size}:
                report.add('size-differs', file,
                           f'arrays have sizes {sorted(shapes)}, the first sample {size}')
