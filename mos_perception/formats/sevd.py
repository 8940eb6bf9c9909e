"""SEVD: per simulator tick f a picture, an event packet and a COCO JSON.

In `<role>/<rgb folder>/`
    f.png             the picture
    dvs-f.png         the events, drawn
    dvs-f-xytp.npz    key dvs_events: x u16, y u16, t i64 ns of simulation time, pol bool
    f.json            COCO; annotation id = actor id, bbox xywh
    dvs-f.json        the same of the actors with an event in their box
and in `<role>/`
    instance_segmentation_camera/%05d.png    R = tag, G + 256 B = actor id
    optical_flow_camera/f.npz                key flow (not read)

Packet f holds the events of (tick f - 1, tick f], and no packet means none: "events after image f"
(the DIMOS convention) is packet f + 1, "events before" is packet f. The files carry no frame
times: tick f is f x 0.1 s, moved so that every packet's events lie in its tick; our own
`timestamp_ns` in images[0] takes precedence.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from mos_perception.datatypes import Events
from mos_perception.errors import DatasetError
from mos_perception.formats.event_inspector import EventInspector
from mos_perception.formats.files import naming, read_json, read_npz, write_json
from mos_perception.formats.findings import Report
from mos_perception.formats.image_files import numbered, read_rgb, write_rgb
from mos_perception.formats.layout import below, by_relative_name, refuse_existing
from mos_perception.formats.sequence import Box, LazyArray, Sequence, clean_events, unless_all
from mos_perception.masks import object_boxes

TICK_NS = 100_000_000
EVENT_TYPE = np.dtype([('x', '<u2'), ('y', '<u2'), ('t', '<i8'), ('pol', '?')])
_PACKET = re.compile(r'dvs-(\d+)-xytp\.npz')
_INSTANCES = 'instance_segmentation_camera'
# CARLA's semantic tags
_CAR = 14
_ACTORS = (4, *range(12, 20))  # people and vehicles; 4 are the pedestrians of older versions

Label = dict[str, Any]  # what an f.json holds


def folders(path: str | Path) -> dict[str, Path]:
    """RGB folders (with packets, or labels beside their pictures) at or under `path` by name."""
    path = Path(path)
    files = below(path, 'dvs-*-xytp.npz', 3) + below(path, '[0-9]*.json', 3)
    found = {file.parent for file in files if _PACKET.fullmatch(file.name)
             or (file.stem.isdecimal() and file.with_suffix('.png').is_file())}
    return by_relative_name(sorted(found), path)


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
        raise DatasetError(
            f'{file}: dvs_events has fields {rows.dtype.names}: must be x, y, t, pol')
    return rows


def read(path: str | Path, name: str = '') -> Sequence:
    """One sequence. Raises DatasetError."""
    found = folders(path)
    folder = found.get(name or next(iter(found), ''))
    pictures = numbered(folder) if folder is not None else {}
    if not pictures:
        raise DatasetError(f'{path} has no SEVD sequence {name}: it has '
                           f'{", ".join(found) or "none"} with f.png')
    notes: list[str] = []
    ticks = list(pictures)
    size = read_rgb(pictures[ticks[0]]).shape[:2]
    rows = {tick: read_packet(file) for tick, file in packets(folder).items()}
    label_files = {tick: folder / f'{tick}.json' for tick in ticks}
    labels = {tick: read_json(file) for tick, file in label_files.items() if file.is_file()}
    with naming(folder):
        stamps = _stamps(ticks, rows, labels)
        joined = np.concatenate(list(rows.values()) or [np.empty(0, EVENT_TYPE)])
        events = clean_events(joined['x'], joined['y'], joined['pol'], joined['t'], size, notes)
        boxes = tuple(_boxes(labels.get(tick, {})) for tick in ticks)
        flags = tuple(_moving(labels.get(tick, {})) for tick in ticks)
    masks = _masks(folder)
    has_label = np.array([tick in masks for tick in ticks])

    def ids(n: int) -> np.ndarray:
        return _ids(masks[ticks[n]], boxes[n]) if has_label[n] else np.zeros(size, np.uint16)
    return Sequence(
        name or folder.name, size, stamps, events=events, event_size=size,
        frames=LazyArray(len(ticks), lambda n: read_rgb(pictures[ticks[n]])),
        ids=LazyArray(len(ticks), ids) if has_label.any() else None,
        moving=flags if any(flags) else None, boxes=boxes if labels else None,
        has_label=unless_all(has_label), notes=tuple(notes))


def _stamps(ticks: list[int], rows: dict[int, np.ndarray], labels: dict[int, Label]) -> np.ndarray:
    """(T,) ns as our extra key says.

    Without it tick x 0.1 s, plus the smallest shift that puts no event after its tick.
    """
    images = [(labels.get(tick, {}).get('images') or [{}])[0] for tick in ticks]
    said = [image.get('timestamp_ns') for image in images]
    if None not in said:
        return np.array(said, np.int64)
    filled = {tick: row['t'] for tick, row in rows.items() if len(row)}
    latest = [int(t.max()) - tick * TICK_NS for tick, t in filled.items()]
    earliest = [int(t.min()) - (tick - 1) * TICK_NS for tick, t in filled.items()]
    fits = not latest or max(latest) <= 0 < min(earliest)
    return np.array(ticks, np.int64) * TICK_NS + (0 if fits else max(latest))


def _masks(folder: Path) -> dict[int, Path]:
    """Instance pictures of an RGB folder by tick."""
    for place in (folder, folder.parent):
        for found in sorted(place.glob(f'{_INSTANCES}*')):
            return numbered(found, '*.png')
    return {}


def _ids(file: Path, known: dict[int, Box]) -> np.ndarray:
    """(H, W) u16 actor ids of those that the JSON lists; R is the tag, so only G and B count."""
    ids = _actor_ids(read_rgb(file))
    return np.where(np.isin(ids, list(known)), ids, 0).astype(np.uint16)


def _actor_ids(picture: np.ndarray) -> np.ndarray:
    """(H, W) u16 of an instance picture (H, W, 3) u8."""
    return picture[..., 1] + picture[..., 2].astype(np.uint16) * 256


def _boxes(label: Label) -> dict[int, Box]:
    boxes = {}
    for entry in label.get('annotations', []):
        x, y, width, height = entry['bbox']
        boxes[int(entry['id'])] = (x, y, x + width, y + height)
    return boxes


def _moving(label: Label) -> dict[int, bool]:
    return {int(entry['id']): bool(entry['moving']) for entry in label.get('annotations', [])
            if 'moving' in entry}


def write(sequence: Sequence, path: str | Path, first_tick: int = 1) -> Path:
    """Write a sequence as the role folder `path`; ticks count from `first_tick`.

    Events after the last frame become the packet of one more tick. Returns the RGB folder.
    Raises DatasetError: no frames, or `path` is in use.
    """
    folder = Path(path) / 'rgb_camera'
    frames = sequence.require_frames('SEVD')
    refuse_existing(folder, 'folder')
    events = sequence.events or Events.empty()
    ends = np.iinfo(np.int64)
    edges = np.concatenate([[ends.min], sequence.stamps_ns, [ends.max]])
    for n in range(len(sequence) + 1):
        part, tick = events.between(int(edges[n]), int(edges[n + 1])), first_tick + n
        if n < len(sequence):
            write_rgb(folder / f'{tick}.png', frames[n])
            _write_labels(sequence, n, folder, tick, part)
        if len(part):
            _write_packet(part, sequence.event_size or sequence.size, folder, tick)
    return folder


def _write_packet(events: Events, size: tuple[int, int], folder: Path, tick: int) -> None:
    """The events of one tick, as records and drawn: blue negative, red positive."""
    rows = np.empty(len(events), EVENT_TYPE)
    rows['x'], rows['y'], rows['t'], rows['pol'] = events.x, events.y, events.t, events.p
    with naming(folder, 'written'):
        np.savez_compressed(folder / f'dvs-{tick}-xytp.npz', dvs_events=rows)
    picture = np.zeros((*size, 3), np.uint8)
    picture[events.y, events.x, np.where(events.p > 0, 0, 2)] = 255
    write_rgb(folder / f'dvs-{tick}.png', picture)


def _write_labels(sequence: Sequence, n: int, folder: Path, tick: int, part: Events) -> None:
    """f.json, dvs-f.json and the instance picture of one tick, `part` being its events."""
    height, width = sequence.size
    ids = sequence.truth(n)
    label: Label = {
        'images': [{'id': tick, 'file_name': f'{tick}.png', 'width': width, 'height': height,
                    'timestamp_ns': int(sequence.stamps_ns[n])}],
        'categories': [{'id': 1, 'name': 'car'}], 'annotations': []}
    if ids is not None:
        flags = {} if sequence.moving is None else sequence.moving[n]
        label['annotations'] = _annotations(ids, flags, tick)
        tag = np.where(ids > 0, _CAR, 0)
        picture = np.stack([tag, ids & 0xFF, ids >> 8], -1).astype(np.uint8)
        write_rgb(folder.parent / _INSTANCES / f'{tick:05d}.png', picture)
    write_json(folder / f'{tick}.json', label)
    seen = [entry for entry in label['annotations'] if _has_event(entry['bbox'], part)]
    write_json(folder / f'dvs-{tick}.json', {**label, 'annotations': seen})


def _annotations(ids: np.ndarray, flags: dict[int, bool], tick: int) -> list[dict[str, Any]]:
    """A COCO entry for each object of the ids (H, W)."""
    entries = []
    for object_id, (x0, y0, x1, y1) in object_boxes(ids).items():
        width, height = x1 - x0, y1 - y0
        entry = {'id': object_id, 'image_id': tick, 'category_id': 1,
                 'bbox': [x0, y0, width, height], 'area': width * height, 'iscrowd': 0,
                 'segmentation': []}
        if object_id in flags:
            entry['moving'] = bool(flags[object_id])
        entries.append(entry)
    return entries


def _has_event(box: list[int], part: Events) -> bool:
    x, y, width, height = box
    inside = (part.x >= x) & (part.x < x + width) & (part.y >= y) & (part.y < y + height)
    return bool(inside.any())


def inspect(path: Path, report: Report) -> None:
    """Add what is wrong with the RGB folders at `path`, their packets and labels."""
    for folder in folders(path).values():
        pictures = numbered(folder)
        if not pictures:
            report.add('empty-sequence', folder, 'it has no f.png')
            continue
        size = report.picture_sizes(folder, pictures.values())
        report.frame_times(folder, np.array(list(pictures)) * TICK_NS)
        events = EventInspector(report, folder, size)
        for file in packets(folder).values():
            with report.guard(file):
                rows = read_packet(file)
                events.add(rows['x'], rows['y'], rows['pol'], rows['t'])
        events.finish(np.empty(0, np.int64))
        masks = _masks(folder)
        for tick in pictures:
            _inspect_labels(folder / f'{tick}.json', masks.get(tick), size, report)


def _inspect_labels(file: Path, mask: Path | None, size: tuple[int, int], report: Report) -> None:
    """The labels of one tick and, where there is one, its instance picture."""
    if not file.is_file():
        report.add('missing-file', file, 'the labels of this tick are missing')
        return
    with report.guard(file):
        known = {int(entry['id']) for entry in read_json(file)['annotations']}
        if mask is None:
            return
        picture = read_rgb(mask)
        ids = np.where(np.isin(picture[..., 0], _ACTORS), _actor_ids(picture), 0)
        report.object_ids(file, {int(value) for value in np.unique(ids)} - {0}, known)
        if picture.shape[:2] != size:
            report.add('size-differs', mask, f'{picture.shape[:2]} px, the frames are {size}')
