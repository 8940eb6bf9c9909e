"""The GPU probe against no driver, a fake libcuda, and what backend and driver layers make of each.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mos_perception.engine import driver, driver_bindings, driver_pycuda, load_engine, probe
from mos_perception.engine.probe import Gpu
from mos_perception.errors import EngineError

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / 'models' / 'dimos_nano.onnx'
FAKE = '''
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDriverGetVersion(int *v) { *v = VERSION; return 0; }
int cuDeviceGetCount(int *n) { *n = COUNT; return 0; }
int cuDeviceGet(int *d, int n) { *d = n; return 0; }
int cuDeviceGetName(char *s, int n, int d) { strncpy(s, "Fake Orin", n); return 0; }
int cuDeviceGetAttribute(int *v, int which, int d)
{ *v = which == 75 ? 8 : which == 76 ? 7 : which == 16 ? 14 : -1; return 0; }
'''
compiler = shutil.which('cc') or shutil.which('gcc')
needs_compiler = pytest.mark.skipif(compiler is None, reason='no C compiler for the fake libcuda')


@pytest.fixture
def fake(tmp_path):
    def make(init=0, version=13000, count=1, source=FAKE) -> str:
        code, library = tmp_path / 'fake.c', tmp_path / 'libcuda.so.1'
        code.write_text(source)
        subprocess.run(
            [
                compiler,
                '-shared',
                '-fPIC',
                f'-DINIT={init}',
                f'-DVERSION={version}',
                f'-DCOUNT={count}',
                '-o',
                library,
                code,
            ],
            check=True,
        )
        return str(library)
    return make


@pytest.fixture
def no_driver(monkeypatch):
    monkeypatch.setattr(probe.find_gpu, '__defaults__', ('libcuda-not-here.so.1',))


@needs_compiler
def test_names_the_device(fake):
    found = probe.find_gpu(fake())
    assert (found.name, found.capability, found.sm_count, found.cuda) == (
        'Fake Orin',
        (8, 7),
        14,
        13000,
    )
    assert str(found) == 'Fake Orin (sm_87, 14 SMs)'


@pytest.mark.fault(20, 'a driver that fails, is too old or sees no device (fake driver)',
                   'one message each, with the remedy')
@needs_compiler
@pytest.mark.parametrize(
    'arguments, words',
    [
        ({'init': 100}, 'error 100 to cuInit'),
        ({'init': 803}, 'error 803'),
        ({'count': 0}, '0 devices'),
        ({'version': 11040}, 'runs CUDA 11.4: at least 12.2'),
        ({'source': 'int cuInit(int f) { return 0; }'}, 'has no cuDriverGetVersion'),
    ],
)
def test_each_trouble_has_its_message(fake, arguments, words):
    with pytest.raises(EngineError, match=words) as error:
        probe.find_gpu(fake(**arguments))
    assert '"backend: onnxruntime"' in str(error.value)


def test_not_a_library(tmp_path):
    (tmp_path / 'libcuda.so.1').write_text('no')
    with pytest.raises(EngineError, match='no NVIDIA driver here'):
        probe.find_gpu(str(tmp_path / 'libcuda.so.1'))


@pytest.mark.parametrize('backend', ['tensorrt', 'tensorrt_rtx'])
def test_named_backend_without_a_driver(no_driver, backend):
    start = time.monotonic()
    with pytest.raises(
        EngineError, match=f'backend {backend}: no NVIDIA driver.*"backend: onnxruntime"'
    ):
        load_engine(MODEL, backend)
    assert time.monotonic() - start < 60
    assert 'tensorrt' not in sys.modules


def test_auto_says_what_and_why(no_driver, caplog):
    with caplog.at_level('INFO'):
        report = load_engine(MODEL, 'auto', 1).report()
    assert report['backend'] == 'onnxruntime' and 'no NVIDIA driver' in report['choice']
    assert 'no NVIDIA driver' in caplog.text


def test_auto_with_a_gpu_but_no_tensorrt(monkeypatch):
    gpu = Gpu('Fake', (8, 7), 14, 13000, '', '')
    for module in ('build', 'trt'):
        __import__(f'mos_perception.engine.{module}')
        monkeypatch.setattr(
            sys.modules[f'mos_perception.engine.{module}'], 'find_gpu', lambda *_: gpu
        )
    monkeypatch.setattr(sys.modules['mos_perception.engine'], 'find_gpu', lambda: gpu)
    monkeypatch.setitem(sys.modules, 'tensorrt', None)
    monkeypatch.setitem(sys.modules, 'tensorrt_rtx', None)
    choice = load_engine(MODEL, 'auto', 1).report()['choice']
    assert choice.startswith('auto: onnxruntime')
    assert 'backend tensorrt: ' in choice and 'backend tensorrt_rtx: ' in choice


@pytest.mark.parametrize('name', ['auto', 'cuda_bindings', 'pycuda'])
def test_driver_layers_need_a_gpu(no_driver, name):
    with pytest.raises(EngineError, match='no NVIDIA driver here'):
        driver.open_driver(name)


def test_driver_layers_are_peers(monkeypatch):
    def methods(kind):
        return {name: getattr(kind, name).__annotations__ for name in vars(kind)
                if not name.startswith('_') and callable(getattr(kind, name))}
    wanted = methods(driver.Driver)
    assert len(wanted) == 17
    assert methods(driver_bindings.BindingsDriver) == wanted == methods(driver_pycuda.PycudaDriver)
    monkeypatch.setattr(driver, 'find_gpu', lambda: None)
    with pytest.raises(EngineError, match="'cupy': must be auto, cuda_bindings or pycuda"):
        driver.open_driver('cupy')


def test_cuda_bindings_has_every_call_we_make():
    cuda = pytest.importorskip('cuda.bindings.driver', reason='cuda-bindings is not installed')
    import re
    text = Path(driver_bindings.__file__).read_text()
    calls = set(re.findall(r"'(cu[A-Z]\w+)'", text))
    assert len(calls) > 20 and [name for name in calls if not hasattr(cuda, name)] == []
