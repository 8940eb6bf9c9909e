"""What a loaded network offers, on whatever runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mos_perception.engine.driver import Driver
from mos_perception.engine.probe import Gpu
from mos_perception.errors import EngineError


@dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    `shape` has None where the graph leaves a size open; `dtype` as NumPy names it.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def __str__(self) -> str:
        sizes = 'x'.join('?' if size is None else str(size) for size in self.shape)
        return f'{self.name} {self.dtype} {sizes}'

    def accepts(self, other: TensorSpec) -> bool:
        """Same name, type and rank, and the same size wherever both state one."""
        return (
            self.name == other.name
            and self.dtype == other.dtype
            and len(self.shape) == len(other.shape)
            and all(a is None or b is None or a == b for a, b in zip(self.shape, other.shape))
        )


class Engine(Protocol):
    """A loaded network. Knows tensors by name; nothing of frames or events."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` must be fed, as the model file itself says."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` gives, as the model file itself says."""

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name. Raises EngineError for wrong inputs or a failed inference."""

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


def check_inputs(inputs: dict[str, np.ndarray], specs: tuple[TensorSpec, ...]) -> None:
    """Raises EngineError that lists both sides unless `inputs` are exactly those of `specs`."""
    given = {name: TensorSpec(name, array.shape, array.dtype.name)
             for name, array in inputs.items()}
    wanted = {spec.name: spec for spec in specs}
    if given.keys() != wanted.keys() or not all(
            spec.accepts(given[name]) for name, spec in wanted.items()):
        raise EngineError(f'fed {", ".join(map(str, given.values())) or "nothing"}; '
                          f'the model takes {", ".join(map(str, specs))}')
