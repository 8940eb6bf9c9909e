"""OpenVINO behind the engine interface: Intel and ARM CPUs, in bfloat16 where the CPU has it.

Not the reference.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from mos_perception.engine.interface import TensorSpec, check_inputs
from mos_perception.errors import EngineError

_MAX_ISA = 'ONEDNN_MAX_CPU_ISA'


class OpenVinoEngine:
    """One compiled model on the CPU."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        """`threads` 0 = one per core this process may use.

        Raises EngineError: no package, or a file it cannot load.
        """
        try:
            import openvino
        except ImportError as error:
            raise EngineError(
                f'{error}: pip install openvino, or use "backend: onnxruntime"'
            ) from error
        self.threads = threads or len(os.sched_getaffinity(0))
        self._version = openvino.__version__
        if not Path(path).is_file():
            raise EngineError(f'model file {path} does not exist: check the parameter "model"')
        self._model = self._compiled(openvino.Core(), path)
        self._request = self._model.create_infer_request()
        self.inputs, self.outputs = (
            tuple(map(_spec, ports)) for ports in (self._model.inputs, self._model.outputs)
        )

    def _compiled(self, core: Any, path: Path) -> Any:
        """The model in the CPU's own precision.

        OpenVINO chooses kernels by what the CPU can. Where `ONEDNN_MAX_CPU_ISA` holds its oneDNN
        below that, a layer has no kernel left and compilation fails, or in float32 the first
        inference ends the process: it does not get to see the variable.
        """
        options = {'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_NUM_THREADS': self.threads}
        held_back = os.environ.pop(_MAX_ISA, None)
        try:
            return core.compile_model(str(path), 'CPU', options)
        except RuntimeError as error:
            raise EngineError(
                f'model file {path} cannot be loaded by OpenVINO {self._version} '
                f'({" ".join(str(error).split())[:300]}): use "backend: onnxruntime"'
            ) from error
        finally:
            if held_back is not None:
                os.environ[_MAX_ISA] = held_back

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name, copies.

        Raises EngineError for wrong inputs or a failed inference.
        """
        check_inputs(inputs, self.inputs)
        try:
            found = self._request.infer(inputs)
        except RuntimeError as error:
            raise EngineError(f'inference failed: {" ".join(str(error).split())[:300]}') from error
        return {
            spec.name: found[port].copy() for spec, port in zip(self.outputs, self._model.outputs)
        }

    def report(self) -> dict[str, Any]:
        """What really runs; `precision` is that of the arithmetic."""
        return {
            'backend': 'openvino',
            'device': str(self._model.get_property('EXECUTION_DEVICES')[0]),
            'provider': 'CPU',
            'choice': '',
            'threads': self.threads,
            'precision': self._model.get_property('INFERENCE_PRECISION_HINT').get_type_name(),
            'versions': {'openvino': self._version, 'numpy': np.__version__},
        }


def _spec(port: Any) -> TensorSpec:
    shape = tuple(
        size.get_length() if size.is_static else None for size in port.get_partial_shape()
    )
    return TensorSpec(port.get_any_name(), shape, np.dtype(port.get_element_type().to_dtype()).name)
