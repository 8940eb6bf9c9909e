"""GPU memory that is full, a device that is lost, one failed call: told apart, by the fake drivers.
"""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from fake_tensorrt import GPU, Driver, fake_trt
from shim_driver import FaultyDriver, ShimEngine, compile_shim

from bench.tiny_model import make_tiny_model
from mos_perception.config import Config
from mos_perception.datatypes import Fault, Frame, Result
from mos_perception.engine import trt as runtime
from mos_perception.engine.cache import Cache, Miss
from mos_perception.engine.device_errors import LOST, device_error, tried_twice
from mos_perception.engine.driver_bindings import BindingsDriver
from mos_perception.engine.driver_pycuda import PycudaDriver
from mos_perception.errors import DeviceLostError, DeviceMemoryError, EngineError
from mos_perception.models.dimos import cuda, load
from mos_perception.models.dimos.model import DimosModel
from mos_perception.pipeline import Pipeline
from mos_perception.recording.bag import open_bag
from mos_perception.replay import Replay, with_topics

MIB = 1 << 20
needs_compiler = pytest.mark.skipif(
    shutil.which('g++') is None, reason='g++ is not installed: it compiles the kernels')


@pytest.mark.parametrize('code, kind', [
    (2, DeviceMemoryError), (700, DeviceLostError), (719, DeviceLostError), (46, DeviceLostError),
    (1, EngineError), (209, EngineError), (900, EngineError)])
def test_codes(code, kind):
    assert type(device_error('cuLaunchKernel', code, 'CUDA_ERROR')) is kind


@pytest.mark.parametrize('text, kind', [
    ('cuMemAlloc failed: out of memory', DeviceMemoryError),
    ('cuStreamSynchronize failed: an illegal memory access was encountered', DeviceLostError),
    ('cuLaunchKernel failed: unspecified launch failure', DeviceLostError),
    ('cuMemcpyHtoDAsync failed: invalid argument', EngineError),
    ('CUDA failure 719: unspecified launch failure ; GPU=0 ; hostname=x', DeviceLostError),
    ('CUDA failure 2: out of memory ; GPU=0', DeviceMemoryError),
    ('Failed to allocate memory for requested buffer of size 1048576', DeviceMemoryError),
    ('Available memory of 1000 is smaller than requested bytes of 4000', DeviceMemoryError),
    ('CUDNN_STATUS_NOT_SUPPORTED', EngineError)])
def test_texts_where_no_code_is_told(text, kind):
    assert type(device_error('a call', None, text)) is kind


def test_the_lost_codes_are_those_of_cuda_h():
    driver = pytest.importorskip('cuda.bindings.driver', reason='cuda-bindings is not installed')
    names = {int(code): code.name for code in driver.CUresult}
    assert [names[code] for code in (700, 719, 214, 46)] == [
        'CUDA_ERROR_ILLEGAL_ADDRESS', 'CUDA_ERROR_LAUNCH_FAILED', 'CUDA_ERROR_ECC_UNCORRECTABLE',
        'CUDA_ERROR_DEVICE_UNAVAILABLE']
    assert LOST.keys() <= names.keys()


class FakeCuda:
    """`cuda.bindings.driver` as far as we call it: every call answers `code`, but for memory."""

    class CUresult:
        CUDA_SUCCESS = 0

    def __init__(self):
        self.code = 0

    def __getattr__(self, name):
        if name == 'cuMemGetInfo':
            return lambda: (0, 30 * MIB, 4096 * MIB)
        return lambda *_: (self.code, 77)


def test_cuda_bindings_tells_them_apart():
    driver = BindingsDriver.__new__(BindingsDriver)
    driver._cuda, driver._device_memory, driver._host_memory = FakeCuda(), [], []
    driver._context = driver._device = 0
    assert driver.alloc(5) == 77 and driver.memory() == (30 * MIB, 4096 * MIB)
    driver._cuda.code = 2
    with pytest.raises(DeviceMemoryError, match='cuMemAlloc .*30 of 4096 MiB free: end other'):
        driver.alloc(5)
    driver._cuda.code = 700
    with pytest.raises(DeviceLostError, match='cuStreamSynchronize .*only a new process'):
        driver.synchronize(1)
    driver.close()  # nothing to free there, and no error on the way out


def test_pycuda_tells_them_apart():
    class Error(Exception):
        pass

    class MemoryError_(Error):
        pass

    def raising(error):
        def call(*_):
            raise error
        return call
    driver = PycudaDriver.__new__(PycudaDriver)
    driver._cuda = SimpleNamespace(
        Error=Error, MemoryError=MemoryError_, mem_get_info=lambda: (30 * MIB, 4096 * MIB),
        mem_alloc=raising(MemoryError_('cuMemAlloc failed: out of memory')),
        Context=SimpleNamespace(get_current=lambda: None))
    driver._memory = []
    with pytest.raises(DeviceMemoryError, match='30 of 4096 MiB free'):
        driver.alloc(5)
    driver._context = SimpleNamespace(push=raising(
        Error('cuCtxPushCurrent failed: an illegal memory access was encountered')))
    with pytest.raises(DeviceLostError):
        driver.activate()
    driver.close()


@pytest.fixture
def cached(monkeypatch, tmp_path):
    """`open(drivers, trt)`: open a cached engine on the fake drivers, one after the other."""
    cache = Cache(tmp_path / 'engines')
    monkeypatch.setattr(runtime, 'find_gpu', lambda: GPU)
    monkeypatch.setattr(runtime, 'load_card', lambda path: SimpleNamespace(
        sha256='a' * 64, data_sha256=None, inputs=()))
    key = runtime.engine_key(runtime.load_card(None), 'tensorrt', '10.3.0', GPU)
    cache.store('net', key, b'plan')

    def open_with(drivers, trt):
        monkeypatch.setattr(runtime, 'import_tensorrt', lambda flavour: trt)
        left = list(drivers)
        monkeypatch.setattr(runtime, 'open_driver', lambda name: left.pop(0))
        return runtime.open_engine('net.onnx', 'tensorrt', 'auto', cache)
    open_with.there = lambda: not isinstance(cache.load('net', key), Miss)
    return open_with


class FullDriver(Driver):
    def alloc(self, nbytes):
        raise device_error('cuMemAlloc', 2, 'CUDA_ERROR_OUT_OF_MEMORY', (5 * MIB, 4096 * MIB))


def test_memory_full_at_load_is_freed_and_tried_once_more(cached):
    full, free = FullDriver(), Driver()
    engine = cached([full, free], fake_trt(free))
    assert full.closed == 1 and free.closed == 0 and engine.driver is free


@pytest.mark.fault(21, 'GPU memory is full when the engine is loaded, twice (fake driver)',
                   'freed and tried once more, then refused with how much was free')
def test_memory_full_twice_is_refused_with_figures(cached):
    drivers = [FullDriver(), FullDriver()]
    with pytest.raises(DeviceMemoryError, match=r'5 of 4096 MiB free.*\(tried twice\)'):
        cached(drivers, fake_trt(drivers[0]))
    assert [driver.closed for driver in drivers] == [1, 1] and cached.there()


def test_a_plan_that_memory_is_too_small_for_is_not_deleted(cached):
    drivers = [Driver(), Driver()]
    for driver in drivers:
        driver.memory = lambda: (3, 4 << 30)
    with pytest.raises(DeviceMemoryError, match='loading the engine.*0 of 4096 MiB free'):
        cached(drivers, fake_trt(drivers[0], takes=False))
    assert cached.there()


def test_other_errors_are_not_tried_again():
    calls = []
    with pytest.raises(EngineError):
        tried_twice(lambda: calls.append(1) or (_ for _ in ()).throw(EngineError('no')).send(None))
    assert calls == [1]


@pytest.fixture(scope='module')
def library(tmp_path_factory):
    return compile_shim(tmp_path_factory.mktemp('shim') / 'kernels.so')


@pytest.fixture
def gpu(library, monkeypatch, tmp_path):
    """`gpu(codes=, full=)`: the configuration of a tiny model on the kernels' source with a driver
    that fails so.
    """
    pytest.importorskip('onnx', reason='onnx makes the test model')
    path = make_tiny_model(tmp_path / 'tiny.onnx')

    def make(codes=(), full=(), backend='tensorrt'):
        drivers = []

        def engine(*_):
            drivers.append(FaultyDriver(library, codes, full if not drivers else full[-1:] * 1000))
            return ShimEngine(path, drivers[-1])
        monkeypatch.setattr(load, 'load_engine', engine)
        monkeypatch.setattr(cuda.DimosCuda.__init__, '__defaults__', (lambda *_: b'',))
        return Config(model=str(path), backend=backend), drivers
    return make


@needs_compiler
def test_memory_full_for_the_kernels_loads_the_engine_again(gpu):
    config, drivers = gpu(full=(True, False))
    assert isinstance(Pipeline(config).model, cuda.DimosCuda) and len(drivers) == 2
    config, drivers = gpu(full=(True,))
    with pytest.raises(DeviceMemoryError, match='tried twice'):
        Pipeline(config)
    config, drivers = gpu(full=(True,), backend='auto')
    model = Pipeline(config).model
    assert type(model) is DimosModel and '5 of 4096 MiB free' in model.report()['fallback']


def frame(n):
    image = np.zeros((120, 160, 3), np.uint8)
    image[40:80, 40:80] = 255
    return Frame(1_000_000_000 + n * 33_000_000, image, 'camera')


def outcomes(config, count=5):
    pipeline, found = Pipeline(config), []
    pipeline.warm_up()
    for n in range(count):
        pipeline.push_frame(frame(n), n * 10**9)
        found += [pipeline.process(sample) for sample in pipeline.ready((n + 1) * 10**9)]
    return found


@needs_compiler
def test_one_failed_call_costs_one_frame_and_full_memory_heals(gpu):
    config, _ = gpu(codes=[0] * 4 + [1] + [0] * 2 + [2])
    found = outcomes(config, 12)
    faults = [fault for fault in found if isinstance(fault, Fault)]
    assert len(faults) == 2 and not any(fault.final for fault in faults)
    assert 'code 1' in faults[0].message and 'GPU memory is full' in faults[1].message
    assert isinstance(found[-1], Result)


@needs_compiler
def test_a_lost_device_is_final(gpu):
    config, _ = gpu(codes=[0] * 4 + [700])
    found = outcomes(config, 12)
    first = next(n for n, outcome in enumerate(found) if isinstance(outcome, Fault))
    assert first == 3 and all(fault.final for fault in found[first:])
    assert 'only a new process' in found[first].message


@needs_compiler
def test_a_replay_ends_with_the_device(gpu, scene, tmp_path):
    config, _ = gpu(codes=[0] * 4 + [719])
    steps = []
    with open_bag(scene(tmp_path / 'bag')) as bag, pytest.raises(DeviceLostError):
        for step in Replay(bag, with_topics(bag, config)):
            steps.append(step.outcome)
    assert steps[-1].final and sum(isinstance(step, Fault) for step in steps) == 1
