"""SEVD: per simulator tick f a picture, an event packet and a COCO JSON (dimos.md 4.3).

`<role>/<rgb folder>/`: f.png, dvs-f.png (events drawn), dvs-f-xytp.npz (key dvs_events: x u16, y u16, t i64 ns of
simulation time, pol bool), f.json (COCO, annotation id = actor id, bbox xywh), dvs-f.json (only actors with an event in
their box); `instance_segmentation_camera/%05d.png` R = tag, G + 256 B = actor id; `optical_flow_camera/f.npz` key flow.

Packet f holds the events of (tick f - 1, tick f], and no packet means none: "events after image f" (the DIMOS
convention) is packet f + 1, "events before" is packet f. The files carry no frame times: tick f is f x 0.1 s, moved
so that every packet's events lie in its tick; our own `timestamp_ns` in images[0] takes precedence.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from mos_perception.datatypes import Events
from mos_perception.errors import DatasetError
from mos_perception.formats.files import naming, numbered, read_json, read_npz, read_rgb, write_json, write_rgb
from mos_perception.formats.sequence import Sequence, Stack, clean_events
from mos_perception.masks import object_boxes

TICK_NS = 100_000_000
EVENT_TYPE = np.dtype([('x', '<u2'), ('y', '<u2'), ('t', '<i8'), ('pol', '?')])
_PACKET = re.compile(r'dvs-(\d+)-xytp\.npz')
_INSTANCES = 'instance_segmentation_camera'
_TAG = 14  # car, of CARLA's semantic tags


def folders(path: str | Path) -> dict[str, Path]:
    """RGB folders (with packets, or with labels beside their pictures) at or under `path` by name."""
    path = Path(path)
    if not path.is_dir():
        return {}
    files = (file for depth in ('', '*/', '*/*/', '*/*/*/') for kind in ('dvs-*-xytp.npz', '[0-9]*.json')
             for file in path.glob(depth + kind))
    found = sorted({file.parent for file in files if _PACKET.fullmatch(file.name)
                    or (file.stem.isdecimal() and file.with_suffix('.png').is_file())})
    return {folder.relative_to(path).as_posix() if folder != path else folder.name: folder for folder in found}


def find(path: str | Path) -> list[str]:
    """Names of the sequences."""
    return list(folders(path))


def packets(folder: Path) -> dict[int, Path]:
    """Packet files by tick, in order."""
    named = ((_PACKET.fullmatch(file.name), file) for file in folder.glob('dvs-*-xytp.npz'))
    return dict(sorted((int(match[1]), file) for match, file in named if match))


def read_packet(file: Path) -> np.ndarray:
    """(E,) records x, y, t, pol of one packet. Raises DatasetError."""
    rows = read_npz(file, 'dvs_events')
    if rows.dtype.names is None or not {'x', 'y', 't', 'pol'} <= set(rows.dtype.names):
        raise DatasetError(f'{file}: dvs_events has fields {rows.dtype.names}: must be x, y, t, pol')
    return rows


def read(path: str | Path, name: str = '') -> Sequence:
    """One sequence. Raises DatasetError."""
    found = folders(path)
    folder = found.get(name) if name else next(iter(found.values()), None)
    pictures = numbered(folder) if folder is not None else {}
    if not pictures:
        raise DatasetError(f'{path} has no SEVD sequence {name}: it has {", ".join(found) or "none"} with f.png')
    notes: list[str] = []
    ticks = list(pictures)
    size = read_rgb(pictures[ticks[0]]).shape[:2]
    rows = {tick: read_packet(file) for tick, file in packets(folder).items()}
    labels = {tick: read_json(folder / f'{tick}.json') for tick in ticks if (folder / f'{tick}.json').is_file()}
    with naming(folder):
        stamps = _stamps(ticks, rows, labels)
        joined = np.concatenate(list(rows.values()) or [np.empty(0, EVENT_TYPE)])
        events = clean_events(*(joined[field] for field in ('x', 'y', 'pol', 't')), size, notes)
        boxes = tuple(_boxes(labels.get(tick, {})) for tick in ticks)
        flags = tuple(_moving(labels.get(tick, {})) for tick in ticks)
    masks = {int(file.stem): file for file in _masks(folder)}
    labelled = np.array([tick in masks for tick in ticks])

    def ids(index: int) -> np.ndarray:
        return _ids(masks[ticks[index]], list(boxes[index])) if labelled[index] else np.zeros(size, np.uint16)
    frames = Stack(len(ticks), lambda n: read_rgb(pictures[ticks[n]]))
    return Sequence(name or folder.name, size, stamps, frames, events, size,
                    Stack(len(ticks), ids) if labelled.any() else None, flags if any(flags) else None,
                    boxes if labels else None, labelled=None if labelled.all() else labelled, notes=tuple(notes))


def _stamps(ticks: list[int], rows: dict[int, np.ndarray], labels: dict[int, Any]) -> np.ndarray:
    """(T,) ns: as our extra key says, else tick x 0.1 s + the smallest shift that puts no event after its tick."""
    said = [(labels.get(tick, {}).get('images') or [{}])[0].get('timestamp_ns') for tick in ticks]
    if None not in said:
        return np.array(said, np.int64)
    latest = [int(row['t'].max()) - tick * TICK_NS for tick, row in rows.items() if len(row)]
    earliest = [int(row['t'].min()) - (tick - 1) * TICK_NS for tick, row in rows.items() if len(row)]
    fits = not latest or max(latest) <= 0 < min(earliest)
    return np.array(ticks, np.int64) * TICK_NS + (0 if fits else max(latest))


def _masks(folder: Path) -> list[Path]:
    for place in (folder, folder.parent):
        for found in sorted(place.glob(f'{_INSTANCES}*')):
            return list(numbered(found, '*.png').values())
    return []


def _ids(file: Path, known: list[int]) -> np.ndarray:
    """(H, W) u16 actor ids of those that the JSON lists; R is the tag, so only G and B count."""
    image = read_rgb(file).astype(np.uint16)
    ids = image[..., 1] + image[..., 2] * 256
    return np.where(np.isin(ids, known), ids, 0).astype(np.uint16)


def _boxes(label: dict[str, Any]) -> dict[int, tuple[float, float, float, float]]:
    return {int(entry['id']): (x, y, x + w, y + h) for entry in label.get('annotations', [])
            for x, y, w, h in [entry['bbox']]}


def _moving(label: dict[str, Any]) -> dict[int, bool]:
    return {int(entry['id']): bool(entry['moving']) for entry in label.get('annotations', []) if 'moving' in entry}


def write(sequence: Sequence, path: str | Path, first_tick: int = 1) -> Path:
    """Write a sequence as the role folder `path`; ticks count from `first_tick`. Returns the RGB folder.

    Events after the last frame become the packet of one more tick. Raises DatasetError: no frames, or `path` is in use.
    """
    folder = Path(path) / 'rgb_camera'
    if sequence.frames is None:
        raise DatasetError(f'sequence {sequence.name} has no frames: SEVD needs them')
    if folder.exists():
        raise DatasetError(f'{folder} exists: name another folder')
    events = sequence.events or Events.empty()
    edges = np.concatenate([[np.iinfo(np.int64).min], sequence.stamps_ns, [np.iinfo(np.int64).max]])
    for n in range(len(sequence) + 1):
        part, tick = events.between(int(edges[n]), int(edges[n + 1])), first_tick + n
        if n < len(sequence):
            write_rgb(folder / f'{tick}.png', sequence.frames[n])
            _write_labels(sequence, n, folder, tick, part)
        if len(part):
            rows = np.empty(len(part), EVENT_TYPE)
            rows['x'], rows['y'], rows['t'], rows['pol'] = part.x, part.y, part.t, part.p
            with naming(folder, 'written'):
                np.savez_compressed(folder / f'dvs-{tick}-xytp.npz', dvs_events=rows)
            picture = np.zeros((*(sequence.event_size or sequence.size), 3), np.uint8)
            picture[part.y, part.x, np.where(part.p > 0, 0, 2)] = 255  # RGB here: blue negative, red positive
            write_rgb(folder / f'dvs-{tick}.png', picture)
    return folder


def _write_labels(sequence: Sequence, n: int, folder: Path, tick: int, part: Events) -> None:
    """f.json, dvs-f.json and the instance picture of one tick."""
    height, width = sequence.size
    ids = sequence.truth(n)
    flags = {} if sequence.moving is None else sequence.moving[n]
    whole: dict[str, Any] = {
        'images': [{'id': tick, 'file_name': f'{tick}.png', 'width': width, 'height': height,
                    'timestamp_ns': int(sequence.stamps_ns[n])}],
        'categories': [{'id': 1, 'name': 'car'}], 'annotations': []}
    if ids is not None:
        for number, (x0, y0, x1, y1) in object_boxes(ids).items():
            extra = {'moving': bool(flags[number])} if number in flags else {}
            whole['annotations'].append({
                'id': number, 'image_id': tick, 'category_id': 1, 'bbox': [x0, y0, x1 - x0, y1 - y0],
                'area': (x1 - x0) * (y1 - y0), 'iscrowd': 0, 'segmentation': [], **extra})
        picture = np.stack([np.where(ids > 0, _TAG, 0), ids & 0xFF, ids >> 8], -1).astype(np.uint8)
        write_rgb(folder.parent / _INSTANCES / f'{tick:05d}.png', picture)
    write_json(folder / f'{tick}.json', whole)
    seen = [entry for entry in whole['annotations'] if _has_event(entry['bbox'], part)]
    write_json(folder / f'dvs-{tick}.json', {**whole, 'annotations': seen})


def _has_event(box: list[int], part: Events) -> bool:
    x, y, w, h = box
    return bool(((part.x >= x) & (part.x < x + w) & (part.y >= y) & (part.y < y + h)).any())
