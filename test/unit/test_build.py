"""Building engines: version rules here; TensorRT-RTX's real builder and parser where MOS_TEST_RTX=1
asks for it.
"""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest

from mos_perception.engine.build import build_plan, import_tensorrt, model_builds
from mos_perception.errors import EngineError

MODELS = sorted((Path(__file__).resolve().parents[2] / 'models').glob('*.onnx'))
SUBSET = {
    'ICudaEngine': (
        'num_io_tensors',
        'get_tensor_name',
        'get_tensor_mode',
        'get_tensor_shape',
        'get_tensor_dtype',
    ),
    'IExecutionContext': ('set_tensor_address', 'execute_async_v3'),
}
BUILDER_SUBSET = {'OnnxParser': ('parse_from_file', 'get_error', 'num_errors')}
rtx = pytest.mark.skipif(
    os.environ.get('MOS_TEST_RTX') != '1', reason='set MOS_TEST_RTX=1 with tensorrt-rtx installed'
)


@pytest.mark.parametrize('version', ['8.6.1', '10.2.0', 'unknown'])
def test_old_tensorrt_is_refused(monkeypatch, version):
    monkeypatch.setitem(sys.modules, 'tensorrt', SimpleNamespace(__version__=version))
    with pytest.raises(EngineError, match=f'TensorRT is {version}: at least 10.3'):
        import_tensorrt('tensorrt')


@pytest.mark.parametrize('version', ['10.3.0', '10.16.1', '11.4.0.106'])
def test_new_tensorrt_is_taken(monkeypatch, version):
    monkeypatch.setitem(sys.modules, 'tensorrt', SimpleNamespace(__version__=version))
    assert import_tensorrt('tensorrt').__version__ == version


@pytest.mark.parametrize('module', ['tensorrt_lean', 'tensorrt_dispatch', 'tensorrt_rtx'])
def test_the_calls_we_make_exist(module):
    trt = pytest.importorskip(module, reason=f'{module} is not installed')
    assert [
        name
        for kind, names in SUBSET.items()
        for name in names
        if not hasattr(getattr(trt, kind), name)
    ] == []


@rtx
@pytest.mark.parametrize('path', MODELS, ids=lambda path: path.stem)
def test_every_shipped_model_builds(path):
    assert model_builds(path) > 100_000


@rtx
def test_weights_in_a_file_beside_the_graph_are_found(tmp_path):
    onnx.save(onnx.load(MODELS[0]), tmp_path / 'net.onnx', save_as_external_data=True,
              location='net.onnx.data', size_threshold=0)
    assert (tmp_path / 'net.onnx.data').stat().st_size > 100_000
    assert model_builds(tmp_path / 'net.onnx') > 100_000


@rtx
def test_the_calls_of_the_builder_exist():
    trt = import_tensorrt('tensorrt_rtx')
    assert all(hasattr(getattr(trt, kind), name)
               for kind, names in BUILDER_SUBSET.items() for name in names)


@rtx
def test_cancelled_build():
    trt = import_tensorrt('tensorrt_rtx')
    with pytest.raises(EngineError, match='cancelled'):
        build_plan(trt, MODELS[0], 'SM89', lambda *_: False)


@rtx
def test_damaged_file(tmp_path):
    (tmp_path / 'net.onnx').write_bytes(b'not a model')
    with pytest.raises(EngineError, match='cannot parse'):
        model_builds(tmp_path / 'net.onnx')
