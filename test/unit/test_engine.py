"""ONNX Runtime engine: tiny graphs made here, honest reports, one clear error for each misuse."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from mos_perception.engine import load_engine
from mos_perception.engine.model_files import find_model
from mos_perception.engine.ort import OrtEngine
from mos_perception.errors import EngineError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def affine(tmp_path: Path) -> Path:
    """y = 2 x + 1 over (1, 3); z = x."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node('Mul', ['x', 'two'], ['m']),
            helper.make_node('Add', ['m', 'one'], ['y']),
            helper.make_node('Identity', ['x'], ['z']),
        ],
        'affine',
        [value('x', TensorProto.FLOAT, [1, 3])],
        [value('y', TensorProto.FLOAT, [1, 3]), value('z', TensorProto.FLOAT, [1, 'n'])],
        [
            helper.make_tensor('two', TensorProto.FLOAT, [1], [2.0]),
            helper.make_tensor('one', TensorProto.FLOAT, [1], [1.0]),
        ],
    )
    path = tmp_path / 'affine.onnx'
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8), path
    )
    return path


def test_runs_and_names_its_tensors(affine):
    engine = load_engine(affine, 'onnxruntime', 1)

    outputs = engine.run({'x': np.array([[1, 2, 3]], np.float32)})

    assert outputs['y'].tolist() == [[3, 5, 7]] and outputs['z'].tolist() == [[1, 2, 3]]
    assert [str(spec) for spec in engine.inputs] == ['x float32 1x3']
    assert [spec.name for spec in engine.outputs] == ['y', 'z']


def test_report_is_what_runs(affine):
    report = load_engine(affine, 'auto', 2).report()

    assert report['provider'] == report['requested'][0] == 'CPUExecutionProvider'
    assert (
        report['threads'] == 2
        and report['backend'] == 'onnxruntime'
        and report['precision'] == 'float32'
    )
    assert report['versions']['onnxruntime'] == onnxruntime.__version__
    assert OrtEngine(affine).threads >= 1


@pytest.mark.parametrize('feeds, words', [
    ({}, 'fed nothing'), ({'x': np.zeros((1, 4), np.float32)}, 'float32 1x4'),
    ({'x': np.zeros((1, 3))}, 'float64'), ({'x': np.zeros(3, np.float32)}, 'x float32 3;'),
    ({'x': np.zeros((1, 3), np.float32), 'w': np.zeros(1, np.float32)}, 'w float32 1')])
def test_wrong_feeds_list_both_sides(affine, feeds, words):
    with pytest.raises(EngineError, match='the model takes x float32 1x3') as error:
        load_engine(affine).run(feeds)
    assert words in str(error.value)


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(EngineError, match='does not exist.*"model"'):
        load_engine(tmp_path / 'none.onnx')
    for name, data in (('empty', b''), ('noise', bytes(range(256)) * 9)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(EngineError, match='cannot be loaded'):
            load_engine(tmp_path / name)


def test_truncated_file(affine):
    affine.write_bytes(affine.read_bytes()[:-20])
    with pytest.raises(EngineError, match='cannot be loaded'):
        load_engine(affine)


def test_backends_never_fall_back(affine, monkeypatch):
    with pytest.raises(EngineError, match="'cuda'"):
        load_engine(affine, 'cuda')
    with pytest.raises(EngineError, match='lacks NoSuchProvider'):
        OrtEngine(affine, providers=['NoSuchProvider'])
    monkeypatch.setattr(
        onnxruntime.InferenceSession, 'get_providers', lambda self: ['OtherProvider']
    )
    with pytest.raises(EngineError, match='runs on OtherProvider'):
        OrtEngine(affine)


def test_failed_inference_is_an_engine_error(tmp_path):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node('Gather', ['table', 'i'], ['y'])],
        'gather',
        [value('i', TensorProto.INT64, [1])],
        [value('y', TensorProto.FLOAT, [1])],
        [helper.make_tensor('table', TensorProto.FLOAT, [2], [1.0, 2.0])],
    )
    path = tmp_path / 'gather.onnx'
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8), path
    )
    engine = load_engine(path)

    with pytest.raises(EngineError, match='inference failed'):
        engine.run({'i': np.array([7])})
    assert engine.run({'i': np.array([1])})['y'].tolist() == [2.0]


def test_no_spinning_between_frames(affine):
    engine = load_engine(affine, threads=2)
    engine.run({'x': np.zeros((1, 3), np.float32)})
    before = resource.getrusage(resource.RUSAGE_SELF)
    time.sleep(0.3)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.15


def test_openvino_runs_the_shipped_model_nearly_as_the_reference():
    """Nearly: it multiplies in bfloat16 where the CPU can."""
    pytest.importorskip('openvino', reason='pip install openvino: it is an extra')
    path = find_model('dimos_nano')
    ours, reference = load_engine(path, 'openvino', 1), load_engine(path, 'onnxruntime', 1)
    assert ours.inputs == reference.inputs and ours.outputs == reference.outputs
    rng = np.random.default_rng(0)
    feeds = {spec.name: rng.normal(size=spec.shape).astype(np.float32) for spec in ours.inputs}
    wanted, found, again = reference.run(feeds), ours.run(feeds), ours.run(feeds)
    for name, value in wanted.items():
        assert np.abs(found[name] - value).max() < 0.05 * np.abs(value).max(), name
        assert np.array_equal(found[name], again[name]) and found[name] is not again[name]
    report = ours.report()
    assert (
        report['backend'] == 'openvino'
        and report['precision'] in ('f32', 'bf16', 'f16')
        and report['threads'] == 1
    )
    with pytest.raises(EngineError, match='the model takes image float32 1x3x120x160'):
        ours.run({})


@pytest.mark.parametrize('isa', ['AVX2', 'ALL'])
def test_openvino_runs_where_onednn_is_held_back(isa):
    """In a process of its own: oneDNN reads the variable once."""
    pytest.importorskip('openvino', reason='pip install openvino: it is an extra')
    code = ('import os; import numpy as np; from mos_perception.engine import load_engine; '
            'from mos_perception.engine.model_files import find_model; '
            'engine = load_engine(find_model("dimos_nano"), "openvino", 1); '
            'engine.run({one.name: np.zeros(one.shape, np.float32) for one in engine.inputs}); '
            'print(os.environ["ONEDNN_MAX_CPU_ISA"], engine.report()["precision"])')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, 'ONEDNN_MAX_CPU_ISA': isa}, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.split() in [[isa, precision] for precision in ('f32', 'bf16', 'f16')]


def test_openvino_refuses_clearly(tmp_path, monkeypatch):
    pytest.importorskip('openvino', reason='pip install openvino: it is an extra')
    with pytest.raises(EngineError, match='backend openvino: model file .* does not exist'):
        load_engine(tmp_path / 'none.onnx', 'openvino')
    (tmp_path / 'noise.onnx').write_bytes(bytes(range(256)) * 9)
    with pytest.raises(EngineError, match='cannot be loaded by OpenVINO'):
        load_engine(tmp_path / 'noise.onnx', 'openvino')
    monkeypatch.setitem(sys.modules, 'openvino', None)
    with pytest.raises(EngineError, match='pip install openvino, or use "backend: onnxruntime"'):
        load_engine(tmp_path / 'noise.onnx', 'openvino')
