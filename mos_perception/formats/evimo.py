"""EVIMO (v1): one .npz per sequence (dimos.md 4.4).

events (N, 4) t s, x, y, p; depth (F, H, W) mm; mask (F, H, W) object id x 1000; classical (F, H, W[, 3]) blue first, or
None; index (event number every `discretization` s); K, D; meta {frames: [{id, ts, cam, '<oid>': .., gt_frame,
classical_frame}], full_trajectory, imu, meta: {res_x, res_y, ros_time_offset, ..}}. Frames come at irregular times:
only frames[i]['ts'] counts. Ids go to 65 (u16 mask). Our extra key `moving` stands in a frame's object entry.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mos_perception.datatypes import Events
from mos_perception.errors import DatasetError
from mos_perception.formats.files import naming, npz_names, read_npz
from mos_perception.formats.sequence import Sequence, clean_events

SCALE = 1000  # mask value of object 1, and mm per m
MAX_ID = 65
DISCRETIZATION = 0.01  # s
MAX_SECONDS = 4e9  # what int64 ns hold, twice over
PLAIN_NS = 10**15  # times below are exact to the nanosecond as seconds in float64


def files(path: str | Path) -> dict[str, Path]:
    """Sequence files at or under `path` by name."""
    path = Path(path)
    found = [path] if path.is_file() else [*sorted(path.glob('*.npz')), *sorted(path.glob('*/*.npz')),
                                           *sorted(path.glob('*/*/*.npz'))]
    return {file.stem: file for file in found if file.suffix == '.npz' and _is_ours(file)}


def _is_ours(file: Path) -> bool:
    try:
        return {'events', 'mask', 'meta'} <= set(npz_names(file))
    except DatasetError:
        return False


def find(path: str | Path) -> list[str]:
    """Names of the sequences."""
    return list(files(path))


def read(path: str | Path, name: str = '') -> Sequence:
    """One sequence, all in memory: the format knows no parts. Raises DatasetError."""
    found = files(path)
    file = found.get(name) if name else next(iter(found.values()), None)
    if file is None:
        raise DatasetError(f'{path} has no EVIMO sequence {name}: it has {", ".join(found) or "none"}')
    with naming(file):
        meta, notes = read_npz(file, 'meta'), []
        names = set(npz_names(file))
        mask = read_npz(file, 'mask')
        size = mask.shape[1:3]
        stamps = frame_times(meta)
        if len(stamps) != len(mask):
            raise DatasetError(f'{file}: meta has {len(stamps)} frames and mask {len(mask)}: fetch it again')
        rows = read_npz(file, 'events').reshape(-1, 4)
        events = clean_events(rows[:, 1], rows[:, 2], rows[:, 3], nanoseconds(rows[:, 0], meta), size, notes)
        classical = read_npz(file, 'classical') if 'classical' in names else None
        depth = read_npz(file, 'depth') if 'depth' in names else None
        labelled, pictured = frame_kinds(meta)
        return Sequence(
            file.stem, size, stamps, _rgb(classical), events, size, object_ids(mask), flags_of(meta),
            depth=None if depth is None else (np.nan_to_num(depth) / SCALE).astype(np.float32),
            pictured=None if pictured.all() else pictured, labelled=None if labelled.all() else labelled,
            notes=tuple(notes))


def object_ids(mask: np.ndarray) -> np.ndarray:
    """u16 object ids of stored mask values (id x 1000)."""
    return np.rint(np.asarray(mask, np.float64) / SCALE).astype(np.uint16)


def nanoseconds(seconds: np.ndarray, meta: dict[str, Any]) -> np.ndarray:
    """(E,) int64 ns of stored seconds, moved by the recording's ros_time_offset. Raises DatasetError."""
    seconds = np.asarray(seconds, np.float64)
    start = float(meta.get('meta', {}).get('ros_time_offset', 0) or 0)
    if not (np.abs(seconds) < MAX_SECONDS).all() or not abs(start) < MAX_SECONDS:
        raise DatasetError(f'some times are beyond {MAX_SECONDS:g} s or no numbers: fetch the sequence again')
    offset = round(start * 1e9)
    return offset + np.rint(seconds * 1e9).astype(np.int64)


def frame_times(meta: dict[str, Any]) -> np.ndarray:
    """(F,) int64 ns of the frames."""
    return nanoseconds(np.array([frame['ts'] for frame in meta['frames']], np.float64), meta)


def frame_kinds(meta: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """((F,) bool has truth, (F,) bool has a picture)."""
    return tuple(np.array([key in frame for frame in meta['frames']], bool) for key in ('gt_frame', 'classical_frame'))


def flags_of(meta: dict[str, Any]) -> tuple[dict[int, bool], ...] | None:
    """Per frame: id -> moves, where the object entries say so."""
    flags = tuple({int(key): bool(entry['moving']) for key, entry in frame.items()
                   if str(key).isdecimal() and isinstance(entry, dict) and 'moving' in entry}
                  for frame in meta['frames'])
    return flags if any(flags) else None


def _rgb(classical: Any) -> np.ndarray | None:
    """(F, H, W, 3) u8 RGB of the stored pictures, grey or blue first; None where there are none."""
    if not isinstance(classical, np.ndarray) or classical.ndim < 3:
        return None
    pictures = np.clip(np.rint(classical), 0, 255).astype(np.uint8)
    return np.repeat(pictures[..., None], 3, -1) if pictures.ndim == 3 else pictures[..., ::-1]


def write(sequence: Sequence, path: str | Path) -> Path:
    """Write a sequence as `path` (.npz; else a file of its name in there). Returns the file.

    Raises DatasetError: ids above 65, or the file exists.
    """
    path = Path(path)
    file = path if path.suffix == '.npz' else path / f'{sequence.name.replace("/", "_") or "sequence"}.npz'
    if file.exists():
        raise DatasetError(f'{file} exists: name another file')
    meta, offset = meta_of(sequence)
    events = sequence.events or Events.empty()
    seconds = (events.t - offset) / 1e9
    height, width = sequence.size
    masks = np.zeros((len(sequence), height, width), np.uint16)
    for n in range(len(sequence)):
        masks[n] = mask_values(sequence, n)
    arrays = {'events': np.stack([seconds, events.x, events.y, events.p], 1).astype(np.float64), 'mask': masks,
              'index': index_of(seconds), 'discretization': np.array(DISCRETIZATION),
              'K': np.eye(3), 'D': np.zeros(4), 'meta': np.array(meta, object),
              'classical': np.array(None, object) if sequence.frames is None
              else np.asarray(sequence.frames)[..., ::-1],
              'depth': np.zeros((len(sequence), height, width), np.uint16) if sequence.depth is None
              else millimetres(np.asarray(sequence.depth))}
    with naming(file, 'written'):
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, **arrays)
    return file


def mask_values(sequence: Sequence, n: int) -> np.ndarray:
    """(H, W) u16 stored mask of frame n. Raises DatasetError for ids that do not fit."""
    ids = sequence.truth(n)
    if ids is None:
        return np.zeros(sequence.size, np.uint16)
    if ids.size and int(ids.max()) > MAX_ID:
        raise DatasetError(f'frame {n} has object id {int(ids.max())}: EVIMO holds up to {MAX_ID}; renumber')
    return (ids * SCALE).astype(np.uint16)


def millimetres(depth: np.ndarray) -> np.ndarray:
    """u16 mm of metres; beyond 65 m is unknown (0)."""
    scaled = np.rint(depth.astype(np.float64) * SCALE)
    return np.where(scaled < 65536, scaled, 0).astype(np.uint16)


def index_of(seconds: np.ndarray) -> np.ndarray:
    """Number of the first event at or after each multiple of the discretization."""
    last = float(seconds[-1]) if len(seconds) else 0.0
    first = float(seconds[0]) if len(seconds) else 0.0
    return np.searchsorted(seconds, np.arange(first, last + DISCRETIZATION, DISCRETIZATION)).astype(np.uint32)


def meta_of(sequence: Sequence) -> tuple[dict[str, Any], int]:
    """(meta dictionary, ns that the stored times count from)."""
    times = [sequence.stamps_ns] + ([sequence.events.t] if sequence.events is not None else [])
    every = np.concatenate(times)
    offset = 0 if not len(every) or abs(every).max() < PLAIN_NS else int(every.min()) // 10**9 * 10**9
    frames = []
    for n in range(len(sequence)):
        seconds = float(sequence.stamps_ns[n] - offset) / 1e9
        frame: dict[str, Any] = {'id': n, 'ts': seconds, 'cam': {'ts': seconds}}
        if sequence.truth(n) is not None:
            frame['gt_frame'] = f'depth_mask_{n}.png'
        if sequence.frames is not None and (sequence.pictured is None or sequence.pictured[n]):
            frame['classical_frame'] = f'img_{n}.png'
        flags = {} if sequence.moving is None else sequence.moving[n]
        frame.update({str(number): {'ts': seconds, 'moving': bool(moves)} for number, moves in flags.items()})
        frames.append(frame)
    height, width = sequence.size
    return {'frames': frames, 'full_trajectory': [], 'imu': {},
            'meta': {'res_x': width, 'res_y': height, 'ros_time_offset': offset / 1e9, 'fx': 0.0, 'fy': 0.0, 'cx': 0.0,
                     'cy': 0.0, 'model': 'radtan'}}, offset
