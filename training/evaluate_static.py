"""Count what a model sees move in event recordings of a scene in which nothing does.

`python -m training.evaluate --events-static FOLDER --json` calls it. A folder holds recordings of a
moving camera before a static scene, so that every instance is a false alarm: text files
(`NAME/events.txt`, lines `t x y p`, seconds) and `NAME.npz` (arrays t, x, y, p, or one array
`events` with these columns). Each is seen whole, as one window, and in pieces of 33 ms, the last
one shorter. The sensor is the smallest usual one that has all of the events.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mos_perception.datatypes import Events, EventWindow, Fault, Skip, SyncedInput
from mos_perception.errors import ConfigError, DatasetError, EngineError
from mos_perception.formats.files import naming, npz_names, read_npz
from mos_perception.image_encodings import MAX_SIDE
from mos_perception.pipeline import Pipeline

PIECE_NS = 33_000_000
SENSORS = (128, 128), (180, 240), (260, 346), (480, 640), (720, 1280)  # height, width
COLUMNS = 't', 'x', 'y', 'p'
EXPECTED = ('expected NAME/events.txt with lines "t x y p", or NAME.npz with arrays t, x, y, p (or '
            'events with these columns); t in seconds')


@dataclass(frozen=True)
class Recording:
    """Events of a static scene, on a sensor of `size` (height, width)."""

    name: str
    events: Events
    size: tuple[int, int]

    def windows(self, length_ns: int | None = None) -> Iterator[EventWindow]:
        """Windows of `length_ns` from the first event on, the last one shorter; None: the whole."""
        first, last = int(self.events.t[0]) - 1, int(self.events.t[-1])
        step = length_ns or last - first
        for t0 in range(first, last, step):
            t1 = min(t0 + step, last)
            yield EventWindow(self.events.between(t0, t1), t0, t1, *self.size)


def read_recordings(folder: Path) -> list[Recording]:
    """All recordings of a folder, by name. Raises DatasetError."""
    if not folder.is_dir():
        raise DatasetError(f'{folder} is no folder: {EXPECTED}')
    texts, archives = sorted(folder.glob('*/events.txt')), sorted(folder.glob('*.npz'))
    if not texts and not archives:
        raise DatasetError(f'{folder} has no event recording: {EXPECTED}')
    found = [_recording(path.parent.name, path, _text(path)) for path in texts]
    found += [_recording(path.stem, path, _npz(path)) for path in archives]
    return sorted(found, key=lambda recording: recording.name)


def _text(path: Path) -> np.ndarray:
    with naming(path):
        return np.loadtxt(path, np.float64, ndmin=2)


def _npz(path: Path) -> np.ndarray:
    names = npz_names(path)
    if 'events' in names:
        return _numbers(path, read_npz(path, 'events'))
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise DatasetError(f'{path} lacks {", ".join(missing)}: {EXPECTED}')
    columns = [_numbers(path, read_npz(path, name)).ravel() for name in COLUMNS]
    if len({len(column) for column in columns}) > 1:
        raise DatasetError(f'{path}: t, x, y, p have {[len(column) for column in columns]} '
                           'values: they must be as many')
    return np.stack(columns, 1)


def _numbers(path: Path, value: Any) -> np.ndarray:
    with naming(path):
        return np.asarray(value, np.float64)


def _recording(name: str, path: Path, rows: np.ndarray) -> Recording:
    """From (E, 4) float64 rows t x y p. Raises DatasetError for what no event camera says."""
    if rows.ndim != 2 or rows.shape[1] != len(COLUMNS) or len(rows) < 2:
        raise DatasetError(f'{path} holds an array of shape {rows.shape}: {EXPECTED}')
    rows = rows[np.argsort(rows[:, 0], kind='stable')]
    t, x, y, p = rows.T
    at_least, at_most = rows.min(0), rows.max(0)
    if not np.isfinite(rows).all() or at_least[1:].min() < 0 or at_most[1:3].max() >= MAX_SIDE \
            or t[-1] <= t[0] or (np.rint(rows[:, 1:]) != rows[:, 1:]).any():
        raise DatasetError(f'{path} holds values from {at_least.tolist()} to {at_most.tolist()} '
                           f'in its columns t, x, y, p: {EXPECTED}')
    t_ns = np.rint((t - t[0]) * 1e9).astype(np.int64) + 1_000_000_000
    events = Events(x.astype(np.uint16), y.astype(np.uint16), (p > 0).astype(np.uint8), t_ns)
    extent = int(at_most[2]) + 1, int(at_most[1]) + 1
    return Recording(name, events, sensor_size(extent))


def sensor_size(extent: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the smallest usual event sensor with all events of this extent, else it.
    """
    return next((size for size in SENSORS if size[0] >= extent[0] and size[1] >= extent[1]), extent)


def count_instances(pipeline: Pipeline, recording: Recording,
                    length_ns: int | None = None) -> list[int]:
    """Instances published for each window of a recording. Raises EngineError."""
    pipeline.reset()
    found = []
    for window in recording.windows(length_ns):
        sample = SyncedInput(window.t1_ns, '', None, window, recording.size, epoch=pipeline.epoch)
        outcome = pipeline.process(sample)
        if isinstance(outcome, (Skip, Fault)):
            raise EngineError(f'{recording.name}, window at {window.t1_ns} ns: {outcome}')
        found.append(len(outcome.instances))
    return found


def evaluate_static(pipeline: Pipeline, folder: Path) -> dict[str, Any]:
    """`instances_per_window` by recording: the mean over the whole and all pieces; and `recordings`
    with the counts themselves. Raises DatasetError, EngineError, ConfigError.
    """
    card = pipeline.model.card
    if card.window is None:
        raise ConfigError(f'model {card.id} takes no events: name another with --model')
    recordings = {}
    for recording in read_recordings(folder):
        whole = count_instances(pipeline, recording)
        pieces = count_instances(pipeline, recording, PIECE_NS)
        recordings[recording.name] = {
            'events': len(recording.events), 'size': list(recording.size),
            'milliseconds': round((recording.events.t[-1] - recording.events.t[0]) * 1e-6, 3),
            'whole': whole[0], 'pieces': pieces, 'pieces_mean': round(float(np.mean(pieces)), 4),
            'instances_per_window': round(float(np.mean(whole + pieces)), 4)}
    return {'about': f'{card.id}: instances per window of {folder.name}, all of them false',
            'model': card.id, 'piece_ms': PIECE_NS * 1e-6,
            'instances_per_window': {name: values['instances_per_window']
                                     for name, values in recordings.items()},
            'recordings': recordings}


def report(result: dict[str, Any], as_json: bool) -> int:
    """Print what `evaluate_static` found. Returns 0."""
    if as_json:
        print(json.dumps(result, indent=1))
        return 0
    table = Table('recording', 'events', 'ms', 'whole', 'pieces', 'per window',
                  title=result['about'])
    for name, values in result['recordings'].items():
        table.add_row(name, str(values['events']), f'{values["milliseconds"]:.1f}',
                      str(values['whole']), ' '.join(map(str, values['pieces'])),
                      f'{values["instances_per_window"]:.3f}')
    Console().print(table)
    return 0
