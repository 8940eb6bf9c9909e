"""The driver protocol over NVIDIA's cuda-bindings."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from mos_perception.engine.device_errors import OUT_OF_MEMORY, device_error
from mos_perception.engine.probe import find_gpu
from mos_perception.errors import DeviceLostError, EngineError


class BindingsDriver:
    """CUDA through `cuda.bindings.driver`, in the primary context of device 0.

    Methods: see `driver.Driver`.
    """

    name = 'cuda_bindings'

    def __init__(self) -> None:
        """Raises EngineError without a GPU or without the package."""
        find_gpu()
        try:
            from cuda.bindings import driver
        except ImportError as error:
            raise EngineError(
                f'cuda_driver cuda_bindings: {error}: pip install cuda-bindings '
                '(of the driver\'s CUDA major), or use "cuda_driver: pycuda"'
            ) from error
        self._cuda = driver
        self._device_memory: list[Any] = []
        self._host_memory: list[int] = []
        self._call('cuInit', 0)
        self._device = self._call('cuDeviceGet', 0)
        self._context = self._call('cuDevicePrimaryCtxRetain', self._device)
        self.activate()

    def _call(self, function: str, *arguments: Any) -> Any:
        code, *values = getattr(self._cuda, function)(*arguments)
        if code != self._cuda.CUresult.CUDA_SUCCESS:
            full = int(code) == OUT_OF_MEMORY
            raise device_error(function, int(code), repr(code), self.memory() if full else None)
        return values if len(values) > 1 else values[0] if values else None

    def activate(self) -> None:
        """Make the context current in the calling thread."""
        self._call('cuCtxSetCurrent', self._context)

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes of device memory."""
        free, total = self._call('cuMemGetInfo')
        return int(free), int(total)

    def alloc(self, nbytes: int) -> int:
        """Device memory; lives until `close`."""
        self._device_memory.append(self._call('cuMemAlloc', nbytes))
        return int(self._device_memory[-1])

    def pinned(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Page-locked host array, zero filled."""
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = int(self._call('cuMemHostAlloc', nbytes, self._cuda.CU_MEMHOSTALLOC_DEVICEMAP))
        self._host_memory.append(address)
        array = np.frombuffer((ctypes.c_uint8 * nbytes).from_address(address), dtype).reshape(shape)
        array.fill(0)
        return array

    def device_pointer(self, array: np.ndarray) -> int:
        """Where kernels find an array that `pinned` gave: they read it without a copy."""
        return int(self._call('cuMemHostGetDevicePointer', array.ctypes.data, 0))

    def h2d(self, target: int, source: np.ndarray, stream: int) -> None:
        """Copy a contiguous host array to the device, in stream order."""
        self._call('cuMemcpyHtoDAsync', target, source.ctypes.data, source.nbytes, stream)

    def d2h(self, target: np.ndarray, source: int, stream: int) -> None:
        """Copy device memory into a contiguous host array, in stream order."""
        self._call('cuMemcpyDtoHAsync', target.ctypes.data, source, target.nbytes, stream)

    def memset(self, target: int, value: int, nbytes: int, stream: int) -> None:
        """Fill device memory with one byte value."""
        self._call('cuMemsetD8Async', target, value, nbytes, stream)

    def stream(self) -> int:
        """A new non-blocking stream."""
        return int(
            self._call('cuStreamCreate', self._cuda.CUstream_flags.CU_STREAM_NON_BLOCKING.value)
        )

    def synchronize(self, stream: int) -> None:
        """Wait until the stream is done."""
        self._call('cuStreamSynchronize', stream)

    def event(self) -> Any:
        """A new timing event."""
        return self._call('cuEventCreate', self._cuda.CUevent_flags.CU_EVENT_DEFAULT.value)

    def record(self, event: Any, stream: int) -> None:
        """Mark this point of the stream."""
        self._call('cuEventRecord', event, stream)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two recorded events; waits for the second."""
        self._call('cuEventSynchronize', end)
        return float(self._call('cuEventElapsedTime', start, end))

    def load_cubin(self, image: bytes) -> Any:
        """A module from a cubin or fatbin."""
        return self._call('cuModuleLoadData', image)

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
        function = self._call('cuModuleGetFunction', module, kernel.encode())
        # alive until the call has copied them
        values = [np.array(argument) for argument in arguments]
        pointers = np.array([value.ctypes.data for value in values], np.uint64)
        sizes = (*grid, 1, 1)[:3] + (*block, 1, 1)[:3]
        self._call('cuLaunchKernel', function, *sizes, shared, stream, pointers.ctypes.data, 0)

    def capture(self, work: Callable[[], None], stream: int) -> Callable[[], None]:
        """Record what `work` puts on the stream as a graph; returns its replay.

        `work` runs nothing now.
        """
        mode = self._cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call('cuStreamBeginCapture', stream, mode)
        try:
            work()
        finally:
            graph = self._call('cuStreamEndCapture', stream)
        program = self._call('cuGraphInstantiate', graph, 0)
        return lambda: self._call('cuGraphLaunch', program, stream)

    def close(self) -> None:
        """Free all memory and the context; of a lost device there is nothing to free."""
        try:
            self.activate()
            while self._device_memory:
                self._call('cuMemFree', self._device_memory.pop())
            while self._host_memory:
                self._call('cuMemFreeHost', self._host_memory.pop())
            self._call('cuDevicePrimaryCtxRelease', self._device)
        except DeviceLostError:
            pass
