"""TrtEngine against a fake TensorRT and driver: tensors, feeds, refusals.

Proves our side only, nothing of TensorRT.
"""

import gc
from types import SimpleNamespace

import numpy as np
import pytest
from fake_tensorrt import GPU, Driver, fake_trt

from mos_perception.engine import trt as runtime
from mos_perception.engine.cache import Cache, Miss
from mos_perception.errors import EngineError


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
