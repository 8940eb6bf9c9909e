"""TrtEngine against a fake TensorRT and driver: tensors, feeds, refusals.

Proves our side only, nothing of TensorRT.
"""

import gc
from enum import Enum
from types import SimpleNamespace

import numpy as np
import pytest

from mos_perception.engine import trt as runtime
from mos_perception.engine.cache import Cache, Miss
from mos_perception.engine.probe import Gpu
from mos_perception.errors import EngineError

GPU = Gpu('Fake Orin', (8, 7), 14, 12060, '', '')


class Mode(Enum):
    INPUT = 0
    OUTPUT = 1


class Driver:
    """Device memory is a dictionary of byte arrays."""

    name = 'fake'

    def __init__(self):
        self.memory, self.activated, self.closed = {}, 0, 0

    def activate(self):
        self.activated += 1

    def alloc(self, nbytes):
        self.memory[len(self.memory) + 1] = np.zeros(nbytes, np.uint8)
        return len(self.memory)

    def pinned(self, shape, dtype):
        return np.zeros(shape, dtype)

    def h2d(self, target, source, stream):
        self.memory[target][:] = source.view(np.uint8).ravel()

    def d2h(self, target, source, stream):
        target[...] = self.memory[source].view(target.dtype).reshape(target.shape)

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
        driver.memory[addresses['y']].view(np.float32)[:] = 2 * driver.memory[addresses['x']].view(
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


def test_runs_by_name_and_gives_copies():
    driver = Driver()
    engine = runtime.TrtEngine(fake_trt(driver), b'plan', GPU, driver)
    first = engine.run({'x': np.array([[1, 2, 3]], np.float32)})
    second = engine.run({'x': np.array([[5, 6, 7]], np.float32)})
    assert first['y'].tolist() == [[2, 4, 6]] and second['y'].tolist() == [[10, 12, 14]]
    assert driver.activated == 2 and [str(spec) for spec in engine.outputs] == ['y float32 1x3']
    report = engine.report()
    assert (
        report['backend'] == 'tensorrt'
        and 'sm_87' in report['device']
        and report['provider'] == 'fake'
    )


def test_memory_goes_with_the_engine():
    driver = Driver()
    engine = runtime.TrtEngine(fake_trt(driver), b'plan', GPU, driver)
    assert driver.closed == 0
    del engine
    gc.collect()
    assert driver.closed == 1


@pytest.mark.parametrize(
    'feeds', [{}, {'x': np.zeros((1, 4), np.float32)}, {'x': np.zeros((1, 3))}]
)
def test_wrong_feeds(feeds):
    driver = Driver()
    with pytest.raises(EngineError, match='the model takes x float32 1x3'):
        runtime.TrtEngine(fake_trt(driver), b'plan', GPU, driver).run(feeds)


@pytest.mark.parametrize('more', [{'takes': False}, {'shape': (1, -1)}, {'dtype': 'DataType.FP4'}])
def test_unusable_plans(more):
    driver = Driver()
    with pytest.raises(runtime.PlanError):
        runtime.TrtEngine(fake_trt(driver, **more), b'plan', GPU, driver)


def test_a_plan_tensorrt_does_not_take_is_deleted(monkeypatch, tmp_path):
    driver, cache = Driver(), Cache(tmp_path / 'engines')
    trt = fake_trt(driver, takes=False)
    monkeypatch.setattr(runtime, 'find_gpu', lambda: GPU)
    monkeypatch.setattr(runtime, 'import_tensorrt', lambda flavour: trt)
    monkeypatch.setattr(runtime, 'open_driver', lambda name: driver)
    monkeypatch.setattr(
        runtime, 'load_card',
        lambda path: SimpleNamespace(sha256='a' * 64, data_sha256=None, inputs=()),
    )
    key = runtime.engine_key(runtime.load_card(None), 'tensorrt', '10.3.0', GPU)
    cache.store('net', key, b'plan')
    with pytest.raises(
        EngineError, match='was deleted; run "mos build --model net.onnx --backend tensorrt"'
    ):
        runtime.open_engine('net.onnx', 'tensorrt', 'auto', cache)
    assert isinstance(cache.load('net', key), Miss) and driver.closed == 1
