"""Mask logits into mask quality and one label image, on the GPU.

Which masks are painted, and in which order, is decided on the CPU between the two from a few
numbers (`postprocess.select_queries`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mos_perception.engine.driver import Driver, upload
from mos_perception.errors import EngineError
from mos_perception.models.dimos.postprocess import MIN_VISIBLE
from mos_perception.models.dimos.resize_axes import linear_axis

THREADS = 256
BLOCKS = 256
SHARE = 8  # blocks to a query
AXIS = np.dtype([('first', '<u8'), ('part', '<u8'), ('size', '<i4'), ('sources', '<i4')])
CLAIM = np.dtype([(name, '<i4') for name in ('whole', 'visible', 'left', 'top', 'right', 'bottom')])


class MaskStage:
    """Reads the tensor of mask logits (queries, h, w) where it lies."""

    def __init__(
        self,
        driver: Driver,
        stream: int,
        module: Any,
        logits: int,
        shape: tuple[int, int, int],
        size: tuple[int, int],
    ) -> None:
        """`logits`: address of the float32 tensor of `shape`; `size` of the network's input."""
        self._driver, self._stream, self._module = driver, stream, module
        self._logits, self._shape = np.uint64(logits), shape
        self._axes = self._tables(size)
        self._sums, self._numbers = (
            driver.pinned((shape[0],), 'uint64'),
            driver.pinned((shape[0] + 1,), 'int32'),
        )
        self._sums_at, self._numbers_at = (
            driver.alloc(self._sums.nbytes),
            driver.alloc(self._numbers.nbytes),
        )
        self._order = driver.pinned((shape[0] + 1,), 'int32')  # and how many
        self._order_at = driver.alloc(self._order.nbytes)
        self._claims = driver.pinned((shape[0] * CLAIM.itemsize,), 'uint8').view(CLAIM)
        self._claims_at = driver.alloc(self._claims.nbytes)
        self._size: tuple[int, int] | None = None
        self._paint: Callable[[], None] = lambda: None

    def enqueue_quality(self) -> None:
        """Sums for `quality` onto the stream."""
        driver, stream, (queries, *_) = self._driver, self._stream, self._shape
        driver.memset(self._sums_at, 0, self._sums.nbytes, stream)
        driver.memset(self._numbers_at, 0, self._numbers.nbytes, stream)
        driver.launch(
            self._module,
            'frame_quality',
            (queries * SHARE,),
            (THREADS,),
            [
                self._logits,
                np.int32(SHARE),
                *self._axes,
                np.uint64(self._sums_at),
                np.uint64(self._numbers_at),
                np.uint64(self._numbers_at + 4 * queries),
            ],
            stream,
        )
        driver.d2h(self._sums, self._sums_at, stream)
        driver.d2h(self._numbers, self._numbers_at, stream)

    def quality(self) -> np.ndarray:
        """(Q,) mean sigmoid inside each mask, 0 for an empty one.

        Raises EngineError if a logit is not finite.
        """
        if self._numbers[-1]:
            raise EngineError(
                'output mask_logits has values that are NaN or infinite: the frame is dropped; if '
                'it '
                'persists, restore the model file'
            )
        return self._sums / 65536.0 / np.maximum(self._numbers[:-1], 1)

    def compose(
        self, order: list[int], size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """Masks (N, H, W) bool of the queries in `order` at `size`, the first one claiming its
        pixels; extents (N, 4); the places in `order` that had enough left.
        """
        if size != self._size:
            self._prepare(size)
        self._order[:len(order)], self._order[-1] = order, len(order)
        self._paint()
        self._driver.synchronize(self._stream)
        claims = self._claims[:len(order)]
        kept = [place for place, claim in enumerate(claims)
                if claim['visible'] and claim['visible'] >= MIN_VISIBLE * claim['whole']]
        boxes = np.stack(
            [size[1] - claims['left'], size[0] - claims['top'], claims['right'], claims['bottom']],
            1,
        )
        masks = self._labels[None] == np.array(kept, np.uint16)[:, None, None] + 1
        return masks, boxes[kept].astype(np.float32).reshape(-1, 4), kept

    def _prepare(self, size: tuple[int, int]) -> None:
        self._labels = self._driver.pinned(size, 'uint16')
        self._labels_at, self._frame_axes = (
            self._driver.alloc(self._labels.nbytes),
            self._tables(size),
        )
        self._size = size
        self._order[-1] = 0
        self._enqueue_paint()  # the first launch of a kernel may load it, which no graph may record
        self._driver.synchronize(self._stream)
        self._paint = self._driver.capture(self._enqueue_paint, self._stream)

    def _enqueue_paint(self) -> None:
        driver, stream, queries = self._driver, self._stream, self._shape[0]
        driver.h2d(self._order_at, self._order, stream)
        driver.memset(self._labels_at, 0, self._labels.nbytes, stream)
        driver.memset(self._claims_at, 0, self._claims.nbytes, stream)
        for step in range(queries + 1):
            driver.launch(
                self._module,
                'frame_claim',
                (BLOCKS,),
                (THREADS,),
                [
                    self._logits,
                    np.uint64(self._order_at),
                    np.uint64(self._order_at + 4 * queries),
                    np.int32(step),
                    np.float64(MIN_VISIBLE),
                    *self._frame_axes,
                    np.uint64(self._labels_at),
                    np.uint64(self._claims_at),
                ],
                stream,
            )
        driver.d2h(self._labels, self._labels_at, stream)
        driver.d2h(self._claims.view(np.uint8), self._claims_at, stream)

    def _tables(self, size: tuple[int, int]) -> list[np.uint64]:
        found = []
        for sources, pixels in zip(self._shape[1:], size):
            axis = linear_axis(sources, pixels)
            tables = [
                upload(self._driver, self._stream, table) for table in (axis.first, axis.part)
            ]
            found.append(
                upload(self._driver, self._stream, np.array([(*tables, pixels, sources)], AXIS))
            )
        return found
