"""EVT3 decoding and voxelization beside faery, expelliarmus, tonic, torch and numpy, in one run.

    python -m bench.events [--json PATH] [--repeats 15] [--data ../shared/data]

Peers take turns in every repeat, so a busy machine slows them alike; figures are medians. Bars:
decode >= 120 Mev/s on one core and 1.5 x the best peer; voxelization (640x480, 10 planes, 1M events
in 50 ms) >= 120 Mev/s on 2 cores and 3 x; moved along the camera's motion, 0.8 of that rate.
Install requirements/bench.txt for the peers; a missing one is said and left out.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.report import Report, parsed
from mos_perception.datatypes import EventPacket, Events
from mos_perception.events import warm_up
from mos_perception.events.decode import Decoded, Decoder
from mos_perception.events.encode import encode_evt3
from mos_perception.events.voxel import accumulate, voxelize
from mos_perception.motion.event_compensation import EventMotion, from_displacement, node_count

HEADER = b'% evt 3.0\n% format EVT3;height=720;width=1280\n% geometry 1280x720\n% end\n'
SIZE = (720, 1280)
GRID, PLANES, WINDOW_NS = (480, 640), 10, 50_000_000


def optional(name: str, report: Report) -> object | None:
    """The module, or None and a note in the report."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        report.note(f'{name} not measured: {error} (requirements/bench.txt)')
        return None


def interleaved(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each run in each repeat, the runs taking turns; one untimed round first."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def add(report: Report, what: str, ours: str, count: int, seconds: dict[str, list[float]],
        floor: float | None, factor: float | None) -> None:
    """One row in Mev/s: ours against the peers, with the bar on both the rate and the ratio."""
    rate = {name: count / float(np.median(times)) / 1e6 for name, times in seconds.items()}
    best = {name: count / min(times) / 1e6 for name, times in seconds.items()}
    mine = rate.pop(ours)
    ratio = mine / max(rate.values()) if rate else None
    bar, met = '', None
    if floor is not None:
        met = mine >= floor and (ratio is None or ratio >= factor)
        bar = f'>= {floor:g}'
        if ratio:
            bar += f', {factor:g} x best peer; is {ratio:.2f} x'
    report.row(what, mine, 'Mev/s', rate, bar, met, events=count, ratio=ratio, fastest=best)


def random_events(rng: np.random.Generator, count: int, size: tuple[int, int],
                  until_ns: int) -> Events:
    """Random pixels and polarities, times sorted in (0, until_ns]."""
    x, y, p = (rng.integers(0, high, count) for high in (size[1], size[0], 2))
    return Events(x.astype(np.uint16), y.astype(np.uint16), p.astype(np.uint8),
                  np.sort(rng.integers(1, until_ns + 1, count)))


def single_words(rng: np.random.Generator, count: int) -> bytes:
    """Events one by one in random places: about 4.4 bytes an event."""
    return encode_evt3(random_events(rng, count, SIZE, 1_000_000_000))


def vector_words(rng: np.random.Generator, count: int) -> bytes:
    """Rows of 20 pixels, a third of them set, in VECT_12 words: about 1.4 bytes an event."""
    groups = count // 7
    bits = rng.random((groups, 20)) < 0.35
    rows = np.repeat(np.arange(groups), bits.sum(1))
    start, row, sign = (rng.integers(0, high, groups) for high in (SIZE[1] - 20, SIZE[0], 2))
    columns, times_us = start[:, None] + np.arange(20), np.sort(rng.integers(0, 1_000_000, groups))
    events = Events(columns[bits].astype(np.uint16), row[rows].astype(np.uint16),
                    sign[rows].astype(np.uint8), times_us[rows] * 1000)
    return encode_evt3(events, vectors=True)


def decode_file(path: Path, packet_bytes: int | None = 1 << 16) -> list[Decoded]:
    """Read an EVT3 file and decode it as packets (None: as one); keeps all events, as peers do."""
    data = np.fromfile(path, np.uint8)
    start = 0
    while data[start] == ord('%'):
        start += int(np.argmax(data[start:start + 1000] == ord('\n'))) + 1
    decoder, step = Decoder('evt3', *SIZE), packet_bytes or len(data)
    return [decoder.decode(EventPacket(0, 'evt3', *SIZE, 0, 0, data[at:at + step]))
            for at in range(start, len(data), step)]


def bench_decode(report: Report, args: argparse.Namespace) -> None:
    """Files to events, reading included, one thread."""
    faery, expelliarmus = optional('faery', report), optional('expelliarmus', report)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, make in (('single-event words', single_words), ('VECT words', vector_words)):
            files[name] = Path(folder) / f'{len(files)}.raw'
            files[name].write_bytes(HEADER + make(rng, args.events))
        real = args.data / 'events/raw/evt3_1280x720.raw'
        if real.is_file():
            files['real sensor file'] = real
        else:
            report.note(f'real sensor file not measured: {real} is absent')
        for name, path in files.items():
            runs: dict[str, Callable[[], object]] = {
                'ours': lambda path=path: decode_file(path),
                'whole': lambda path=path: decode_file(path, None)}
            if faery:
                runs['faery'] = lambda path=path: faery.events_stream_from_file(path).to_array()
            if expelliarmus:
                wizard = expelliarmus.Wizard(encoding='evt3')
                runs['expelliarmus'] = lambda path=path, wizard=wizard: wizard.read(path)
            seconds = interleaved(runs, args.repeats)
            count = sum(len(one.x) for one in decode_file(path))
            whole = seconds.pop('whole')
            # The small real file is dominated by start-up costs of every reader: shown, not judged.
            bar = (120.0, 1.5) if path != real else (None, None)
            size = path.stat().st_size / count
            add(report, f'EVT3 decode, {name} ({size:.2f} B/event), 64 KiB packets', 'ours', count,
                seconds, *bar)
            add(report, f'EVT3 decode, {name}, in one piece', 'ours', count, {'ours': whole}, None,
                None)


def positions(events: Events) -> tuple[np.ndarray, ...]:
    """E2VID's cells and float32 weights of both planes: what numpy and torch sum."""
    tn = events.t / WINDOW_NS * (PLANES - 1)
    plane = np.minimum(tn.astype(np.int64), PLANES - 2)
    sign, share = events.p.astype(np.float32) * 2 - 1, (tn - plane).astype(np.float32)
    cell = (plane * GRID[0] + events.y) * GRID[1] + events.x
    cells = np.concatenate([cell, cell + GRID[0] * GRID[1]])
    return cells, np.concatenate([sign * (1 - share), sign * share])


def torch_positions(torch: object, t: object, p: object, pixel: object) -> tuple[object, object]:
    """`positions` in torch, from tensors: time, polarity, pixel index."""
    tn = t * ((PLANES - 1) / WINDOW_NS)
    plane = tn.long().clamp_(max=PLANES - 2)
    share, sign = (tn - plane).float(), p.float() * 2 - 1
    cell = plane * (GRID[0] * GRID[1]) + pixel
    cells = torch.cat([cell, cell + GRID[0] * GRID[1]])
    return cells, torch.cat([sign * (1 - share), sign * share])


def voxel_peers(report: Report, events: Events) -> dict[str, Callable[[], object]]:
    """Each peer's grid of the same window, from arrays of its own kind."""
    cells = PLANES * GRID[0] * GRID[1]

    def add_at() -> np.ndarray:
        grid = np.zeros(cells, np.float32)
        np.add.at(grid, *positions(events))
        return grid

    peers: dict[str, Callable[[], object]] = {
        'numpy add.at': add_at,
        'numpy bincount': lambda: np.bincount(*positions(events), cells)}
    torch, tonic = optional('torch', report), optional('tonic.transforms', report)
    if torch:
        arrays = (torch.from_numpy(events.t.astype(np.float64)), torch.from_numpy(events.p),
                  torch.from_numpy(events.y.astype(np.int64) * GRID[1] + events.x))

        def add_with(method: str) -> Callable[[], object]:
            return lambda: getattr(torch.zeros(cells), method)(0, *torch_positions(torch, *arrays))

        peers |= {'torch index_put_': lambda: _put(torch, arrays, cells),
                  'torch index_add_': add_with('index_add_'),
                  'torch scatter_add_': add_with('scatter_add_')}
    if tonic:
        rows = np.zeros(len(events), [('x', '<i2'), ('y', '<i2'), ('t', '<i8'), ('p', '<i2')])
        for name in 'xypt':
            rows[name] = getattr(events, name)
        transform = tonic.ToVoxelGrid(sensor_size=(GRID[1], GRID[0], 2), n_time_bins=PLANES)
        peers['tonic'] = lambda: transform(rows.copy())  # it overwrites the polarities it is given
    return peers


def _put(torch: object, arrays: tuple, cells: int) -> object:
    where, what = torch_positions(torch, *arrays)
    return torch.zeros(cells).index_put_((where,), what, accumulate=True)


def bench_voxel(report: Report, args: argparse.Namespace) -> None:
    """1M events in 50 ms at 640x480 into 10 planes, random pixels: the worst case for the cache."""
    rng, count = np.random.default_rng(1), 1_000_000
    events = random_events(rng, count, GRID, WINDOW_NS)

    turning = from_displacement(np.full((*node_count(GRID), 2), 6.25), WINDOW_NS, WINDOW_NS)

    def ours(formulation: str, bins: int, threads: int,
             motion: EventMotion | None = None) -> Callable[[], object]:
        return lambda: accumulate(events, 0, WINDOW_NS, formulation=formulation, bins=bins,
                                  size=GRID, threads=threads, motion=motion)

    peers = voxel_peers(report, events)
    judged, moved = {}, {}
    for formulation, bins in (('e2vid', PLANES), ('dimos', PLANES // 2)):
        for threads in (2, 1):
            name = f'{formulation}, {threads} thread{"s" * (threads > 1)}'
            judged[name] = ours(formulation, bins, threads)
            moved[f'{name}, along a motion'] = ours(formulation, bins, threads, turning)
    small = 'dimos at 160x120, max-normalised, 1 thread'
    shown = {'counts, 1 thread': ours('counts', PLANES // 2, 1),
             'e2vid, float32 max-normalised, 1 thread': lambda: voxelize(
                 events, 0, WINDOW_NS, formulation='e2vid', bins=PLANES, size=GRID, threads=1),
             small: lambda: voxelize(
                 events, 0, WINDOW_NS, size=GRID, out_size=(120, 160), threads=1)}
    moved[f'{small}, along a motion'] = lambda: voxelize(
        events, 0, WINDOW_NS, size=GRID, out_size=(120, 160), threads=1, motion=turning)
    seconds = interleaved({**judged, **moved, **shown, **peers}, args.repeats)
    for name in judged:
        add(report, f'voxel grid, {name}', name, count,
            {key: seconds[key] for key in (name, *peers)}, 120.0, 3.0)
    for name, plain in zip(moved, (*judged, small)):
        share = np.median(seconds[plain]) / np.median(seconds[name])
        report.row(f'voxel grid, {name}', count / np.median(seconds[name]) / 1e6, 'Mev/s',
                   bar=f'>= 0.8 of the plain one; is {share:.2f}', met=bool(share >= 0.8))
    for name in shown:
        add(report, f'voxel grid, {name}', name, count, {name: seconds[name]}, None, None)
    report.note('two threads need two idle cores: beside a busy process one thread is faster '
                '(see load_1min)')


def main(arguments: list[str] | None = None) -> None:
    """Run everything and report."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', help='write the figures here')
    parser.add_argument('--repeats', type=int, default=15)
    parser.add_argument('--events', type=int, default=5_000_000,
                        help='events in the generated EVT3 files')
    parser.add_argument('--data', type=Path, default=Path('../shared/data'),
                        help='folder of the real recordings')
    args = parsed(parser, arguments)
    report = Report('events', 'EVT3 decode and voxelization, medians',
                    ('numpy', 'numba', 'faery', 'expelliarmus', 'tonic', 'torch'))
    warm_up()
    bench_decode(report, args)
    bench_voxel(report, args)
    report.finish(args)


if __name__ == '__main__':
    main()
