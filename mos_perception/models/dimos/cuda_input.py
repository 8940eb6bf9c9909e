"""A frame and its events into the network's input tensors, on the GPU.

Both are copied once, into page-locked memory that the kernels read in place (on Jetson it is the
same memory). Launches, sizes and addresses stay the same from frame to frame, so that a graph can
replay them; where they cannot, `stale` says so.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from mos_perception.datatypes import EventWindow, Frame
from mos_perception.engine.card import ModelCard
from mos_perception.engine.driver import Driver, upload
from mos_perception.errors import EngineError
from mos_perception.events.moved import MOTION_HEADER, MotionRule
from mos_perception.events.scatter import time_scale
from mos_perception.events.voxel import layout_of
from mos_perception.models.dimos.resize_axes import AreaAxis, area_axis
from mos_perception.models.preprocess import image_scale
from mos_perception.motion.event_compensation import EventMotion, node_count

THREADS = 256
BLOCKS = 512
FIRST_EVENTS = 1 << 18
# voxel.h's VoxelWindow, and behind it what else changes with every frame
HEADER = np.dtype(
    [
        *((name, '<i8') for name in ('t0', 'span', 'm')),
        ('columns', '<u8'),
        ('rows', '<u8'),
        *(
            (name, '<i4')
            for name in (
                'low',
                'shift',
                'width',
                'height',
                'area',
                'bins',
                'mask',
                'dark_offset',
                'dark_sign',
                'padding',
                'events',
                'frame',
            )
        ),
    ]
)
AXIS = np.dtype(
    [('first', '<u8'), ('begin', '<u8'), ('weight', '<u8'), ('size', '<i4'), ('block', '<i4')]
)


class InputStage:
    """`events` and `frame` take what is next; `enqueue` puts the work on the stream."""

    def __init__(
        self,
        driver: Driver,
        stream: int,
        modules: dict[str, Any],
        card: ModelCard,
        image: int,
        voxel: int,
        size: tuple[int, int],
        channels: int,
    ) -> None:
        """`image`, `voxel`: addresses of the tensors (3, *size) and (channels, *size), float32."""
        self._driver, self._stream, self._modules, self._card = driver, stream, modules, card
        self._image, self._voxel, self._size = np.uint64(image), np.uint64(voxel), size
        self._cells = channels * size[0] * size[1]
        self._grid = driver.alloc(4 * self._cells)
        self._flags = driver.alloc(8)  # overflow, largest
        self._overflow = driver.pinned((1,), 'int32')
        self._header = driver.pinned((HEADER.itemsize,), 'uint8').view(HEADER)
        self._on_device = driver.alloc(HEADER.itemsize)
        self._moves = card.voxel.compensated
        self._motion = driver.pinned((MOTION_HEADER.itemsize,), 'uint8').view(MOTION_HEADER)
        scale, shift = image_scale(card.image)
        self._scale, self._shift, self._order = (upload(driver, stream, array) for array in (
            scale, shift, np.arange(3, dtype=np.int32)))
        self._sensor: tuple[int, int] | None = None
        self._maps: list[np.ndarray] = []
        self._shape: tuple[int, int] = (0, 0)
        self._frame_at((*size, 3))
        self._room(FIRST_EVENTS)
        self.stale = True

    def events(self, window: EventWindow | None, motion: EventMotion | None = None) -> None:
        """Take the events of a window, to be moved along `motion`; None: there are none."""
        header = self._header[0]
        header['events'] = 0 if window is None else len(window.events)
        if window is None or not len(window.events):
            return
        if len(window.events) > self._capacity:
            self._room(1 << (len(window.events) - 1).bit_length())
        if self._sensor != (window.height, window.width):
            self._sensor_at((window.height, window.width))
        for name, room in self._events.items():
            room[:len(window.events)] = getattr(window.events, name)
        bins = self._card.voxel.bins
        span = window.t1_ns - window.t0_ns
        header['t0'], header['span'] = window.t0_ns, span
        header['m'], header['shift'] = time_scale(
            bins if self._card.voxel.formulation == 'counts' else bins - 1, span
        )
        if self._moves:
            self._move(window, motion)

    def frame(self, frame: Frame | None) -> None:
        """Take a frame's pixels; None: there is none.

        One smaller than the network is enlarged on the CPU.
        """
        self._header[0]['frame'] = frame is not None
        if frame is None:
            return
        image = frame.image
        if image.shape[0] < self._size[0] or image.shape[1] < self._size[1]:
            image = cv2.resize(image, self._size[::-1], interpolation=cv2.INTER_LINEAR)
        if image.shape != self._pixels.shape:
            self._frame_at(image.shape)
        self._pixels[...] = image

    def enqueue(self) -> None:
        """Header up, events to grid, grid to voxel tensor, pixels to image tensor."""
        driver, stream, pointer = self._driver, self._stream, self._driver.device_pointer
        window, events, frame = (np.uint64(self._on_device + HEADER.fields[name][1])
                                 for name in ('t0', 'events', 'frame'))
        grid, overflow, largest = (
            np.uint64(self._grid),
            np.uint64(self._flags),
            np.uint64(self._flags + 4),
        )
        driver.h2d(self._on_device, self._header.view(np.uint8), stream)
        driver.memset(self._grid, 0, 4 * self._cells, stream)
        driver.memset(self._flags, 0, 8, stream)
        arrays = [np.uint64(pointer(self._events[name])) for name in 'xypt']
        moved = [np.uint64(pointer(self._motion))] if self._moves else []
        self._launch('voxel', 'voxel_moved_events' if moved else 'voxel_events',
                     [grid, overflow, *arrays, events, window, *moved])
        self._launch('voxel', 'voxel_largest', [grid, np.int32(self._cells), largest])
        self._launch(
            'voxel',
            'voxel_normalise',
            [
                grid,
                np.int32(self._cells),
                largest,
                np.float64(self._card.voxel.norm_floor),
                self._voxel,
                np.int32(0),
            ],
        )
        width = self._pixels.shape[1]
        self._launch(
            'frame',
            'frame_image',
            [
                self._image,
                np.uint64(pointer(self._pixels)),
                np.int32(3 * width),
                np.int32(3),
                self._order,
                frame,
                *self._axes,
                self._scale,
                self._shift,
            ],
        )
        driver.d2h(self._overflow, self._flags, stream)

    def check(self) -> None:
        """Raises EngineError if the last grid was too full for its integers; for after the stream
        is done.
        """
        if self._overflow[0]:
            raise EngineError(
                'one cell of the voxel grid counted over 16383 events of one window: mask the hot '
                'pixel '
                'in the camera driver, or use "backend: onnxruntime"'
            )

    def _move(self, window: EventWindow, motion: EventMotion | None) -> None:
        """The motion's header and nodes; none is a scene at rest."""
        if motion is None:
            at_rest = np.zeros((*node_count((window.height, window.width)), 2), np.float32)
            motion = EventMotion(at_rest, window.t1_ns, window.t1_ns - window.t0_ns)
        rule = MotionRule.of(motion, window.t0_ns, window.t1_ns, (window.height, window.width))
        self._nodes[:] = rule.nodes
        values = rule._asdict() | {'nodes': self._driver.device_pointer(self._nodes)}
        for name, value in values.items():
            self._motion[0][name] = value

    def _launch(self, module: str, kernel: str, arguments: list[Any]) -> None:
        self._driver.launch(
            self._modules[module], kernel, (BLOCKS,), (THREADS,), arguments, self._stream
        )

    def _room(self, count: int) -> None:
        self._capacity, self.stale = count, True
        self._events = {name: self._driver.pinned((count,), kind) for name, kind in
                        (('x', 'uint16'), ('y', 'uint16'), ('p', 'uint8'), ('t', 'int64'))}

    def _sensor_at(self, sensor: tuple[int, int]) -> None:
        """The header's part that changes with the sensor: no launch depends on it."""
        spec = self._card.voxel
        layout = layout_of(spec.formulation, spec.bins, sensor, self._size)
        columns, rows = (
            upload(self._driver, self._stream, table) for table in (layout.columns, layout.rows)
        )
        values = {
            'columns': columns,
            'rows': rows,
            'low': 1,
            'height': sensor[0],
            'width': sensor[1],
            'area': layout.area,
            'bins': spec.bins,
            'mask': 0 if layout.nearest else 0xFFFF,
            'dark_offset': 0 if layout.signed else spec.bins * layout.area,
            'dark_sign': -1 if layout.signed else 1,
        }
        for name, value in values.items():
            self._header[0][name] = value
        if self._moves:
            self._nodes = self._driver.pinned((int(np.prod(node_count(sensor))),), 'int32')
        self._sensor = sensor

    def _frame_at(self, shape: tuple[int, ...]) -> None:
        self._pixels, self.stale = self._driver.pinned(shape, 'uint8'), True
        self._axes = [
            self._axis(area_axis(sources, size), size) for sources, size in zip(shape, self._size)
        ]

    def _axis(self, axis: AreaAxis, size: int) -> np.uint64:
        tables = [
            upload(self._driver, self._stream, table)
            for table in (axis.first, axis.begin, axis.weight)
        ]
        return upload(self._driver, self._stream, np.array([(*tables, size, axis.block)], AXIS))
