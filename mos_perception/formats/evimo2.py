"""EVIMO2 v2: a folder per sequence, so that events are mapped and pictures read one at a time.

    dataset_events_t.npy, _xy.npy, _p.npy     t f32 s, xy (N, 2) u16, p u8
    dataset_depth.npz, _mask.npz, _classical.npz   keyed `<kind>_%010d` by frame number
    dataset_info.npz                          K, D, index, discretization, meta as in v1
A frame may lack its truth or its picture: then the key is missing. Cameras: two Prophesee, Samsung
(polarity inverted, times grouped), and a colour camera without events. Lost in writing: t is
float32 seconds, half a unit in its last place (1 us at 16 s).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mos_perception.datatypes import Events
from mos_perception.errors import DatasetError
from mos_perception.formats import evimo
from mos_perception.formats.event_inspector import EventInspector
from mos_perception.formats.files import chunks, naming, npz_names, read_npy, read_npz
from mos_perception.formats.findings import Report
from mos_perception.formats.layout import below, by_relative_name, chosen
from mos_perception.formats.sequence import LazyArray, Sequence, clean_events, rows_in

INFO = 'dataset_info.npz'
EVENT_COLUMNS = ('t', 'xy', 'p')
INVERTED = 'samsung_mono'  # the folder of the camera whose polarity is the wrong way round
MAX_SECONDS = 1000  # beyond, float32 is coarser than 60 us


def folders(path: str | Path) -> dict[str, Path]:
    """Sequence folders at or under `path` by their path from there."""
    path = Path(path)
    return by_relative_name((file.parent for file in below(path, INFO, 4)), path)


def find(path: str | Path) -> list[str]:
    """Names of the sequences."""
    return list(folders(path))


def key(kind: str, n: int) -> str:
    """Name of picture n of a kind in its archive."""
    return f'{kind}_{n:010d}'


def _archive(folder: Path, kind: str) -> Path:
    """The file of all pictures of a kind."""
    return folder / f'dataset_{kind}.npz'


def _column(folder: Path, name: str) -> Path:
    """The file of a column of the events."""
    return folder / f'dataset_events_{name}.npy'


def read(path: str | Path, name: str = '', invert: bool | None = None) -> Sequence:
    """One sequence. Raises DatasetError.

    `invert` swaps the polarity; by default where a folder is called samsung_mono.
    """
    folder = chosen(folders(path), name, path, 'EVIMO2')
    notes: list[str] = []
    with naming(folder / INFO):
        meta = read_npz(folder / INFO, 'meta')
        stamps = evimo.frame_times(meta)
        size = _stated_size(meta)
    held = {kind: set(npz_names(file)) if (file := _archive(folder, kind)).is_file() else set()
            for kind in ('mask', 'depth', 'classical')}
    for kind in ('mask', 'classical'):  # the configuration files call rows x; the pictures do not
        if held[kind]:
            file = _archive(folder, kind)
            with naming(file):
                height, width = read_npz(file, min(held[kind])).shape[:2]
            size = int(height), int(width)
            break

    def rows(kind: str, convert: Callable[[np.ndarray], np.ndarray],
             empty: np.ndarray) -> LazyArray | None:
        """All pictures of a kind, `empty` where a frame has none; None where no frame has one."""
        def picture(n: int) -> np.ndarray:
            if key(kind, n) not in held[kind]:
                return empty
            return convert(read_npz(_archive(folder, kind), key(kind, n)))
        return LazyArray(len(stamps), picture) if held[kind] else None

    def has(kind: str) -> np.ndarray | None:
        return rows_in(held[kind], (key(kind, n) for n in range(len(stamps))))
    if invert is None:
        invert = INVERTED in folder.resolve().parts
    events = _events(folder, meta, size, invert, notes)
    return Sequence(
        name or folder.name, size, stamps, events=events,
        event_size=None if events is None else size,
        frames=rows('classical', _rgb, np.zeros((*size, 3), np.uint8)),
        ids=rows('mask', evimo.object_ids, np.zeros(size, np.uint16)),
        moving=evimo.flags_of(meta), depth=rows('depth', _metres, np.zeros(size, np.float32)),
        has_frame=has('classical'), has_label=has('mask'), notes=tuple(notes))


def _stated_size(meta: evimo.Meta) -> tuple[int, int]:
    return int(meta['meta']['res_y']), int(meta['meta']['res_x'])


def _events(folder: Path, meta: evimo.Meta, size: tuple[int, int], invert: bool,
            notes: list[str]) -> Events | None:
    if not _column(folder, 't').is_file():
        return None
    t, xy, p = (read_npy(_column(folder, name)) for name in EVENT_COLUMNS)
    with naming(_column(folder, 'xy')):
        x, y = xy.reshape(-1, 2).T
        if invert:
            notes.append('polarity inverted: this is the Samsung camera')
            p = p == 0
        return clean_events(x, y, p, evimo.nanoseconds(t, meta), size, notes)


def _rgb(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) of a stored picture, grey or blue first."""
    if picture.ndim == 3:
        return np.ascontiguousarray(picture[..., ::-1])
    return np.repeat(picture[..., None], 3, -1)


def _metres(depth: np.ndarray) -> np.ndarray:
    return (depth / evimo.SCALE).astype(np.float32)


def write(sequence: Sequence, path: str | Path) -> Path:
    """Write a sequence as the folder `path`; returns it.

    Times count from the first whole second where they are large. Raises DatasetError: ids above
    65, longer than 1000 s, or `path` is in use.
    """
    folder = Path(path)
    if (folder / INFO).exists():
        raise DatasetError(f'{folder} holds a sequence: name another folder')
    meta, offset = evimo.meta_of(sequence)
    events = sequence.events or Events.empty()
    seconds = ((events.t - offset) / 1e9).astype(np.float32)
    furthest = float(np.abs(seconds).max(initial=0))
    if furthest > MAX_SECONDS:
        raise DatasetError(f'events reach {furthest:.0f} s: float32 is too coarse beyond '
                           f'{MAX_SECONDS} s; shift the sequence to start near 0 or cut it')
    with naming(folder, 'written'):
        folder.mkdir(parents=True, exist_ok=True)
        np.save(_column(folder, 't'), seconds)
        np.save(_column(folder, 'xy'), np.stack([events.x, events.y], 1).astype(np.uint16))
        np.save(_column(folder, 'p'), events.p.astype(np.uint8))
        for kind, rows in _pictures(sequence).items():
            np.savez_compressed(_archive(folder, kind), **rows)
        np.savez(folder / INFO, **evimo.calibration(seconds.astype(np.float64), meta))
    return folder


def _pictures(sequence: Sequence) -> dict[str, dict[str, np.ndarray]]:
    """Archives by kind, each with what frames have."""
    kinds: dict[str, dict[str, np.ndarray]] = {'mask': {}, 'depth': {}, 'classical': {}}
    for n in range(len(sequence)):
        if sequence.truth_exists(n):
            kinds['mask'][key('mask', n)] = evimo.mask_values(sequence, n)
            depth = np.zeros(sequence.size) if sequence.depth is None else sequence.depth[n]
            kinds['depth'][key('depth', n)] = evimo.millimetres(depth)
        frame = sequence.frame(n)
        if frame is not None:
            kinds['classical'][key('classical', n)] = frame.image[..., ::-1]
    return {kind: rows for kind, rows in kinds.items() if rows}


def inspect(path: Path, report: Report) -> None:
    """Add what is wrong with the sequence folders at `path`."""
    for folder in folders(path).values():
        with report.guard(folder / INFO):
            meta = read_npz(folder / INFO, 'meta')
            stamps = evimo.frame_times(meta)
            report.frame_times(folder / INFO, stamps)
            values, size = _inspect_pictures(folder, _stated_size(meta), report)
            evimo.inspect_ids(_archive(folder, 'mask'), values, meta, report)
            _inspect_events(folder, meta, size, stamps, report)


def _inspect_pictures(folder: Path, size: tuple[int, int],
                      report: Report) -> tuple[np.ndarray, tuple[int, int]]:
    """(all values of the masks in order, the size of the first mask or else `size`)."""
    values: set[float] = set()
    for kind in ('mask', 'classical', 'depth'):
        file = _archive(folder, kind)
        if not file.is_file():
            if kind == 'mask':
                report.add('missing-file', file, 'the masks are missing')
            continue
        with report.guard(file):
            for name in npz_names(file):
                picture = read_npz(file, name)
                if kind == 'mask':
                    size = size if values else picture.shape[:2]
                    values |= set(np.unique(picture).tolist())
                if picture.shape[:2] != size:
                    report.add('size-differs', file,
                               f'{name} has {picture.shape[:2]} px, the masks {size}')
    return np.array(sorted(values)), size


def _inspect_events(folder: Path, meta: evimo.Meta, size: tuple[int, int], stamps: np.ndarray,
                    report: Report) -> None:
    files = [_column(folder, name) for name in EVENT_COLUMNS]
    gone = [file for file in files if not file.is_file()]
    if gone:
        kind = 'no-events' if len(gone) == len(files) else 'missing-file'
        report.add(kind, gone[0], 'the events are missing')
        return
    events = EventInspector(report, folder, size)
    with report.guard(folder):
        t, xy, p = (read_npy(file) for file in files)
        for part in chunks(max(len(t), len(xy), len(p))):
            events.add(xy[part, 0], xy[part, 1], p[part], evimo.nanoseconds(t[part], meta))
        events.finish(stamps)
        report.index(folder / INFO, 'index', read_npz(folder / INFO, 'index'), len(t))
