"""A TensorRT and a CUDA driver that are dictionaries, for what our side does with them."""

from enum import Enum
from types import SimpleNamespace

import numpy as np

from mos_perception.engine.probe import Gpu

GPU = Gpu('Fake Orin', (8, 7), 14, 12060, '', '')


class Mode(Enum):
    INPUT = 0
    OUTPUT = 1


class Driver:
    """Device memory is a dictionary of byte arrays."""

    name = 'fake'

    def __init__(self):
        self.arrays, self.activated, self.closed = {}, 0, 0

    def activate(self):
        self.activated += 1

    def memory(self):
        return 1 << 30, 4 << 30

    def alloc(self, nbytes):
        self.arrays[len(self.arrays) + 1] = np.zeros(nbytes, np.uint8)
        return len(self.arrays)

    def pinned(self, shape, dtype):
        return np.zeros(shape, dtype)

    def h2d(self, target, source, stream):
        self.arrays[target][:] = source.view(np.uint8).ravel()

    def d2h(self, target, source, stream):
        target[...] = self.arrays[source].view(target.dtype).reshape(target.shape)

    def stream(self):
        return 9

    def synchronize(self, stream):
        pass

    def capture(self, work, stream):
        return work

    def close(self):
        self.closed += 1


def fake_trt(driver, dtype='DataType.FLOAT', shape=(1, 3), takes=True):
    """A 'TensorRT' whose network is y = 2 x."""
    addresses = {}

    def execute(stream):
        driver.arrays[addresses['y']].view(np.float32)[:] = 2 * driver.arrays[addresses['x']].view(
            np.float32
        )
        return True

    context = SimpleNamespace(
        set_tensor_address=lambda name, to: addresses.__setitem__(name, to) or True,
        execute_async_v3=execute,
    )
    engine = SimpleNamespace(
        num_io_tensors=2, get_tensor_name=lambda n: 'xy'[n], get_tensor_shape=lambda name: shape,
        get_tensor_mode=lambda name: Mode.INPUT if name == 'x' else Mode.OUTPUT,
        get_tensor_dtype=lambda name: dtype, create_execution_context=lambda: context)
    return SimpleNamespace(
        __name__='tensorrt',
        __version__='10.3.0',
        TensorIOMode=Mode,
        Logger=type('Logger', (), {'ERROR': 1, '__init__': lambda self, level: None}),
        Runtime=lambda logger: SimpleNamespace(
            deserialize_cuda_engine=lambda plan: engine if takes else None
        ),
    )
