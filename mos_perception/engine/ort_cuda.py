"""ONNX Runtime's CUDA provider behind the engine interface: a desktop GPU without TensorRT.

Only the network runs on the GPU; its inputs and outputs are NumPy arrays. Not run on a GPU by us
(docs/gpu.md).
"""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from mos_perception.engine.device_errors import device_error, tried_twice
from mos_perception.engine.ort import OrtEngine
from mos_perception.engine.probe import find_gpu
from mos_perception.errors import EngineError

PROVIDER = 'CUDAExecutionProvider'
# The same bits at every start and of every bag: no timing decides which algorithm a layer gets, and
# float32 is float32.
OPTIONS = {'device_id': '0', 'cudnn_conv_algo_search': 'HEURISTIC', 'use_tf32': '0',
           'arena_extend_strategy': 'kSameAsRequested'}
REMEDY = ('pip uninstall onnxruntime; pip install "onnxruntime-gpu[cuda,cudnn]" (they share one '
          'module), or use "backend: onnxruntime"')


def open_cuda(path: Path, threads: int = 0, choice: str = '') -> OrtCudaEngine:
    """The ONNX file on the GPU, loaded twice where its memory is full at first.

    Raises EngineError in this order: no GPU, no CUDA provider in the package, libraries of CUDA or
    cuDNN missing, and as `OrtEngine`; DeviceMemoryError, DeviceLostError as `device_error`.
    """
    gpu = find_gpu()
    available = onnxruntime.get_available_providers()
    if PROVIDER not in available:
        raise EngineError(f'onnxruntime {onnxruntime.__version__} here has no {PROVIDER}, only '
                          f'{", ".join(available)}: {REMEDY}')
    if hasattr(onnxruntime, 'preload_dlls'):  # since 1.21: finds the libraries that pip installed
        onnxruntime.preload_dlls()
    return tried_twice(lambda: OrtCudaEngine(path, str(gpu), threads, choice))


class OrtCudaEngine(OrtEngine):
    """A session whose first provider is CUDA."""

    name = 'onnxruntime_cuda'
    remedy = ('check the driver, and the libraries of CUDA and cuDNN: pip install '
              '"onnxruntime-gpu[cuda,cudnn]"')

    def __init__(self, path: Path, gpu: str, threads: int = 0, choice: str = '') -> None:
        """`gpu` in words. Raises EngineError, also where the session fell back to the CPU."""
        self._gpu = gpu
        super().__init__(path, threads, [PROVIDER], choice, [OPTIONS])

    def _device(self) -> str:
        return self._gpu

    def _error(self, error: Exception, what: str) -> EngineError | None:
        found = device_error(what, None, ' '.join(str(error).split())[:500])
        return None if type(found) is EngineError else found
