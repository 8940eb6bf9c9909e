"""MouseSIS: one HDF5 per sequence (frames, events) and one JSON per split (tracks).

Layout `[top/]{train,val,test}/seqNN.h5` (or seq_NN.hdf5); `{train,val}_annotations.json` lies
beside or above the split. In the HDF5, N images and M events:
    images     (N, H, W, 3) u8
    img_ts     (N,) f64 us
    img2event  (N,) i64 index of the last event before image i
    t          (M,) u32 us
    x, y       (M,) f64, rectified, so not whole
    p          (M,) u8
Masks are 'start length' pairs; see `masks.mask_from_pairs` for their off-by-one. Lost in writing:
event times below 1 us. `origin_ns` is our own attribute: the time that the 32-bit clock calls 0.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from mos_perception.datatypes import Events
from mos_perception.errors import DatasetError
from mos_perception.formats import tracks
from mos_perception.formats.event_inspector import EventInspector
from mos_perception.formats.files import chunks, h5py, naming, read_json, write_json
from mos_perception.formats.findings import Report
from mos_perception.formats.layout import below, chosen, refuse_existing
from mos_perception.formats.sequence import LazyArray, Sequence, clean_events
from mos_perception.masks import mask_from_pairs, pairs_from_mask

COLUMNS = ('images', 'img_ts', 'img2event', 't', 'x', 'y', 'p')
RLE_BASE = 1  # as every loader reads it
MAX_US = 4e15  # what int64 ns hold, twice over
CLOCK_US = 1 << 32  # where the times of the events end
_NAME = re.compile(r'seq_?(\d+)\.(h5|hdf5)')


def files(path: str | Path) -> dict[str, Path]:
    """Sequence files at or under `path` by 'split/name'."""
    path = Path(path)
    found = [path] if path.is_file() else sorted(below(path, 'seq*', 2))
    return {f'{file.parent.name}/{file.stem}': file for file in found
            if _NAME.fullmatch(file.name)}


def find(path: str | Path) -> list[str]:
    """Names of the sequences."""
    return list(files(path))


def annotations_file(file: Path) -> Path | None:
    """The JSON with the tracks of a sequence file, or None (the test split's are private)."""
    name = f'{file.parent.name}_annotations.json'
    places = [file.parent / name, file.parent.parent / name, file.parent.parent.parent / name]
    return next((place for place in places if place.is_file()), None)


def records(annotations: Any, file: Path) -> list[tracks.Record]:
    """The track records of one sequence file.

    Raises DatasetError where the JSON does not know the sequence.
    """
    number = _number(file)
    if all(int(entry['id']) != number for entry in annotations['videos']):
        raise DatasetError(f'{file}: its annotations have no video {number:02d}; '
                           'use those of the same split')
    return [entry for entry in annotations['annotations'] if int(entry['video_id']) == number]


def read(path: str | Path, name: str = '') -> Sequence:
    """One sequence; frames and masks are read as they are used. Raises DatasetError."""
    file = chosen(files(path), name, path, 'MouseSIS', 'no seqNN.h5')
    library, notes = h5py(), []
    with naming(file), library.File(file, 'r') as data:
        count, height, width = data['images'].shape[:3]
        origin = int(data.attrs.get('origin_ns', 0))
        stamps = origin + frame_times(data)
        t = origin + data['t'][:].astype(np.int64) * 1000
        events = clean_events(_pixels(data['x']), _pixels(data['y']), data['p'][:], t,
                              (height, width), notes)
    source = annotations_file(file)
    truth: dict[str, Any] = {}
    if source is not None:
        with naming(source):
            rows = records(read_json(source), file)
            truth = {'ids': tracks.id_images(rows, count, (height, width), _mask, source),
                     'boxes': tracks.boxes_of(rows, count),
                     'moving': tracks.moving_of(rows, count)}

    def image(index: int) -> np.ndarray:
        with naming(file), library.File(file, 'r') as again:
            return again['images'][index]
    return Sequence(f'{file.parent.name}/{file.stem}', (height, width), stamps,
                    LazyArray(count, image), events, (height, width), split=file.parent.name,
                    notes=tuple(notes), **truth)


def frame_times(data: Any) -> np.ndarray:
    """(N,) int64 ns of the images of an open file. Raises DatasetError."""
    times = data['img_ts'][:]
    if not (np.abs(times) < MAX_US).all():
        raise DatasetError(f'some of img_ts are beyond {MAX_US:g} us or no numbers: '
                           'fetch the sequence again')
    return np.rint(times * 1000).astype(np.int64)


def _number(file: Path) -> int:
    return int(_NAME.fullmatch(file.name)[1])


def _pixels(column: Any) -> np.ndarray:
    """(M,) int32 of an open column, rounded down: -0.5 is outside.

    Piece by piece: the float64 of a real file would fill the memory.
    """
    pixels = np.empty(len(column), np.int32)
    for part in chunks(len(pixels)):
        piece = np.nan_to_num(column[part], nan=-1)
        pixels[part] = np.clip(np.floor(piece), -1, 65535)
    return pixels


def _mask(code: dict[str, Any]) -> np.ndarray:
    height, width = (int(side) for side in code['size'])
    return mask_from_pairs(code['counts'], (height, width), RLE_BASE)


def write(sequence: Sequence, path: str | Path, split: str = 'train',
          number: int | None = None) -> Path:
    """Add a sequence as `path/top/<split>/seqNN.h5`, NN given or the next free one.

    Returns the file. Raises DatasetError: no frames, the file exists, or longer than the 71
    minutes that u32 microseconds hold.
    """
    folder = Path(path) / 'top' / split
    if number is None:
        number = 1 + max((_number(file) for file in files(folder).values()), default=0)
    sequence.require_frames('MouseSIS', at_least=1)
    file = folder / f'seq{number:02d}.h5'
    with naming(file, 'written'):
        folder.mkdir(parents=True, exist_ok=True)
        refuse_existing(file, 'number')
        with h5py().File(file, 'w') as data:
            _write_columns(sequence, data)
    if sequence.ids is not None:
        _write_tracks(sequence, folder.parent / f'{split}_annotations.json', f'{number:02d}')
    return file


def _write_columns(sequence: Sequence, data: Any) -> None:
    """All arrays into an open file. Raises DatasetError where the clock ends too early."""
    events, stamps = sequence.events or Events.empty(), sequence.stamps_ns
    times = np.concatenate([stamps[:1], stamps[-1:], events.t[:1], events.t[-1:]])
    origin = 0
    if times.min() < 0 or times.max() // 1000 >= CLOCK_US:
        origin = int(times.min()) // 1000 * 1000
    if (times.max() - origin) // 1000 >= CLOCK_US:
        raise DatasetError(
            f'sequence {sequence.name} lasts {(times.max() - origin) / 1e9:.0f} s: '
            'MouseSIS times end at 4294 s; cut it')
    data.attrs['origin_ns'] = origin
    images = data.create_dataset('images', (len(sequence), *sequence.size, 3), np.uint8)
    for n in range(len(sequence)):
        images[n] = sequence.frames[n]
    data['img_ts'] = (stamps - origin) / 1000.0
    before = np.searchsorted(events.t, stamps, side='left') - 1
    data['img2event'] = np.maximum(before, 0).astype(np.int64)
    data['t'] = ((events.t - origin) // 1000).astype(np.uint32)
    data['x'], data['y'] = events.x.astype(np.float64), events.y.astype(np.float64)
    data['p'] = events.p.astype(np.uint8)


def _write_tracks(sequence: Sequence, file: Path, video: str) -> None:
    annotations = tracks.read_annotations(file, 'mouse', {'description': 'MouseSIS layout'})
    height, width = sequence.size
    annotations['videos'].append(
        {'id': video, 'width': width, 'height': height, 'length': len(sequence)})

    def encode(mask: np.ndarray) -> dict[str, Any]:
        return {'size': [height, width], 'counts': pairs_from_mask(mask, RLE_BASE)}
    tracks.add_records(annotations, sequence, encode, video_id=video)
    write_json(file, annotations)


def inspect(path: Path, report: Report) -> None:
    """Add what is wrong with the sequence files at `path` and their annotations."""
    for file in files(path).values():
        count, size = 0, ()
        with report.guard(file), h5py().File(file, 'r') as data:
            missing = [name for name in COLUMNS if name not in data]
            if missing:
                report.add('missing-array', file, f'it lacks {", ".join(missing)}')
                continue
            count, *size = data['images'].shape[:3]
            _inspect_columns(data, count, tuple(size), file, report)
        _inspect_annotations(file, count, tuple(size), report)


def _inspect_columns(data: Any, count: int, size: tuple[int, int], file: Path,
                     report: Report) -> None:
    stamps = frame_times(data)
    report.frame_times(file, stamps)
    if not len(stamps) == count == len(data['img2event']):
        report.add('count-differs', file, f'{count} images, {len(stamps)} img_ts, '
                   f'{len(data["img2event"])} img2event')
    report.index(file, 'img2event', data['img2event'][:], len(data['t']))
    events = EventInspector(report, file, size)
    for part in chunks(max(len(data[name]) for name in 'xypt')):
        x, y, p, t = (data[name][part] for name in 'xypt')
        events.add(x, y, p, t.astype(np.int64) * 1000)
    events.finish(stamps)


def _inspect_annotations(file: Path, count: int, size: tuple[int, int], report: Report) -> None:
    source = annotations_file(file)
    if source is None:
        report.add('missing-annotations', file,
                   f'no {file.parent.name}_annotations.json beside or above it')
        return
    if not count:
        return
    annotations = None
    with report.guard(source):
        annotations = read_json(source)
    if annotations is None:
        return
    where = f'{source} ({file.name})'
    with report.guard(where, 'missing-annotations'):
        tracks.inspect_records(records(annotations, file), count, size, where, report, _mask)
