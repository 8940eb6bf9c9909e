"""TensorRT and TensorRT-RTX behind the engine interface: fixed buffers, one CUDA graph."""

from __future__ import annotations

import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mos_perception.engine.build import build_command, engine_key, import_tensorrt
from mos_perception.engine.cache import Cache, Miss
from mos_perception.engine.card import load_card
from mos_perception.engine.device_errors import OUT_OF_MEMORY, device_error, tried_twice
from mos_perception.engine.driver import Driver, open_driver
from mos_perception.engine.interface import TensorSpec, check_inputs
from mos_perception.engine.probe import Gpu, find_gpu
from mos_perception.errors import EngineError, mos_command

_DTYPES = {
    'FLOAT': 'float32',
    'HALF': 'float16',
    'INT64': 'int64',
    'INT32': 'int32',
    'INT8': 'int8',
    'UINT8': 'uint8',
    'BOOL': 'bool',
}


def open_engine(path: Path, flavour: str, driver: str = 'auto', cache: Cache | None = None,
                choice: str = '') -> TrtEngine:
    """The cached engine of the ONNX file `path`, built on this machine by `mos build`; loaded twice
    where GPU memory is full at first.

    `choice`: why `auto` took this engine.

    Raises EngineError in this order: no GPU, no TensorRT, no engine for exactly this file, device
    and version. DeviceMemoryError, DeviceLostError as `device_error`.
    """
    gpu = find_gpu()
    trt = import_tensorrt(flavour)
    cache, path = cache or Cache(), Path(path)
    key = engine_key(load_card(path), flavour, trt.__version__, gpu)
    plan = cache.load(path.stem, key)
    if isinstance(plan, Miss):
        raise EngineError(f'{plan.reason}: run "{build_command(path, flavour)}"')

    def load() -> TrtEngine:
        layer = open_driver(driver)
        try:
            return TrtEngine(trt, plan, gpu, layer, choice)
        except EngineError:
            layer.close()
            raise
    try:
        return tried_twice(load)
    except PlanError as error:
        cache.discard(path.stem, key)
        raise EngineError(
            f'{error}: it was deleted; run "{build_command(path, flavour)}"'
        ) from error


class PlanError(EngineError):
    """A plan TensorRT does not take."""


class TrtEngine:
    """One execution context with its buffers, freed with it.

    `run` may be called from any one thread at a time.
    """

    def __init__(
        self, trt: ModuleType, plan: bytes, gpu: Gpu, driver: Driver, choice: str = ''
    ) -> None:
        """Raises PlanError where the plan cannot be used, EngineError where the device refuses."""
        self._choice = choice
        self._trt, self.gpu, self.driver = trt, gpu, driver
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            if driver.memory()[0] < len(plan):  # the plan itself may be good
                weights = f'out of memory ({len(plan) / 2**20:.0f} MiB of weights)'
                raise device_error('loading the engine', OUT_OF_MEMORY, weights, driver.memory())
            raise PlanError(
                f'{trt.__name__} {trt.__version__} does not take the engine ({len(plan)} bytes)'
            )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise device_error('making an execution context', OUT_OF_MEMORY,
                               'out of memory', driver.memory())
        self.inputs, self.outputs = (
            self._specs(trt.TensorIOMode.INPUT),
            self._specs(trt.TensorIOMode.OUTPUT),
        )
        self.stream = driver.stream()
        self._host = {
            spec.name: driver.pinned(spec.shape, spec.dtype) for spec in self.inputs + self.outputs
        }
        self._device = {name: driver.alloc(array.nbytes) for name, array in self._host.items()}
        for name, address in self._device.items():
            if not self._context.set_tensor_address(name, address):
                raise PlanError(f'TensorRT refuses the buffer of tensor {name}')
        self._whole()  # the first run allocates; nothing may allocate while a graph is recorded
        driver.synchronize(self.stream)
        self._replay = driver.capture(self._whole, self.stream)
        weakref.finalize(self, driver.close)

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name, copies.

        Raises EngineError for wrong inputs or a failed inference.
        """
        check_inputs(inputs, self.inputs)
        self.driver.activate()
        for name, array in inputs.items():
            np.copyto(self._host[name], array)
        self._replay()
        self.driver.synchronize(self.stream)
        return {spec.name: self._host[spec.name].copy() for spec in self.outputs}

    def address(self, name: str) -> int:
        """Where a tensor lies in GPU memory."""
        return self._device[name]

    def enqueue(self) -> None:
        """Put one inference on the stream, without any copy."""
        if not self._context.execute_async_v3(self.stream):
            self.driver.synchronize(self.stream)  # says so where the device is lost
            raise EngineError(
                'inference failed: TensorRT refused to enqueue the network; see '
                f'"{mos_command("doctor")}"'
            )

    def report(self) -> dict[str, Any]:
        """What really runs."""
        return {
            'backend': self._trt.__name__,
            'device': str(self.gpu),
            'provider': self.driver.name,
            'choice': self._choice,
            'precision': '/'.join(sorted({spec.dtype for spec in self.inputs})),
            'versions': {
                self._trt.__name__: self._trt.__version__,
                'cuda': self.gpu.cuda,
                'numpy': np.__version__,
            },
        }

    def _specs(self, mode: Any) -> tuple[TensorSpec, ...]:
        names = [self._engine.get_tensor_name(n) for n in range(self._engine.num_io_tensors)]
        return tuple(
            self._spec(name) for name in names if self._engine.get_tensor_mode(name) == mode
        )

    def _spec(self, name: str) -> TensorSpec:
        dtype = str(self._engine.get_tensor_dtype(name)).rpartition('.')[2]
        shape = tuple(int(size) for size in self._engine.get_tensor_shape(name))
        if dtype not in _DTYPES or min(shape, default=0) < 0:
            raise PlanError(
                f'tensor {name} is {dtype} {shape}: must be of a known type and fixed size'
            )
        return TensorSpec(name, shape, _DTYPES[dtype])

    def _whole(self) -> None:
        for spec in self.inputs:
            self.driver.h2d(self._device[spec.name], self._host[spec.name], self.stream)
        self.enqueue()
        for spec in self.outputs:
            self.driver.d2h(self._host[spec.name], self._device[spec.name], self.stream)
