"""ONNX Runtime behind the engine interface: the CPU default and the reference for every other
backend.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from mos_perception.engine.interface import TensorSpec, check_inputs
from mos_perception.errors import EngineError

_DTYPES = {
    'tensor(float)': 'float32',
    'tensor(float16)': 'float16',
    'tensor(double)': 'float64',
    'tensor(int64)': 'int64',
    'tensor(int32)': 'int32',
    'tensor(uint8)': 'uint8',
    'tensor(bool)': 'bool',
}


class OrtEngine:
    """One ONNX Runtime session. Results do not depend on what ran before."""

    name = 'onnxruntime'
    remedy = 'check the driver'  # where a provider does not run

    def __init__(self, path: Path, threads: int = 0,
                 providers: Sequence[str] = ('CPUExecutionProvider',), choice: str = '',
                 provider_options: Sequence[dict[str, str]] | None = None) -> None:
        """`threads` 0 = one per core this process may use; `choice`: why `auto` took this engine;
        `provider_options` as ONNX Runtime's, one per provider.

        Raises EngineError, also when a provider cannot run.
        """
        path, self.requested, self._choice = Path(path), list(providers), choice
        if not path.is_file():
            raise EngineError(f'model file {path} does not exist: check the parameter "model"')
        available = onnxruntime.get_available_providers()
        if absent := [name for name in self.requested if name not in available]:
            raise EngineError(
                f'onnxruntime lacks {", ".join(absent)}; it has {", ".join(available)}: '
                'use CPUExecutionProvider or install the package that carries it'
            )
        self.threads = threads or _usable_cores()
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), _options(self.threads), providers=self.requested,
                provider_options=provider_options
            )
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise self._error(error, 'loading') or EngineError(
                f'model file {path} cannot be loaded by onnxruntime {onnxruntime.__version__} '
                f'({_first_line(error)}): export it again or restore the file'
            ) from error
        running = self._session.get_providers()
        if running[0] != self.requested[0]:
            raise EngineError(
                f'asked onnxruntime for {self.requested[0]} but it runs on {running[0]}: '
                f'{self.remedy}, or use "backend: onnxruntime" on the CPU'
            )
        self.inputs = tuple(map(_spec, self._session.get_inputs()))
        self.outputs = tuple(map(_spec, self._session.get_outputs()))

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name. Raises EngineError for wrong inputs or a failed inference."""
        check_inputs(inputs, self.inputs)
        try:
            arrays = self._session.run(None, inputs)
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise self._error(error, 'inference') or EngineError(
                f'inference failed: {_first_line(error)}') from error
        return {spec.name: array for spec, array in zip(self.outputs, arrays)}

    def report(self) -> dict[str, Any]:
        """What really runs; `provider` is what the session says, not what was asked for."""
        provider = self._session.get_providers()[0]
        return {
            'backend': self.name,
            'device': self._device(),
            'provider': provider,
            'requested': self.requested,
            'choice': self._choice,
            'threads': self.threads,
            'precision': '/'.join(sorted({spec.dtype for spec in self.inputs})),
            'versions': {'onnxruntime': onnxruntime.__version__, 'numpy': np.__version__},
        }

    def _device(self) -> str:
        """What runs it, in words."""
        return _cpu_name()

    def _error(self, error: Exception, what: str) -> EngineError | None:
        """A more exact error for what onnxruntime raised; None where there is none."""
        return None


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.use_deterministic_compute = True  # a bag must replay to the same masks
    options.log_severity_level = 3
    # Spinning threads would burn the cores that decode and track between two frames.
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    return options


def _spec(argument: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else None for size in argument.shape)
    return TensorSpec(argument.name, shape, _DTYPES.get(argument.type, argument.type))


def _usable_cores() -> int:
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        for line in Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
