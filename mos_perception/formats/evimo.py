"""EVIMO (v1): one .npz per sequence. Legend: N events, F frames.

    events     (N, 4) t s, x, y, p
    depth      (F, H, W) mm
    mask       (F, H, W) object id x 1000
    classical  (F, H, W[, 3]) blue first, or None
    index      event number every `discretization` s
    K, D       camera matrix and distortion
    meta       {frames: [{id, ts, cam, '<object id>': .., gt_frame, classical_frame}],
                full_trajectory, imu, meta: {res_x, res_y, ros_time_offset, ..}}
Frames come at irregular times: only frames[i]['ts'] counts. Ids go to 65 (u16 mask). Our extra key
`moving` stands in a frame's object entry.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mos_perception.datatypes import Events
from mos_perception.errors import DatasetError
from mos_perception.formats.event_inspector import EventInspector
from mos_perception.formats.files import naming, npz_names, read_npz
from mos_perception.formats.findings import Report
from mos_perception.formats.layout import below, chosen, refuse_existing
from mos_perception.formats.sequence import Moving, Sequence, clean_events, unless_all

SCALE = 1000  # mask value of object 1, and mm per m
MAX_ID = 65
DISCRETIZATION = 0.01  # s
MAX_SECONDS = 4e9  # what int64 ns hold, twice over
PLAIN_NS = 10**15  # times below are exact to the nanosecond as seconds in float64

Meta = dict[str, Any]


def files(path: str | Path) -> dict[str, Path]:
    """Sequence files at or under `path` by name."""
    path = Path(path)
    found = [path] if path.is_file() else below(path, '*.npz', 2)
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
    file = chosen(files(path), name, path, 'EVIMO')
    with naming(file):
        meta, notes = read_npz(file, 'meta'), []
        names = set(npz_names(file))
        mask = read_npz(file, 'mask')
        size = mask.shape[1:3]
        stamps = frame_times(meta)
        if len(stamps) != len(mask):
            raise DatasetError(
                f'{file}: meta has {len(stamps)} frames and mask {len(mask)}: fetch it again')
        t, x, y, p = read_npz(file, 'events').reshape(-1, 4).T
        events = clean_events(x, y, p, nanoseconds(t, meta), size, notes)
        classical = read_npz(file, 'classical') if 'classical' in names else None
        depth = None
        if 'depth' in names:
            depth = (np.nan_to_num(read_npz(file, 'depth')) / SCALE).astype(np.float32)
        return Sequence(
            file.stem, size, stamps, _rgb(classical), events, size, object_ids(mask),
            flags_of(meta), depth=depth, has_frame=unless_all(frames_with(meta, 'classical_frame')),
            has_label=unless_all(frames_with(meta, 'gt_frame')), notes=tuple(notes))


def object_ids(mask: np.ndarray) -> np.ndarray:
    """u16 object ids of stored mask values (id x 1000)."""
    return np.rint(np.asarray(mask, np.float64) / SCALE).astype(np.uint16)


def nanoseconds(seconds: np.ndarray, meta: Meta) -> np.ndarray:
    """(N,) int64 ns of stored seconds, moved by the recording's ros_time_offset.

    Raises DatasetError for times that int64 ns cannot hold.
    """
    seconds = np.asarray(seconds, np.float64)
    start = float(meta.get('meta', {}).get('ros_time_offset', 0) or 0)
    if not (np.abs(seconds) < MAX_SECONDS).all() or not abs(start) < MAX_SECONDS:
        raise DatasetError(f'some times are beyond {MAX_SECONDS:g} s or no numbers: '
                           'fetch the sequence again')
    offset = round(start * 1e9)
    return offset + np.rint(seconds * 1e9).astype(np.int64)


def frame_times(meta: Meta) -> np.ndarray:
    """(F,) int64 ns of the frames."""
    seconds = np.array([frame['ts'] for frame in meta['frames']], np.float64)
    return nanoseconds(seconds, meta)


def frames_with(meta: Meta, key: str) -> np.ndarray:
    """(F,) bool: the frame's entry has the key, 'gt_frame' for truth, 'classical_frame'."""
    return np.array([key in frame for frame in meta['frames']], bool)


def flags_of(meta: Meta) -> Moving | None:
    """Per frame: id -> moves, where the object entries say so."""
    flags = []
    for frame in meta['frames']:
        entries = _object_entries(frame)
        flags.append({object_id: bool(entry['moving']) for object_id, entry in entries.items()
                      if isinstance(entry, dict) and 'moving' in entry})
    return tuple(flags) if any(flags) else None


def _object_entries(frame: dict[str, Any]) -> dict[int, Any]:
    """What a frame of meta says of its objects, by id."""
    return {int(key): entry for key, entry in frame.items() if str(key).isdecimal()}


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
    file = path if path.suffix == '.npz' else path / f'{sequence.file_name}.npz'
    refuse_existing(file, 'file')
    meta, offset = meta_of(sequence)
    events = sequence.events or Events.empty()
    seconds = (events.t - offset) / 1e9
    masks = np.zeros((len(sequence), *sequence.size), np.uint16)
    for n in range(len(sequence)):
        masks[n] = mask_values(sequence, n)
    classical = np.array(None, object)
    if sequence.frames is not None:
        classical = np.asarray(sequence.frames)[..., ::-1]
    depth = np.zeros_like(masks)
    if sequence.depth is not None:
        depth = millimetres(np.asarray(sequence.depth))
    rows = np.stack([seconds, events.x, events.y, events.p], 1).astype(np.float64)
    with naming(file, 'written'):
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, events=rows, mask=masks, **calibration(seconds, meta),
                            classical=classical, depth=depth)
    return file


def calibration(seconds: np.ndarray, meta: Meta) -> dict[str, np.ndarray]:
    """The arrays that both versions of the format keep alike, for events at `seconds` (N,)."""
    return {'index': index_of(seconds), 'discretization': np.array(DISCRETIZATION),
            'K': np.eye(3), 'D': np.zeros(4), 'meta': np.array(meta, object)}


def mask_values(sequence: Sequence, n: int) -> np.ndarray:
    """(H, W) u16 stored mask of frame n. Raises DatasetError for ids that do not fit."""
    ids = sequence.truth(n)
    if ids is None:
        return np.zeros(sequence.size, np.uint16)
    if ids.size and int(ids.max()) > MAX_ID:
        raise DatasetError(f'frame {n} has object id {int(ids.max())}: '
                           f'EVIMO holds up to {MAX_ID}; renumber')
    return (ids * SCALE).astype(np.uint16)


def millimetres(depth: np.ndarray) -> np.ndarray:
    """u16 mm of metres; beyond 65 m is unknown (0)."""
    scaled = np.rint(depth.astype(np.float64) * SCALE)
    return np.where(scaled < 65536, scaled, 0).astype(np.uint16)


def index_of(seconds: np.ndarray) -> np.ndarray:
    """Number of the first event at or after each multiple of the discretization."""
    first, last = (float(seconds[0]), float(seconds[-1])) if len(seconds) else (0.0, 0.0)
    steps = np.arange(first, last + DISCRETIZATION, DISCRETIZATION)
    return np.searchsorted(seconds, steps).astype(np.uint32)


def meta_of(sequence: Sequence) -> tuple[Meta, int]:
    """(meta dictionary, ns that the stored times count from)."""
    events = sequence.events or Events.empty()
    every = np.concatenate([sequence.stamps_ns, events.t])
    offset = 0
    if len(every) and abs(every).max() >= PLAIN_NS:
        offset = int(every.min()) // 10**9 * 10**9
    height, width = sequence.size
    camera = {'res_x': width, 'res_y': height, 'ros_time_offset': offset / 1e9,
              'fx': 0.0, 'fy': 0.0, 'cx': 0.0, 'cy': 0.0, 'model': 'radtan'}
    frames = [_frame_entry(sequence, n, offset) for n in range(len(sequence))]
    return {'frames': frames, 'full_trajectory': [], 'imu': {}, 'meta': camera}, offset


def _frame_entry(sequence: Sequence, n: int, offset: int) -> dict[str, Any]:
    """What meta says of frame n, times counting from `offset` ns."""
    seconds = float(sequence.stamps_ns[n] - offset) / 1e9
    entry: dict[str, Any] = {'id': n, 'ts': seconds, 'cam': {'ts': seconds}}
    if sequence.truth_exists(n):
        entry['gt_frame'] = f'depth_mask_{n}.png'
    if sequence.frame_exists(n):
        entry['classical_frame'] = f'img_{n}.png'
    flags = {} if sequence.moving is None else sequence.moving[n]
    for object_id, moves in flags.items():
        entry[str(object_id)] = {'ts': seconds, 'moving': bool(moves)}
    return entry


def inspect(path: Path, report: Report) -> None:
    """Add what is wrong with the .npz files at `path`."""
    for file in [path] if path.is_file() else sorted(path.rglob('*.npz')):
        with report.guard(file):
            missing = {'events', 'mask', 'meta', 'depth', 'index'} - set(npz_names(file))
            if missing:
                report.add('missing-array', file, f'it lacks {", ".join(sorted(missing))}')
                continue
            _inspect_arrays(file, report)


def _inspect_arrays(file: Path, report: Report) -> None:
    meta, mask, rows = (read_npz(file, name) for name in ('meta', 'mask', 'events'))
    stamps = frame_times(meta)
    report.frame_times(file, stamps)
    if len(mask) != len(stamps):
        report.add('count-differs', file,
                   f'{len(mask)} masks for {len(stamps)} frames in meta')
    depth = read_npz(file, 'depth')
    if depth.shape != mask.shape:
        report.add('size-differs', file, f'depth is {depth.shape}, mask {mask.shape}')
    events = EventInspector(report, file, mask.shape[1:3])
    if rows.ndim != 2 or rows.shape[1] != 4:
        report.add('event-columns', file, f'events are {rows.shape}: must be (N, 4)')
    else:
        t, x, y, p = rows.T
        events.add(x, y, p, nanoseconds(t, meta))
        events.finish(stamps)
    report.index(file, 'index', read_npz(file, 'index'), len(rows))
    inspect_ids(file, np.unique(mask), meta, report)


def inspect_ids(file: Path, values: np.ndarray, meta: Meta, report: Report) -> None:
    """All mask values of a sequence against the objects of its meta."""
    strange = values[values % SCALE != 0]
    if len(strange):
        report.add('mask-values', file, f'masks hold {strange[0]}: must be object id x 1000')
    known: set[int] = set()
    for frame in meta['frames']:
        known |= _object_entries(frame).keys()
    seen = {int(value) for value in np.rint(values / SCALE)} - {0}
    if known:
        report.object_ids(file, seen, known)
