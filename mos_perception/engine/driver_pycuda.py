"""The driver protocol over pycuda."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mos_perception.engine.device_errors import device_error
from mos_perception.engine.probe import find_gpu
from mos_perception.errors import DeviceLostError, EngineError


class PycudaDriver:
    """CUDA through pycuda, in the primary context of device 0 (`pycuda.autoinit` would make one of
    its own).

    Methods: see `driver.Driver`. pycuda has no graph capture (2026.1), so `capture` replays call by
    call.
    """

    name = 'pycuda'

    def __init__(self) -> None:
        """Raises EngineError without a GPU or without the package."""
        find_gpu()
        try:
            import pycuda.driver
        except ImportError as error:
            raise EngineError(
                f'cuda_driver pycuda: {error}: pip install pycuda numpy (built from source, needs '
                'the '
                'CUDA toolkit), or use "cuda_driver: cuda_bindings"'
            ) from error
        self._cuda = pycuda.driver
        self._memory: list[Any] = []
        self._streams: dict[int, Any] = {}
        self._pinned: dict[int, Any] = {}  # by address
        self._call(self._cuda.init)
        self._context = self._call(self._cuda.Device(0).retain_primary_context)
        self.activate()

    def _call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except self._cuda.Error as error:
            full = isinstance(error, self._cuda.MemoryError)
            raise device_error(getattr(function, '__name__', 'a call'), None, str(error),
                               self._cuda.mem_get_info() if full else None) from error

    def activate(self) -> None:
        """Make the context current in the calling thread."""
        if self._cuda.Context.get_current() is None:
            self._call(self._context.push)

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes of device memory."""
        return self._call(self._cuda.mem_get_info)

    def alloc(self, nbytes: int) -> int:
        """Device memory; lives until `close`."""
        self._memory.append(self._call(self._cuda.mem_alloc, nbytes))
        return int(self._memory[-1])

    def pinned(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Page-locked host array, zero filled."""
        array = self._call(self._cuda.pagelocked_zeros, shape, dtype,
                           mem_flags=self._cuda.host_alloc_flags.DEVICEMAP)
        self._memory.append(array.base)
        self._pinned[array.ctypes.data] = array.base
        return array

    def device_pointer(self, array: np.ndarray) -> int:
        """Where kernels find an array that `pinned` gave: they read it without a copy."""
        return int(self._call(self._pinned[array.ctypes.data].get_device_pointer))

    def h2d(self, target: int, source: np.ndarray, stream: int) -> None:
        """Copy a contiguous host array to the device, in stream order."""
        self._call(self._cuda.memcpy_htod_async, target, source, self._streams[stream])

    def d2h(self, target: np.ndarray, source: int, stream: int) -> None:
        """Copy device memory into a contiguous host array, in stream order."""
        self._call(self._cuda.memcpy_dtoh_async, target, source, self._streams[stream])

    def memset(self, target: int, value: int, nbytes: int, stream: int) -> None:
        """Fill device memory with one byte value."""
        self._call(self._cuda.memset_d8_async, target, value, nbytes, self._streams[stream])

    def stream(self) -> int:
        """A new non-blocking stream."""
        stream = self._call(self._cuda.Stream, 1)  # CU_STREAM_NON_BLOCKING
        self._streams[int(stream.handle)] = stream
        return int(stream.handle)

    def synchronize(self, stream: int) -> None:
        """Wait until the stream is done."""
        self._call(self._streams[stream].synchronize)

    def event(self) -> Any:
        """A new timing event."""
        return self._call(self._cuda.Event)

    def record(self, event: Any, stream: int) -> None:
        """Mark this point of the stream."""
        self._call(event.record, self._streams[stream])

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two recorded events; waits for the second."""
        self._call(end.synchronize)
        return float(self._call(start.time_till, end))

    def load_cubin(self, image: bytes) -> Any:
        """A module from a cubin or fatbin."""
        return self._call(self._cuda.module_from_buffer, image)

    def launch(
        self,
        module: Any,
        kernel: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        arguments: list[Any],
        stream: int,
        shared: int = 0,
    ) -> None:
        """Start a kernel.

        `arguments` are NumPy scalars of the exact C types; pointers are np.uint64.
        """
        function = self._call(module.get_function, kernel)
        self._call(function, *arguments, grid=(*grid, 1, 1)[:3], block=(*block, 1, 1)[:3],
                   stream=self._streams[stream], shared=shared)

    def capture(self, work: Callable[[], None], stream: int) -> Callable[[], None]:
        """The work itself, to be called again: pycuda cannot record a graph."""
        return work

    def close(self) -> None:
        """Free all memory and the context; of a lost device there is nothing to free."""
        try:
            self.activate()
        except DeviceLostError:
            return
        self._streams.clear()
        self._pinned.clear()
        self._memory.clear()
        self._context.detach()
