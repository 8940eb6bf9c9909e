"""What runs a network: one interface, one room per runtime."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mos_perception.engine.card import TensorSpec
from mos_perception.engine.driver import Driver
from mos_perception.engine.probe import Gpu, find_gpu
from mos_perception.errors import EngineError

log = logging.getLogger(__name__)
BACKENDS = ('auto', 'onnxruntime', 'openvino', 'tensorrt', 'tensorrt_rtx')


class Engine(Protocol):
    """A loaded network. Knows tensors by name; nothing of frames or events."""

    choice: str  # why `auto` took it; else empty

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` must be fed, as the model file itself says."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` gives, as the model file itself says."""

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name. Raises EngineError for wrong feeds or a failed inference."""

    def report(self) -> dict[str, Any]:
        """What really runs: backend, device, provider, threads, precision, versions."""


@runtime_checkable
class DeviceEngine(Engine, Protocol):
    """An engine whose tensors lie in GPU memory, for those who fill and read them there."""

    driver: Driver
    gpu: Gpu
    stream: int

    def address(self, name: str) -> int:
        """Where a tensor lies."""

    def enqueue(self) -> None:
        """Put one inference on the stream, without any copy. Raises EngineError."""


def load_engine(path: Path, backend: str = 'auto', threads: int = 0, cuda_driver: str = 'auto') -> Engine:
    """Load the ONNX file `path`. `threads` 0 = one per core.

    A named backend runs or raises EngineError. `auto` takes the first of tensorrt and tensorrt_rtx for which there is
    a GPU and an engine in the cache, else onnxruntime; why is logged and stands in `report()['choice']`.
    """
    if backend not in BACKENDS:
        raise EngineError(f'backend is {backend!r}: must be one of {", ".join(BACKENDS)}')
    if backend == 'auto':
        return _best(path, threads, cuda_driver)
    if backend == 'onnxruntime':
        from mos_perception.engine.ort import OrtEngine  # the import costs tenths of a second
        return OrtEngine(path, threads)
    from mos_perception.engine.openvino import OpenVinoEngine
    from mos_perception.engine.trt import open_engine
    try:
        if backend == 'openvino':
            return OpenVinoEngine(path, threads)
        return open_engine(path, backend, cuda_driver)
    except EngineError as error:
        raise EngineError(f'backend {backend}: {error}') from error


def _best(path: Path, threads: int, cuda_driver: str) -> Engine:
    """The engine of `backend: auto`."""
    reasons = []
    try:
        find_gpu()
        candidates = ['tensorrt', 'tensorrt_rtx', 'onnxruntime']
    except EngineError as error:
        reasons.append(str(error))
        candidates = ['onnxruntime']
    for backend in candidates[:-1]:
        try:
            engine = load_engine(path, backend, threads, cuda_driver)
            break
        except EngineError as error:
            reasons.append(str(error))
    else:
        engine = load_engine(path, 'onnxruntime', threads)
    engine.choice = f'auto: {engine.report()["backend"]}' + (f' ({"; ".join(reasons)})' if reasons else '')
    log.info('backend %s, %s', engine.choice, engine.report())
    return engine
