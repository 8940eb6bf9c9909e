"""What runs a network: one interface, one room per runtime."""

from __future__ import annotations

import logging
from pathlib import Path

from mos_perception.engine.interface import Engine
from mos_perception.engine.probe import find_gpu
from mos_perception.errors import EngineError

log = logging.getLogger(__name__)
BACKENDS = ('auto', 'onnxruntime', 'onnxruntime_cuda', 'openvino', 'tensorrt', 'tensorrt_rtx')


def load_engine(path: Path, backend: str = 'auto', threads: int = 0,
                cuda_driver: str = 'auto') -> Engine:
    """Load the ONNX file `path`. `threads` 0 = one per core.

    A named backend runs or raises EngineError. Where there is a GPU, `auto` takes the first of
    tensorrt and tensorrt_rtx that has an engine in the cache, then onnxruntime_cuda; else
    onnxruntime. Why is logged and stands in `report()['choice']`.
    """
    if backend not in BACKENDS:
        raise EngineError(f'backend is {backend!r}: must be one of {", ".join(BACKENDS)}')
    if backend == 'auto':
        return _best(path, threads, cuda_driver)
    return _open(path, backend, threads, cuda_driver)


def _open(path: Path, backend: str, threads: int, cuda_driver: str, choice: str = '') -> Engine:
    if backend == 'onnxruntime':
        from mos_perception.engine.ort import OrtEngine  # the import costs tenths of a second
        return OrtEngine(path, threads, choice=choice)
    from mos_perception.engine.openvino import OpenVinoEngine
    from mos_perception.engine.trt import open_engine
    try:
        if backend == 'openvino':
            return OpenVinoEngine(path, threads)
        if backend == 'onnxruntime_cuda':
            from mos_perception.engine.ort_cuda import open_cuda
            return open_cuda(path, threads, choice)
        return open_engine(path, backend, cuda_driver, choice=choice)
    except EngineError as error:
        raise EngineError(f'backend {backend}: {error}') from error


def _best(path: Path, threads: int, cuda_driver: str) -> Engine:
    """The engine of `backend: auto`."""
    reasons, candidates = [], ['tensorrt', 'tensorrt_rtx', 'onnxruntime_cuda']
    try:
        find_gpu()
    except EngineError as error:
        reasons.append(str(error))
        candidates = []
    for backend in candidates:
        try:
            engine = _open(path, backend, threads, cuda_driver, _choice(backend, reasons))
            break
        except EngineError as error:
            reasons.append(str(error))
    else:
        choice = _choice('onnxruntime', reasons)
        engine = _open(path, 'onnxruntime', threads, cuda_driver, choice)
    log.info('backend %s', engine.report())
    return engine


def _choice(backend: str, reasons: list[str]) -> str:
    """Why `auto` took this backend."""
    return f'auto: {backend}' + (f' ({"; ".join(reasons)})' if reasons else '')
