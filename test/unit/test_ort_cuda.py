"""`backend: onnxruntime_cuda` without a GPU: our side against a session that says it runs on CUDA.
"""

import sys

import numpy as np
import onnxruntime
import pytest

from bench.tiny_model import make_tiny_model
from mos_perception.engine import BACKENDS, load_engine, ort_cuda
from mos_perception.engine.probe import Gpu
from mos_perception.errors import DeviceLostError, DeviceMemoryError, EngineError

GPU = Gpu('Fake RTX', (8, 9), 128, 13000, '', '')
REAL = onnxruntime.InferenceSession


@pytest.fixture
def model(tmp_path):
    pytest.importorskip('onnx', reason='onnx makes the test model')
    return make_tiny_model(tmp_path / 'tiny.onnx')


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(ort_cuda, 'find_gpu', lambda: GPU)
    monkeypatch.setattr(sys.modules['mos_perception.engine'], 'find_gpu', lambda: GPU)


@pytest.fixture
def cuda(gpu, monkeypatch):
    """`cuda(load_errors=, run_errors=, provider=)`: onnxruntime as onnxruntime-gpu would be."""
    asked = []

    def make(load_errors=(), run_errors=(), provider=ort_cuda.PROVIDER):
        left, failing = list(load_errors), list(run_errors)

        class Session:
            def __init__(self, path, options, providers, provider_options=None):
                if providers == ['CPUExecutionProvider']:
                    self.provider = providers[0]
                else:
                    asked.append((providers, provider_options))
                    self.provider = provider
                    if left and (text := left.pop(0)):
                        raise RuntimeError(text)
                self.real = REAL(path, options, providers=['CPUExecutionProvider'])
                self.get_inputs, self.get_outputs = self.real.get_inputs, self.real.get_outputs

            def get_providers(self):
                return [self.provider, 'CPUExecutionProvider']

            def run(self, names, feeds):
                if failing and (text := failing.pop(0)):
                    raise RuntimeError(text)
                return self.real.run(names, feeds)
        monkeypatch.setattr(onnxruntime, 'InferenceSession', Session)
        monkeypatch.setattr(onnxruntime, 'get_available_providers',
                            lambda: [ort_cuda.PROVIDER, 'CPUExecutionProvider'])
        monkeypatch.setattr(onnxruntime, 'preload_dlls', lambda: None, raising=False)
        return asked
    return make


def feeds(engine):
    return {spec.name: np.zeros(spec.shape, np.float32) for spec in engine.inputs}


def test_without_a_driver(model):
    with pytest.raises(EngineError, match='backend onnxruntime_cuda: .*"backend: onnxruntime"'):
        load_engine(model, 'onnxruntime_cuda')


@pytest.mark.skipif(ort_cuda.PROVIDER in onnxruntime.get_available_providers(),
                    reason='onnxruntime-gpu is installed here')
def test_without_the_package(gpu, model):
    with pytest.raises(EngineError, match='has no CUDAExecutionProvider, only .*pip uninstall '
                                          'onnxruntime; pip install "onnxruntime-gpu'):
        load_engine(model, 'onnxruntime_cuda')


def test_where_the_session_falls_back_to_the_cpu(cuda, model):
    cuda(provider='CPUExecutionProvider')
    with pytest.raises(EngineError, match='asked onnxruntime for CUDAExecutionProvider but it runs '
                                          'on CPUExecutionProvider'):
        load_engine(model, 'onnxruntime_cuda')


def test_says_what_runs(cuda, model):
    asked = cuda()
    engine = load_engine(model, 'onnxruntime_cuda', 1)
    report = engine.report()
    assert (report['backend'], report['provider']) == ('onnxruntime_cuda', ort_cuda.PROVIDER)
    assert report['device'] == 'Fake RTX (sm_89, 128 SMs)' and report['precision'] == 'float32'
    assert asked == [([ort_cuda.PROVIDER], [ort_cuda.OPTIONS])]
    wanted = load_engine(model, 'onnxruntime', 1).run(feeds(engine))
    found = engine.run(feeds(engine))
    assert all(np.array_equal(found[name], value) for name, value in wanted.items())


def test_auto_takes_it_third(cuda, model, monkeypatch):
    assert BACKENDS.index('onnxruntime_cuda') > BACKENDS.index('onnxruntime')
    monkeypatch.setitem(sys.modules, 'tensorrt', None)
    monkeypatch.setitem(sys.modules, 'tensorrt_rtx', None)
    for module in ('build', 'trt'):
        __import__(f'mos_perception.engine.{module}')
        monkeypatch.setattr(
            sys.modules[f'mos_perception.engine.{module}'], 'find_gpu', lambda *_: GPU)
    cuda()
    choice = load_engine(model, 'auto').report()['choice']
    assert choice.startswith('auto: onnxruntime_cuda (backend tensorrt: ')
    assert 'backend tensorrt_rtx: ' in choice
    cuda(load_errors=['libcublasLt.so.13: cannot open shared object file'])
    report = load_engine(model, 'auto').report()
    assert report['backend'] == 'onnxruntime' and 'libcublasLt' in report['choice']


def test_memory_that_is_full(cuda, model):
    full = 'CUDA failure 2: out of memory ; GPU=0 ; hostname=robot ; file=cuda_allocator.cc'
    assert len(cuda(load_errors=[full])) == 0
    engine = load_engine(model, 'onnxruntime_cuda')
    assert engine.run(feeds(engine))
    cuda(load_errors=[full, full])
    with pytest.raises(EngineError, match='GPU memory is full.*tried twice'):
        load_engine(model, 'onnxruntime_cuda')


@pytest.mark.parametrize('text, kind', [
    ('CUDA failure 700: an illegal memory access was encountered ; GPU=0', DeviceLostError),
    ('CUDA failure 2: out of memory', DeviceMemoryError), ('Gather: index 7', EngineError)])
def test_errors_of_an_inference(cuda, model, text, kind):
    cuda(run_errors=[text])
    engine = load_engine(model, 'onnxruntime_cuda')
    with pytest.raises(kind) as error:
        engine.run(feeds(engine))
    assert type(error.value) is kind
    assert engine.run(feeds(engine))
