"""EVIMO2 v2: a folder per sequence, so that events can be mapped and pictures read one at a time (dimos.md 4.4).

dataset_events_{t,xy,p}.npy (t f32 s, xy (N, 2) u16, p u8), dataset_{depth,mask,classical}.npz keyed `<kind>_%010d` by
frame number, dataset_info.npz (K, D, index, discretization, meta as in v1). A frame may lack its truth or its picture:
then the key is missing. Cameras: two Prophesee, Samsung (polarity inverted, times grouped), and a colour camera
without events. Lost in writing: t is float32 seconds, half a unit in its last place (1 us at 16 s).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mos_perception.datatypes import Events
from mos_perception.errors import DatasetError
from mos_perception.formats import evimo
from mos_perception.formats.files import naming, npz_names, read_npy, read_npz
from mos_perception.formats.sequence import Sequence, Stack, clean_events

INFO = 'dataset_info.npz'
INVERTED = 'samsung_mono'  # the folder of the camera whose polarity is the wrong way round
MAX_SECONDS = 1000  # beyond, float32 is coarser than 60 us


def folders(path: str | Path) -> dict[str, Path]:
    """Sequence folders at or under `path` by their path from there."""
    path = Path(path)
    if not path.is_dir():
        return {}
    found = [file.parent for pattern in ('', '*/', '*/*/', '*/*/*/', '*/*/*/*/')
             for file in sorted(path.glob(f'{pattern}{INFO}'))]
    return {folder.relative_to(path).as_posix() if folder != path else folder.name: folder for folder in found}


def find(path: str | Path) -> list[str]:
    """Names of the sequences."""
    return list(folders(path))


def key(kind: str, n: int) -> str:
    """Name of picture n of a kind in its archive."""
    return f'{kind}_{n:010d}'


def read(path: str | Path, name: str = '', invert: bool | None = None) -> Sequence:
    """One sequence. Raises DatasetError.

    `invert` swaps the polarity; by default where a folder is called samsung_mono.
    """
    found = folders(path)
    folder = found.get(name) if name else next(iter(found.values()), None)
    if folder is None:
        raise DatasetError(f'{path} has no EVIMO2 sequence {name}: it has {", ".join(found) or "none"}')
    notes: list[str] = []
    with naming(folder / INFO):
        meta = read_npz(folder / INFO, 'meta')
        stamps = evimo.frame_times(meta)
        size = (int(meta['meta']['res_y']), int(meta['meta']['res_x']))
    count = len(stamps)
    have = {kind: set(npz_names(file)) if (file := folder / f'dataset_{kind}.npz').is_file() else set()
            for kind in ('mask', 'depth', 'classical')}
    labelled, pictured = (np.array([key(kind, n) in have[kind] for n in range(count)], bool)
                          for kind in ('mask', 'classical'))
    for kind in ('mask', 'classical'):  # the configuration files call rows x; the pictures know better
        first = next(iter(sorted(have[kind])), None)
        if first is not None:
            size = tuple(int(side) for side in read_npz(folder / f'dataset_{kind}.npz', first).shape[:2])
            break

    def rows(kind: str, convert, empty: np.ndarray) -> Stack | None:
        file = folder / f'dataset_{kind}.npz'
        return Stack(count, lambda n: convert(read_npz(file, key(kind, n))) if key(kind, n) in have[kind]
                     else empty) if have[kind] else None
    events = _events(folder, meta, size, INVERTED in folder.resolve().parts if invert is None else invert, notes)
    return Sequence(
        name or folder.name, size, stamps, rows('classical', _rgb, np.zeros((*size, 3), np.uint8)), events,
        None if events is None else size, rows('mask', evimo.object_ids, np.zeros(size, np.uint16)),
        evimo.flags_of(meta), depth=rows('depth', _metres, np.zeros(size, np.float32)),
        pictured=None if pictured.all() else pictured, labelled=None if labelled.all() else labelled,
        notes=tuple(notes))


def _events(folder: Path, meta: dict, size: tuple[int, int], invert: bool, notes: list[str]) -> Events | None:
    if not (folder / 'dataset_events_t.npy').is_file():
        return None
    t, xy, p = (read_npy(folder / f'dataset_events_{column}.npy') for column in ('t', 'xy', 'p'))
    with naming(folder / 'dataset_events_xy.npy'):
        xy = xy.reshape(-1, 2)
        if invert:
            notes.append('polarity inverted: this is the Samsung camera')
        return clean_events(xy[:, 0], xy[:, 1], (p == 0) if invert else p, evimo.nanoseconds(t, meta), size, notes)


def _rgb(picture: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(picture[..., ::-1]) if picture.ndim == 3 else np.repeat(picture[..., None], 3, -1)


def _metres(depth: np.ndarray) -> np.ndarray:
    return (depth / evimo.SCALE).astype(np.float32)


def write(sequence: Sequence, path: str | Path) -> Path:
    """Write a sequence as the folder `path`; returns it. Times count from the first whole second where they are large.

    Raises DatasetError: ids above 65, longer than 1000 s, or `path` is in use.
    """
    folder = Path(path)
    if (folder / INFO).exists():
        raise DatasetError(f'{folder} holds a sequence: name another folder')
    meta, offset = evimo.meta_of(sequence)
    events = sequence.events or Events.empty()
    seconds = ((events.t - offset) / 1e9).astype(np.float32)
    if len(seconds) and float(np.abs(seconds).max()) > MAX_SECONDS:
        raise DatasetError(f'events reach {float(np.abs(seconds).max()):.0f} s: float32 is too coarse beyond '
                           f'{MAX_SECONDS} s; shift the sequence to start near 0 or cut it')
    with naming(folder, 'written'):
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / 'dataset_events_t.npy', seconds)
        np.save(folder / 'dataset_events_xy.npy', np.stack([events.x, events.y], 1).astype(np.uint16))
        np.save(folder / 'dataset_events_p.npy', events.p.astype(np.uint8))
        for kind, rows in _pictures(sequence).items():
            np.savez_compressed(folder / f'dataset_{kind}.npz', **rows)
        np.savez(folder / INFO, K=np.eye(3), D=np.zeros(4), index=evimo.index_of(seconds.astype(np.float64)),
                 discretization=np.array(evimo.DISCRETIZATION), meta=np.array(meta, object))
    return folder


def _pictures(sequence: Sequence) -> dict[str, dict[str, np.ndarray]]:
    """Archives by kind, each with what frames have."""
    kinds: dict[str, dict[str, np.ndarray]] = {'mask': {}, 'depth': {}, 'classical': {}}
    for n in range(len(sequence)):
        if sequence.truth(n) is not None:
            kinds['mask'][key('mask', n)] = evimo.mask_values(sequence, n)
            depth = np.zeros(sequence.size) if sequence.depth is None else sequence.depth[n]
            kinds['depth'][key('depth', n)] = evimo.millimetres(depth)
        if sequence.frame(n) is not None:
            kinds['classical'][key('classical', n)] = sequence.frames[n][..., ::-1]
    return {kind: rows for kind, rows in kinds.items() if rows}
