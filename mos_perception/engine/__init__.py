"""What runs a network: one interface, one room per runtime."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mos_perception.engine.card import TensorSpec
from mos_perception.errors import EngineError

log = logging.getLogger(__name__)


class Engine(Protocol):
    """A loaded network. Knows tensors by name; nothing of frames or events."""

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


def load_engine(path: Path, backend: str = 'auto', threads: int = 0) -> Engine:
    """Load the ONNX file `path`. `threads` 0 = one per core. Raises EngineError; never falls back silently."""
    if backend == 'tensorrt':
        raise EngineError('backend is tensorrt: this build has no TensorRT engine support yet; '
                          'use "backend: onnxruntime" (or auto)')
    if backend not in ('auto', 'onnxruntime'):
        raise EngineError(f'backend is {backend!r}: must be auto, onnxruntime or tensorrt')
    from mos_perception.engine.ort import OrtEngine  # the import costs tenths of a second
    engine = OrtEngine(path, threads)
    if backend == 'auto':
        log.info('backend auto: onnxruntime, %s', engine.report())
    return engine
