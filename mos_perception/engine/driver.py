"""What we ask of a CUDA driver layer: one protocol, two implementations, none loaded before a GPU
was found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from mos_perception.engine.probe import find_gpu
from mos_perception.errors import EngineError

DRIVERS = ('cuda_bindings', 'pycuda')


class Driver(Protocol):
    """CUDA in the device's primary context.

    Device pointers and streams are ints; every call may raise EngineError, DeviceMemoryError where
    memory is full, DeviceLostError where only a new process can use the device again.
    """

    name: str

    def activate(self) -> None:
        """Make the context current in the calling thread."""

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes of device memory."""

    def alloc(self, nbytes: int) -> int:
        """Device memory; lives until `close`."""

    def pinned(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Page-locked host array, zero filled."""

    def device_pointer(self, array: np.ndarray) -> int:
        """Where kernels find an array that `pinned` gave: they read it without a copy."""

    def h2d(self, target: int, source: np.ndarray, stream: int) -> None:
        """Copy a contiguous host array to the device, in stream order."""

    def d2h(self, target: np.ndarray, source: int, stream: int) -> None:
        """Copy device memory into a contiguous host array, in stream order."""

    def memset(self, target: int, value: int, nbytes: int, stream: int) -> None:
        """Fill device memory with one byte value."""

    def stream(self) -> int:
        """A new non-blocking stream."""

    def synchronize(self, stream: int) -> None:
        """Wait until the stream is done."""

    def event(self) -> Any:
        """A new timing event."""

    def record(self, event: Any, stream: int) -> None:
        """Mark this point of the stream."""

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two recorded events; waits for the second."""

    def load_cubin(self, image: bytes) -> Any:
        """A module from a cubin or fatbin."""

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

    def capture(self, work: Callable[[], None], stream: int) -> Callable[[], None]:
        """Record what `work` puts on the stream as a graph; returns its replay.

        `work` runs nothing now.
        """

    def close(self) -> None:
        """Free all memory and the context."""


def open_driver(name: str = 'auto') -> Driver:
    """The driver layer `name`; auto takes the first one installed.

    Raises EngineError without a GPU or the package.
    """
    find_gpu()
    if name == 'auto':
        reasons = []
        for candidate in DRIVERS:
            try:
                return open_driver(candidate)
            except EngineError as error:
                reasons.append(str(error))
        raise EngineError('no CUDA driver layer: ' + '; '.join(reasons))
    if name == 'cuda_bindings':
        from mos_perception.engine.driver_bindings import BindingsDriver
        return BindingsDriver()
    if name == 'pycuda':
        from mos_perception.engine.driver_pycuda import PycudaDriver
        return PycudaDriver()
    raise EngineError(f'cuda_driver is {name!r}: must be auto, {" or ".join(DRIVERS)}')


def upload(driver: Driver, stream: int, array: np.ndarray) -> np.uint64:
    """Device address of a copy of `array` that lives until the driver is closed.

    Waits; not for graphs.
    """
    address = driver.alloc(array.nbytes)
    driver.h2d(address, array, stream)
    driver.synchronize(stream)
    return np.uint64(address)
