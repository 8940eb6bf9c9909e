"""The GPU's data path on the CPU: the kernels' source (test/shim), ONNX Runtime for the network,
OpenCV as oracle.
"""

import dataclasses
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shim_driver import ShimDriver, ShimEngine, compile_shim

from mos_perception.config import Config
from mos_perception.datatypes import Events, EventWindow, Frame, SyncedInput
from mos_perception.engine import kernels
from mos_perception.engine.card import load_card
from mos_perception.engine.interface import DeviceEngine
from mos_perception.engine.model_files import find_model
from mos_perception.errors import EngineError
from mos_perception.models import load_model
from mos_perception.models.dimos.cuda import SOURCES, DimosCuda
from mos_perception.models.dimos.model import DimosModel
from mos_perception.models.dimos.postprocess import select_queries, to_instances
from mos_perception.models.dimos.resize_axes import area_axis, linear_axis
from mos_perception.models.outputs import softmax
from mos_perception.models.preprocess import image_tensor
from mos_perception.stages import StageTimes
from training.export import export
from training.recipes import RECIPES
from training.state import save, start

pytestmark = pytest.mark.skipif(
    shutil.which('g++') is None, reason='g++ is not installed: it compiles the kernels'
)
# over (37, 61): equal, 2 x 2, ..., mixed
SIZES = [(37, 61), (74, 122), (120, 200), (111, 61), (40, 63), (180, 240)]
NET = (37, 61)


@pytest.fixture(scope='module')
def library(tmp_path_factory):
    return compile_shim(tmp_path_factory.mktemp('shim') / 'kernels.so')


MODELS = sorted((Path(__file__).resolve().parents[2] / 'models').glob('*.onnx'))
DIMOS = [path.stem for path in MODELS if load_card(path).architecture == 'dimos']


@pytest.fixture(scope='module')
def seeing(tmp_path_factory):
    """A DIMOS that sees motion evidence and compensated events, with weights of chance."""
    recipe = RECIPES['dimos_ego']
    run = tmp_path_factory.mktemp('run')
    state = start(recipe)
    with torch.no_grad():
        state.network.heads.classify.weight *= 20  # of equal scores either path may show either
    save(state, recipe, run, {'data': 'none', 'command': ''})
    export(run, recipe, run / 'seeing.onnx')
    return run / 'seeing.onnx'


@pytest.fixture(params=[*DIMOS, 'seeing'])
def models(library, request):
    """(GPU path, CPU path) of a shipped network, and of one that sees motion evidence."""
    shipped = request.param != 'seeing'
    path = find_model(request.param) if shipped else request.getfixturevalue('seeing')
    card = load_card(path)
    engine = ShimEngine(path, ShimDriver(library))
    gpu = DimosCuda(engine, card, compiler=lambda path, capability: b'')
    return gpu, DimosModel(engine.ort, card)


def window(rng, count, size, t0=5_000_000_000, length=100_000_000):
    x, y = (rng.integers(0, limit, count).astype(np.uint16) for limit in size[::-1])
    events = Events(
        x,
        y,
        rng.integers(0, 2, count).astype(np.uint8),
        np.sort(rng.integers(t0 + 1, t0 + length, count)),
    )
    return EventWindow(events, t0, t0 + length, *size)


def sample(frame, events, size=(120, 160)):
    """One input, its frame among shifted ones; `size` of the answer where there is no frame."""
    now = events.t1_ns if events is not None else 0
    if frame is None:
        return SyncedInput(now, '', None, events, size)
    neighbours = tuple(Frame(now + gap, np.roll(frame.image, gap // 20_000_000, 1))
                       for gap in (-120_000_000, -40_000_000, 40_000_000))
    return SyncedInput(now, '', Frame(now, frame.image), events, frame.size, neighbours=neighbours)


def detected(model, frame, events, size=(120, 160)):
    return model.detect(sample(frame, events, size), StageTimes())


def picture(rng, size):
    """Edges and areas rather than noise, so that the network says something."""
    small = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(small, size[::-1], interpolation=cv2.INTER_NEAREST)


@pytest.mark.parametrize('size', SIZES, ids=str)
def test_area_tables_are_opencv_s(size):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    rows, columns = area_axis(size[0], NET[0]), area_axis(size[1], NET[1])
    for axis in (rows, columns):
        sums = np.add.reduceat(axis.weight.astype(np.float64), axis.begin[:-1])
        np.testing.assert_allclose(sums, 1, atol=1e-6)
    dense = [
        np.zeros((len(axis.first), count)) for axis, count in ((rows, size[0]), (columns, size[1]))
    ]
    for matrix, axis in zip(dense, (rows, columns)):
        for i, first in enumerate(axis.first):
            weights = axis.weight[axis.begin[i]:axis.begin[i + 1]]
            matrix[i, first:first + len(weights)] = weights
    wanted = np.einsum('yi,ijc,xj->yxc', dense[0], image.astype(np.float64), dense[1])
    found = cv2.resize(image, NET[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(found - wanted).max() <= 0.5 + 1e-3


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 90), st.integers(1, 200), st.integers(0, 99))
def test_linear_tables_are_opencv_s(sources, size, seed):
    line = np.random.default_rng(seed).normal(size=(1, sources)).astype(np.float32)
    axis = linear_axis(sources, size)
    after = np.minimum(axis.first + 1, sources - 1)
    wanted = line[0, axis.first] * (1 - axis.part) + line[0, after] * axis.part
    np.testing.assert_allclose(
        cv2.resize(line, (size, 1), interpolation=cv2.INTER_LINEAR)[0], wanted, atol=1e-6
    )


@pytest.mark.parametrize(
    'size', [(120, 160), (240, 320), (260, 346), (480, 640), (130, 200), (100, 320)], ids=str
)
def test_input_tensors_are_the_cpu_path_s_bit_by_bit(models, size):
    gpu, cpu = models
    rng = np.random.default_rng(1)
    for count in (0, 1, 3000):
        frame = Frame(0, rng.integers(0, 256, (*size, 3)).astype(np.uint8))
        events = window(rng, count, size)
        gpu.detect(sample(frame, events), StageTimes())
        for name, wanted in cpu.inputs(sample(frame, events, size), StageTimes()).items():
            assert gpu.engine.tensors[name].tobytes() == wanted.tobytes(), name


@pytest.mark.parametrize(
    'encoding, order',
    [
        ('rgb8', (0, 1, 2)),
        ('bgr8', (2, 1, 0)),
        ('rgba8', (0, 1, 2)),
        ('bgra8', (2, 1, 0)),
        ('mono8', (0, 0, 0)),
    ],
)
@pytest.mark.parametrize('shape', [(3, 32, 0), (2, 64, 2)])
def test_image_kernel_takes_any_channel_order(library, models, encoding, order, shape):
    driver, spec = ShimDriver(library, shape), models[1].card.image
    pixel = {'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1}[encoding]
    rng = np.random.default_rng(2)
    for size in SIZES:
        # rows are padded
        data = rng.integers(0, 256, (size[0], size[1] * pixel + 5)).astype(np.uint8)
        pixels = data[:, :size[1] * pixel].reshape(*size, pixel)
        wanted = image_tensor(np.ascontiguousarray(pixels[..., order]), NET, spec)
        out = np.full(wanted.shape, np.nan, np.float32)
        launch_image(driver, out, data, pixel, order, size, spec)
        assert out.tobytes() == wanted.tobytes(), size


def launch_image(driver, out, data, pixel, order, size, spec):
    from mos_perception.models.dimos.cuda_input import AXIS
    from mos_perception.models.preprocess import image_scale
    kept = []

    def at(array):
        kept.append(np.ascontiguousarray(array))
        return np.uint64(kept[-1].ctypes.data)
    axes = []
    for sources, count in zip(size, NET):
        axis = area_axis(sources, count)
        axes.append(
            at(
                np.array(
                    [(at(axis.first), at(axis.begin), at(axis.weight), count, axis.block)], AXIS
                )
            )
        )
    scale, shift = image_scale(spec)
    driver.launch(
        None,
        'frame_image',
        (4,),
        (256,),
        [
            np.uint64(out.ctypes.data),
            at(data),
            np.int32(data.shape[1]),
            np.int32(pixel),
            at(np.array(order, np.int32)),
            at(np.ones(1, np.int32)),
            *axes,
            at(scale),
            at(shift),
        ],
        1,
    )


@pytest.mark.parametrize('frame_size', [(120, 160), (480, 640), (97, 203)], ids=str)
def test_instances_are_the_cpu_path_s(models, frame_size):
    """Through the network, and with logits that overlap, leave too little of each other, or say
    nothing.
    """
    gpu, cpu = models
    rng = np.random.default_rng(3)
    shown = 0
    for count in (0, 200, 20_000):
        frame, events = Frame(0, picture(rng, frame_size)), window(rng, count, frame_size)
        same(detected(gpu, frame, events), detected(cpu, frame, events))
    for seed in range(12):
        outputs = made_up(np.random.default_rng(seed), gpu.engine.tensors)
        for name, array in outputs.items():
            gpu.engine.tensors[name][...] = array
        gpu._masks.enqueue_quality()
        logits = {name: outputs[name] for name in ('class_logits', 'embeddings')}
        found = gpu._instances(logits, gpu._masks.quality(), frame_size)
        wanted = to_instances(outputs, gpu.size, frame_size, gpu.score_threshold, gpu.top_k)
        same(found, wanted)
        shown += len(found)
    assert shown > 30


def made_up(rng, tensors):
    """Blobs on a grid of mask logits; some nearly cover others, one is empty."""
    queries, (height, width) = tensors['mask_logits'].shape[1], tensors['mask_logits'].shape[2:]
    y, x = np.mgrid[0:height, 0:width]
    masks = np.full((1, queries, height, width), -3, np.float32)
    for q in range(1, queries):
        centre = rng.uniform(0, (height, width)) if q % 3 else (height / 2 + q / 4, width / 2)
        blob = 6 * rng.uniform(0.5, 1) - np.hypot(y - centre[0], x - centre[1])
        masks[0, q] = blob + rng.normal(0, 0.3, (height, width))
    logits = rng.normal(0, 1, (1, queries, 3)).astype(np.float32)
    logits[..., 1] += 1.5
    embeddings = rng.normal(size=tensors['embeddings'].shape).astype(np.float32)
    return {'class_logits': logits, 'mask_logits': masks, 'embeddings': embeddings}


def same(found, wanted):
    assert found.masks.shape == wanted.masks.shape and (found.masks == wanted.masks).all()
    assert found.boxes.tolist() == wanted.boxes.tolist()
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=2e-5)
    np.testing.assert_array_equal(found.embeddings, wanted.embeddings)
    np.testing.assert_array_equal(found.motion_scores, wanted.motion_scores)


def test_one_graph_serves_all_frames_and_is_made_anew_for_other_sizes(models):
    gpu, cpu = models
    driver, rng = gpu.engine.driver, np.random.default_rng(4)
    for number, (size, count) in enumerate(
        [
            ((120, 160), 100),
            ((120, 160), 9000),
            ((120, 160), 0),
            ((240, 320), 100),
            ((240, 320), (1 << 18) + 5),
            ((240, 320), 7),
        ]
    ):
        before = len(driver.launched)
        frame, events = Frame(number, picture(rng, size)), window(rng, count, size)
        same(detected(gpu, frame, events), detected(cpu, frame, events))
        # a replay launches nothing from Python
        replayed = not {'voxel_events', 'frame_quality'} & set(driver.launched[before:])
        assert replayed == (number in (1, 2, 5)), number
    assert isinstance(gpu.engine, DeviceEngine)


def test_made_in_one_thread_and_run_in_another(models):
    """As the node does: configure makes the model, the worker's thread runs it; a CUDA context
    belongs to threads.
    """
    gpu, cpu = models
    rng, size = np.random.default_rng(7), (240, 320)
    frame, events = Frame(0, picture(rng, size)), window(rng, (1 << 18) + 1, size)

    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(detected, gpu, frame, events).result()
    same(found, detected(cpu, frame, events))


def test_a_missing_input_is_zero(models):
    gpu, cpu = models
    rng = np.random.default_rng(5)
    frame, events = Frame(0, picture(rng, (120, 160))), window(rng, 500, (120, 160))
    for given_frame, given_events in (
        (frame, events),
        (None, events),
        (frame, None),
        (None, None),
        (frame, events),
    ):
        same(detected(gpu, given_frame, given_events), detected(cpu, given_frame, given_events))


def test_what_cannot_be_shown_is_an_error(models):
    gpu, _ = models
    full = 1 << 14
    events = Events(
        *(np.zeros(full, kind) for kind in (np.uint16, np.uint16, np.uint8)), np.full(full, 50)
    )
    with pytest.raises(EngineError, match='hot pixel'):
        detected(gpu, None, EventWindow(events, 0, 50, 120, 160))
    gpu.engine.tensors['mask_logits'][0, 0, 0, 0] = np.nan
    gpu._masks.enqueue_quality()
    with pytest.raises(EngineError, match='NaN or infinite'):
        gpu._masks.quality()
    with pytest.raises(EngineError, match='as_released'):
        gpu.detect(sample(None, None), StageTimes(), as_released=True)
    odd = dataclasses.replace(gpu.card, voxel=dataclasses.replace(gpu.card.voxel, normalise='std'))
    with pytest.raises(EngineError, match='on a GPU we run "max", "bin", float32'):
        DimosCuda(gpu.engine, odd, compiler=lambda path, capability: b'')


def test_without_a_compiler_auto_says_what_runs_on_the_cpu_and_a_named_backend_refuses(
    models, monkeypatch
):
    if models[0].card.id == 'seeing':
        pytest.skip('no shipped model of that name: the choice of backend is the same')
    from mos_perception.models.dimos import load
    engine = models[0].engine
    monkeypatch.setattr(load, 'load_engine', lambda *arguments: engine)
    monkeypatch.setitem(sys.modules, 'cuda.core', None)
    monkeypatch.setattr(kernels.shutil, 'which', lambda *arguments, **options: None)
    with pytest.raises(EngineError, match='nothing compiles voxel.cu for sm_87.*cuda-core'):
        load_model(Config(model=models[0].card.id, backend='tensorrt'))
    model = load_model(Config(model=models[0].card.id, backend='auto'))
    assert type(model) is DimosModel
    fallback = model.report()['fallback']
    assert 'voxels and masks on the CPU (nothing compiles voxel.cu' in fallback
    frame = Frame(0, picture(np.random.default_rng(6), (120, 160)))
    same(detected(model, frame, None), detected(models[1], frame, None))


def test_nvcc_serves_where_nvrtc_is_absent(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'cuda.core', None)
    nvcc = tmp_path / 'nvcc'
    nvcc.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done; echo code > "$2"\n')
    nvcc.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=':')
    assert kernels.compile_cubin(SOURCES['voxel'], (8, 7)) == b'code\n'
    nvcc.write_text('#!/bin/sh\necho no such architecture >&2; exit 1\n')
    with pytest.raises(
        EngineError, match='nvcc cannot compile voxel.cu for sm_87: no such architecture'
    ):
        kernels.compile_cubin(SOURCES['voxel'], (8, 7))


def test_select_queries_orders_by_score_and_counts_static_queries():
    probs = softmax(
        np.log(np.array([[0.1, 0.8, 0.1], [0.05, 0.9, 0.05], [0.6, 0.3, 0.1], [0.2, 0.25, 0.55]]))
    )
    assert select_queries(probs, lambda query: (1.0, 0.5, 1.0, 1.0)[query], 0.1, 10) == [
        (0, pytest.approx(0.8)),
        (1, pytest.approx(0.45)),
        (3, pytest.approx(0.25)),
    ]
