"""The CUDA kernels on whatever driver is given: do they equal the CPU path, how long do they take.

Tests call `compare` with a driver that runs the kernels' source on the CPU; `bench.gpu` calls both
on a GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from mos_perception.datatypes import Events, EventWindow, Frame
from mos_perception.engine.card import ImageSpec, VoxelSpec
from mos_perception.engine.driver import Driver, upload
from mos_perception.events import evt3
from mos_perception.events.arrays import EventArrays
from mos_perception.events.encode import encode_evt3, encode_mono
from mos_perception.events.scatter import time_scale
from mos_perception.events.voxel import accumulate, layout_of, voxelize
from mos_perception.models.dimos.cuda_input import HEADER, InputStage
from mos_perception.models.dimos.cuda_masks import MaskStage
from mos_perception.models.dimos.postprocess import to_instances
from mos_perception.models.preprocess import image_tensor

SENSOR, BINS, SPAN_NS = (480, 640), 5, 50_000_000
REPEATS = 50
IMAGE = ImageSpec((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Gpu:
    """Where to launch: `modules` holds the code of voxel, evt3 and frame."""

    driver: Driver
    stream: int
    modules: dict[str, Any]

    def launch(self, module: str, kernel: str, arguments: list[Any], blocks: int = 512) -> None:
        """One launch on the stream; arrays must have been uploaded."""
        self.driver.launch(self.modules[module], kernel, (blocks,), (256,), arguments, self.stream)

    def up(self, array: np.ndarray) -> np.uint64:
        """A copy on the device."""
        return upload(self.driver, self.stream, np.ascontiguousarray(array))

    def down(self, address: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """A copy on the host."""
        array = self.driver.pinned(shape, dtype)
        self.driver.d2h(array, int(address), self.stream)
        self.driver.synchronize(self.stream)
        return array.copy()


def events(kind: str, count: int, size: tuple[int, int] = SENSOR) -> Events:
    """Sorted in (0, SPAN_NS], some at its end.

    `clustered`: 80 % on 60 columns that move, 5 % on 20 pixels.
    """
    rng = np.random.default_rng(count)
    t = np.sort(rng.integers(1, SPAN_NS + 1, count))
    x, y = (rng.integers(0, limit, count) for limit in size[::-1])
    if kind == 'clustered':
        pick = rng.random(count)
        edges = rng.integers(0, size[1], 60)[rng.integers(0, 60, count)] + t * 20 // SPAN_NS
        hot = rng.integers(0, 20, count)
        x = np.where(pick < 0.8, edges % size[1], np.where(pick < 0.85, hot * 7, x))
        y = np.where((pick >= 0.8) & (pick < 0.85), hot * 5, y)
    return Events(
        x.astype(np.uint16), y.astype(np.uint16), rng.integers(0, 2, count).astype(np.uint8), t
    )


def compare(gpu: Gpu, sizes: tuple[int, ...] = (0, 1, 20_000, 1_000_000)) -> dict[str, bool]:
    """For each case whether the kernels gave the CPU path's bits."""
    return {
        name: bool(same)
        for check in (_inputs, _mono, _evt3, _masks)
        for name, same in check(gpu, sizes)
    }


def _inputs(gpu: Gpu, sizes: tuple[int, ...]) -> Iterator[tuple[str, bool]]:
    rng = np.random.default_rng(0)
    for formulation in ('dimos', 'e2vid', 'counts'):
        net, planes = (180, 320), BINS if formulation == 'e2vid' else 2 * BINS
        voxel = VoxelSpec(
            formulation=formulation, bins=BINS, normalise='max', norm_floor=4.0, resize='bin'
        )
        image_at, voxel_at = (gpu.driver.alloc(4 * n * net[0] * net[1]) for n in (3, planes))
        stage = InputStage(
            gpu.driver,
            gpu.stream,
            gpu.modules,
            SimpleNamespace(image=IMAGE, voxel=voxel),
            image_at,
            voxel_at,
            net,
            planes,
        )
        for kind, count in ((kind, count) for kind in ('random', 'clustered') for count in sizes):
            window = EventWindow(events(kind, count), 0, SPAN_NS, *SENSOR)
            frame = Frame(0, rng.integers(0, 256, (*SENSOR, 3)).astype(np.uint8))
            stage.events(window), stage.frame(frame), stage.enqueue()
            found = gpu.down(voxel_at, (planes, *net), 'float32')
            wanted = voxelize(
                window, out_size=net, formulation=formulation, bins=BINS, norm_floor=4.0
            )
            yield f'voxel {formulation} {kind} {count}', found.tobytes() == wanted.tobytes()
        found = gpu.down(image_at, (3, *net), 'float32')
        yield (
            f'image {formulation}',
            found.tobytes() == image_tensor(frame.image, net, IMAGE).tobytes(),
        )


def mono_words(given: Events) -> np.ndarray:
    """The events as one raw `mono` packet of time base 0."""
    return np.frombuffer(encode_mono(given, 0), np.uint64)


def window_header(gpu: Gpu) -> np.uint64:
    """A VoxelWindow of the whole span at sensor size, on the device."""
    layout = layout_of('dimos', BINS, SENSOR, SENSOR)
    header = np.zeros(1, HEADER)
    header[0] = (
        0,
        SPAN_NS,
        time_scale(BINS - 1, SPAN_NS)[0],
        gpu.up(layout.columns),
        gpu.up(layout.rows),
        1,
        time_scale(BINS - 1, SPAN_NS)[1],
        *SENSOR[::-1],
        layout.area,
        BINS,
        0xFFFF,
        BINS * layout.area,
        1,
        0,
        0,
        0,
    )
    return gpu.up(header)


def _mono(gpu: Gpu, sizes: tuple[int, ...]) -> Iterator[tuple[str, bool]]:
    header, cells = window_header(gpu), 2 * BINS * SENSOR[0] * SENSOR[1]
    for count in sizes[1:]:
        given = events('clustered', count)
        grid, flag = gpu.up(np.zeros(cells, np.int32)), gpu.up(np.zeros(1, np.int32))
        gpu.launch(
            'voxel',
            'voxel_mono',
            [
                grid,
                flag,
                gpu.up(mono_words(given)),
                gpu.up(np.array([count], np.int32)),
                np.int64(0),
                header,
            ],
        )
        wanted = accumulate(given, 0, SPAN_NS, formulation='dimos', bins=BINS, size=SENSOR)
        yield f'mono {count}', np.array_equal(gpu.down(grid, wanted.shape, 'int32'), wanted)


def _evt3(gpu: Gpu, sizes: tuple[int, ...]) -> Iterator[tuple[str, bool]]:
    for count in sizes[1:]:
        given = events('clustered', count)
        words = np.frombuffer(
            encode_evt3(Events(given.x, given.y, given.p, given.t // 1000 * 1000)), np.uint16
        )
        state = np.zeros(evt3.STATE_SIZE, np.int64)
        words = np.ascontiguousarray(words[evt3.seek_time(words, state).consumed:])
        found = decode(gpu, words, state)
        total = evt3.count_evt3(words)
        wanted = [
            np.zeros(total + evt3.SLACK, kind)
            for kind in (np.uint16, np.uint16, np.uint8, np.uint64)
        ]
        kept = evt3.decode_evt3(words, *SENSOR[::-1], state, EventArrays(*wanted)).kept
        yield (
            f'evt3 {count}',
            kept == total
            and all(
                np.array_equal(ours, theirs[:kept].astype(ours.dtype))
                for ours, theirs in zip(found, wanted)
            ),
        )


def decode(gpu: Gpu, words: np.ndarray, state: np.ndarray) -> list[np.ndarray]:
    """x, y, p, t of EVT3 words, by the kernels."""
    start = np.zeros(48, np.uint8)
    start[:32].view(np.int32)[:7] = [
        15,
        *(int(state[k]) for k in (evt3.ROW, evt3.LOW, evt3.BASE, evt3.POLARITY)),
        0,
        int(state[evt3.HIGH]),
    ]
    start[32:40].view(np.int64)[:] = state[evt3.WRAPS]
    at, count = gpu.up(words), gpu.up(np.array([len(words)], np.int32))
    runs, total = (
        gpu.up(np.zeros(40 * (len(words) // 64 + 1), np.uint8)),
        gpu.up(np.zeros(1, np.int32)),
    )
    gpu.launch('evt3', 'evt3_scan', [at, count, runs])
    gpu.launch('evt3', 'evt3_join', [count, runs, gpu.up(start), total], blocks=1)
    found = int(gpu.down(total, (1,), 'int32')[0])
    kinds = ('uint16', 'uint16', 'uint8', 'int64')
    out = [np.uint64(gpu.driver.alloc(max(found, 1) * np.dtype(kind).itemsize)) for kind in kinds]
    gpu.launch('evt3', 'evt3_scatter', [at, count, runs, *out])
    return [gpu.down(address, (found,), kind) for address, kind in zip(out, kinds)] if found else [
        np.zeros(0, kind) for kind in kinds]


def _masks(gpu: Gpu, sizes: tuple[int, ...]) -> Iterator[tuple[str, bool]]:
    rng, queries, shape = np.random.default_rng(1), 10, (45, 80)
    y, x = np.mgrid[:shape[0], :shape[1]]
    blobs = [8 - np.hypot(y - cy, x - cx) for cy, cx in rng.uniform(0, shape, (queries, 2))]
    logits = (np.stack(blobs) + rng.normal(0, 0.3, (queries, *shape))).astype(np.float32)
    classes = rng.normal(0, 1, (queries, 3)).astype(np.float32) + np.array([0, 2, 0], np.float32)
    stage = MaskStage(
        gpu.driver, gpu.stream, gpu.modules['frame'], int(gpu.up(logits)), logits.shape, (180, 320)
    )
    names = np.arange(queries, dtype=np.float32)[None, :, None]
    wanted = to_instances(
        {'class_logits': classes[None], 'mask_logits': logits[None], 'embeddings': names},
        (180, 320),
        SENSOR,
        0.1,
        20,
    )
    stage.enqueue_quality()
    gpu.driver.synchronize(gpu.stream)
    order = wanted.embeddings[:, 0].astype(int).tolist()
    p = np.exp(classes) / np.exp(classes).sum(1, keepdims=True)
    near = np.allclose(p[order, 1] * stage.quality()[order], wanted.scores, rtol=1e-4)
    yield 'mask quality (to 1e-4)', near
    masks, boxes, kept = stage.compose(order, SENSOR)
    yield (
        'label image',
        len(kept) == len(wanted)
        and np.array_equal(masks, wanted.masks)
        and np.array_equal(boxes, wanted.boxes),
    )


def timed(gpu: Gpu, work: Callable[[], None]) -> float:
    """Median ms of one replay of the work as a graph, by the device's own events."""
    work()
    gpu.driver.synchronize(gpu.stream)
    replay, times = gpu.driver.capture(work, gpu.stream), []
    start, end = gpu.driver.event(), gpu.driver.event()
    for _ in range(REPEATS):
        gpu.driver.record(start, gpu.stream)
        replay()
        gpu.driver.record(end, gpu.stream)
        times.append(gpu.driver.elapsed_ms(start, end))
    return float(np.median(times))


def do(*steps: Callable[[], None]) -> None:
    """One after the other."""
    for step in steps:
        step()


def measure(
    gpu: Gpu, counts: tuple[int, ...] = (1_000_000, 10_000_000), block: int = 1 << 30
) -> dict[str, Any]:
    """Event-timed medians, ms, of voxelizing and normalising at 640x480, beside the time that
    memory alone would take (bytes / bandwidth of a fill) and the CPU path on two threads.
    """
    cells = 2 * BINS * SENSOR[0] * SENSOR[1]
    grid, flags, out = (gpu.driver.alloc(size) for size in (4 * cells, 8, 4 * cells))
    scratch = gpu.driver.alloc(block)
    rate = block / timed(gpu, lambda: gpu.driver.memset(scratch, 1, block, gpu.stream))
    header, found = window_header(gpu), {'fill_gb_s': round(rate / 1e6, 1)}

    def finish() -> None:
        gpu.launch(
            'voxel', 'voxel_largest', [np.uint64(grid), np.int32(cells), np.uint64(flags + 4)]
        )
        gpu.launch(
            'voxel',
            'voxel_normalise',
            [
                np.uint64(grid),
                np.int32(cells),
                np.uint64(flags + 4),
                np.float64(4.0),
                np.uint64(out),
                np.int32(0),
            ],
        )

    def clear() -> None:
        gpu.driver.memset(grid, 0, 4 * cells, gpu.stream)
        gpu.driver.memset(flags, 0, 8, gpu.stream)
    for kind, count in ((kind, count) for kind in ('random', 'clustered') for count in counts):
        given = events(kind, count)
        arrays = [gpu.up(getattr(given, name)) for name in 'xypt']
        words, number = gpu.up(mono_words(given)), gpu.up(np.array([count], np.int32))
        head = [np.uint64(grid), np.uint64(flags)]
        mono = [*head, words, number, np.int64(0), header]
        scatter = timed(gpu, lambda launch=[*head, *arrays, number, header]: do(
            clear, lambda: gpu.launch('voxel', 'voxel_events', launch)))
        whole = timed(
            gpu,
            lambda launch=mono: do(
                clear, lambda: gpu.launch('voxel', 'voxel_mono', launch), finish
            ),
        )
        begun = time.perf_counter()
        accumulate(given, 0, SPAN_NS, formulation='dimos', bins=BINS, size=SENSOR, threads=2)
        cpu = 1e3 * (time.perf_counter() - begun)
        found[f'{kind} {count}'] = {
            'voxel_events_ms': scatter,
            'floor_ms': (13 * count + 8 * cells) / rate,
            'mono_to_tensor_ms': whole,
            'mono_floor_ms': (8 * count + 20 * cells) / rate,
            'cpu_2_threads_ms': cpu,
        }
    return found
