"""MouseSIS: one HDF5 per sequence (frames, events) and one JSON per split (tracks).

Layout `[top/]{train,val,test}/seqNN.h5` (or seq_NN.hdf5) and `{train,val}_annotations.json` beside or above the split
(dimos.md 4.1). In the HDF5: images (N, H, W, 3) u8, img_ts (N,) f64 us, img2event (N,) i64 index of the last event
before image i, t (M,) u32 us, x and y (M,) f64 (rectified, so not whole), p (M,) u8. Masks are 'start length' pairs;
see `masks.mask_from_pairs` for their off-by-one. Lost in writing: event times below 1 us. `origin_ns` is our own
attribute: the time that the 32-bit clock calls 0.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from mos_perception import masks
from mos_perception.errors import DatasetError
from mos_perception.formats import tracks
from mos_perception.formats.files import h5py, naming, read_json, write_json
from mos_perception.formats.sequence import Sequence, Stack, clean_events

COLUMNS = ('images', 'img_ts', 'img2event', 't', 'x', 'y', 'p')
RLE_BASE = 1  # as every loader reads it
MAX_US = 4e15  # what int64 ns hold, twice over
CHUNK = 4_000_000  # events taken together
_NAME = re.compile(r'seq_?(\d+)\.(h5|hdf5)')


def files(path: str | Path) -> dict[str, Path]:
    """Sequence files at or under `path` by 'split/name'."""
    path = Path(path)
    if path.is_file():
        found = [path]
    else:
        found = sorted(file for pattern in ('', '*/', '*/*/') for file in path.glob(f'{pattern}seq*'))
    return {f'{file.parent.name}/{file.stem}': file for file in found if _NAME.fullmatch(file.name)}


def find(path: str | Path) -> list[str]:
    """Names of the sequences."""
    return list(files(path))


def annotations_file(file: Path) -> Path | None:
    """The JSON with the tracks of a sequence file, or None (the test split's are private)."""
    name = f'{file.parent.name}_annotations.json'
    places = [file.parent / name, file.parent.parent / name, file.parent.parent.parent / name]
    return next((place for place in places if place.is_file()), None)


def records(annotations: Any, file: Path) -> list[dict[str, Any]]:
    """The track records of one sequence file. Raises DatasetError where the JSON does not know the sequence."""
    number = int(_NAME.fullmatch(file.name)[1])
    video = [entry['id'] for entry in annotations['videos'] if int(entry['id']) == number]
    if not video:
        raise DatasetError(f'{file}: its annotations have no video {number:02d}; use those of the same split')
    return [entry for entry in annotations['annotations'] if int(entry['video_id']) == number]


def read(path: str | Path, name: str = '') -> Sequence:
    """One sequence; frames and masks are read as they are used. Raises DatasetError."""
    found = files(path)
    file = found.get(name) if name else next(iter(found.values()), None)
    if file is None:
        raise DatasetError(f'{path} has no MouseSIS sequence {name}: it has {", ".join(found) or "no seqNN.h5"}')
    library, notes = h5py(), []
    with naming(file), library.File(file, 'r') as data:
        count, height, width = data['images'].shape[:3]
        origin = int(data.attrs.get('origin_ns', 0))
        stamps = origin + frame_times(data)
        x, y = _pixels(data['x']), _pixels(data['y'])
        t = origin + data['t'][:].astype(np.int64) * 1000
        events = clean_events(x, y, data['p'][:], t, (height, width), notes)
    source = annotations_file(file)
    truth: dict[str, Any] = {}
    if source is not None:
        with naming(source):
            rows = records(read_json(source), file)
            truth = {'ids': tracks.ids_of(rows, count, (height, width), _mask, source),
                     'boxes': tracks.boxes_of(rows, count), 'moving': tracks.moving_of(rows, count)}

    def image(index: int) -> np.ndarray:
        with naming(file), library.File(file, 'r') as again:
            return again['images'][index]
    return Sequence(f'{file.parent.name}/{file.stem}', (height, width), stamps, Stack(count, image), events,
                    (height, width), split=file.parent.name, notes=tuple(notes), **truth)


def frame_times(data: Any) -> np.ndarray:
    """(N,) int64 ns of the images of an open file. Raises DatasetError."""
    times = data['img_ts'][:]
    if not (np.abs(times) < MAX_US).all():
        raise DatasetError(f'some of img_ts are beyond {MAX_US:g} us or no numbers: fetch the sequence again')
    return np.rint(times * 1000).astype(np.int64)


def _pixels(column: Any) -> np.ndarray:
    """(M,) int32, rounded down (-0.5 is outside), piece by piece: the float64 of a real file would fill the memory."""
    pixels = np.empty(len(column), np.int32)
    for start in range(0, len(pixels), CHUNK):
        piece = np.nan_to_num(column[start:start + CHUNK], nan=-1)
        pixels[start:start + CHUNK] = np.clip(np.floor(piece), -1, 65535)
    return pixels


def _mask(code: dict[str, Any]) -> np.ndarray:
    return masks.mask_from_pairs(code['counts'], tuple(int(side) for side in code['size']), RLE_BASE)


def write(sequence: Sequence, path: str | Path, split: str = 'train', number: int | None = None) -> Path:
    """Add a sequence as `path/top/<split>/seqNN.h5`, NN given or the next free one. Returns the file.

    Raises DatasetError: no frames, or longer than the 71 minutes that u32 microseconds hold.
    """
    folder = Path(path) / 'top' / split
    if number is None:
        number = 1 + max((int(_NAME.fullmatch(file.name)[1]) for file in files(folder).values()), default=0)
    if sequence.frames is None or not len(sequence):
        raise DatasetError(f'sequence {sequence.name} has no frames: MouseSIS needs them')
    file = folder / f'seq{number:02d}.h5'
    with naming(file, 'written'):
        folder.mkdir(parents=True, exist_ok=True)
        if file.exists():
            raise DatasetError(f'{file} exists: name another number')
        with h5py().File(file, 'w') as data:
            _write_columns(sequence, data)
    if sequence.ids is not None:
        _write_tracks(sequence, folder.parent / f'{split}_annotations.json', number)
    return file


def _write_columns(sequence: Sequence, data: Any) -> None:
    events, stamps = sequence.events, sequence.stamps_ns
    t = np.empty(0, np.int64) if events is None else events.t
    times = np.concatenate([stamps[:1], stamps[-1:], t[:1], t[-1:]])
    origin = 0 if times.min() >= 0 and times.max() // 1000 < 1 << 32 else int(times.min()) // 1000 * 1000
    us = (t - origin) // 1000
    if (times.max() - origin) // 1000 >= 1 << 32:
        raise DatasetError(f'sequence {sequence.name} lasts {(times.max() - origin) / 1e9:.0f} s: MouseSIS times end '
                           'at 4294 s; cut it')
    data.attrs['origin_ns'] = origin
    images = data.create_dataset('images', (len(sequence), *sequence.size, 3), np.uint8)
    for n in range(len(sequence)):
        images[n] = sequence.frames[n]
    data['img_ts'] = (stamps - origin) / 1000.0
    data['img2event'] = np.maximum(np.searchsorted(t, stamps, side='left') - 1, 0).astype(np.int64)
    data['t'] = us.astype(np.uint32)
    for column, kind in (('x', np.float64), ('y', np.float64), ('p', np.uint8)):
        data[column] = np.empty(0, kind) if events is None else getattr(events, column).astype(kind)


def _write_tracks(sequence: Sequence, file: Path, number: int) -> None:
    whole = read_json(file) if file.exists() else {'info': {'description': 'MouseSIS layout'}, 'videos': [],
                                                   'annotations': [], 'categories': [{'id': 1, 'name': 'mouse'}]}
    height, width = sequence.size
    video = f'{number:02d}'
    whole['videos'].append({'id': video, 'width': width, 'height': height, 'length': len(sequence)})
    first = 1 + max((entry['id'] for entry in whole['annotations']), default=0)
    whole['annotations'] += [{**record, 'video_id': video} for record in tracks.records_of(
        sequence, first, lambda mask: {'size': [height, width], 'counts': masks.pairs_from_mask(mask, RLE_BASE)})]
    write_json(file, whole)
