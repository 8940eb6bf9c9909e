"""DIMOS pre- and post-processing against a slow oracle written from the description."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mos_perception.config import Config
from mos_perception.datatypes import Events, EventWindow, Frame, SyncedInput
from mos_perception.engine.card import (
    ImageSpec,
    ModelCard,
    PostprocessSpec,
    VoxelSpec,
    WindowSpec,
    save_card,
    sha256_of,
)
from mos_perception.engine.interface import TensorSpec
from mos_perception.errors import EngineError
from mos_perception.models import load_model
from mos_perception.models.dimos.model import DimosModel
from mos_perception.models.dimos.postprocess import MIN_VISIBLE, to_instances
from mos_perception.models.preprocess import image_tensor
from mos_perception.stages import StageTimes

NET, FRAME = (24, 32), (48, 64)
Q, K = 5, 4


def bilinear(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Half-pixel bilinear, edges clamped, in float64 (torch's align_corners=False)."""
    axes = []
    for count, target in zip(logits.shape, size):
        place = np.clip((np.arange(target) + 0.5) * count / target - 0.5, 0, count - 1)
        low = np.minimum(place.astype(int), max(count - 2, 0))
        weights = np.zeros((target, count))
        weights[np.arange(target), low] = 1 - (place - low)
        weights[np.arange(target), np.minimum(low + 1, count - 1)] += place - low
        axes.append(weights)
    return axes[0] @ logits.astype(np.float64) @ axes[1].T


def oracle(outputs, theta, as_released):
    """(query of each kept pixel + 1 (H, W), {query: score}) by the letter."""
    logits = outputs['class_logits'][0].astype(np.float64)
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    entries = sorted(((probs[q, c], q, c) for q in range(Q) for c in (0, 1)), key=lambda e: -e[0])[
        :K
    ]
    kept = []
    for prob, q, label in entries:
        up = bilinear(outputs['mask_logits'][0, q], NET)
        inside = up > 0
        score = prob * (1 / (1 + np.exp(-up[inside]))).mean() if inside.any() else 0
        if label == 1 and score > theta and (as_released or probs[q, 0] <= probs[q, 1]):
            kept.append((score, q))
    image, taken = np.zeros(FRAME, int), np.zeros(FRAME, bool)
    for score, q in list(kept) if as_released else sorted(kept, reverse=True):
        mask = bilinear(outputs['mask_logits'][0, q], FRAME) > 0
        if as_released:  # later ones overwrite
            image[mask] = q + 1
            continue
        visible = np.count_nonzero(mask & ~taken) / max(np.count_nonzero(mask), 1)
        assume(abs(visible - MIN_VISIBLE) > 0.02)  # float32 may fall on either side
        if visible < MIN_VISIBLE:  # a second find of what better ones cover
            kept.remove((score, q))
            continue
        image[mask & ~taken] = q + 1
        taken |= mask
    return image, {q: score for score, q in kept}


def random_outputs(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        'class_logits': rng.normal(0, 2, (1, Q, 3)).astype(np.float32),
        'mask_logits': rng.normal(-0.5, 2, (1, Q, 6, 8)).astype(np.float32),
        'boxes': np.zeros((1, Q, 4), np.float32),
        'embeddings': rng.normal(0, 1, (1, Q, 4)).astype(np.float32),
    }


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.1, 0.5]), st.booleans())
def test_equals_the_oracle(seed, theta, as_released):
    outputs = random_outputs(seed)
    image, scores = oracle(outputs, theta, as_released)

    found = to_instances(outputs, NET, FRAME, theta, K, as_released)

    queries = [
        int(np.flatnonzero((outputs['embeddings'][0] == row).all(1))[0]) for row in found.embeddings
    ]
    # float32 at the zero crossing
    assert np.count_nonzero(found.id_image(np.array(queries, int) + 1) != image) <= 2
    assert set(np.unique(image)) - {0} <= {q + 1 for q in queries}
    assert found.scores == pytest.approx([scores[q] for q in queries], abs=1e-5)
    assert (
        found.masks.sum(0).max(initial=0) <= 1 and found.masks.dtype == bool and found.moving.all()
    )
    if not as_released:
        assert (np.diff(found.scores) <= 0).all() and (found.motion_scores >= 0.5).all()
    for mask, box in zip(found.masks, found.boxes):
        y, x = np.nonzero(mask)
        assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def one_query(static: float, moving: float, nothing: float) -> dict[str, np.ndarray]:
    return {
        'class_logits': np.log([[[static, moving, nothing]]]).astype(np.float32),
        'mask_logits': np.full((1, 1, 6, 8), 20, np.float32),
        'boxes': np.zeros((1, 1, 4), np.float32),
        'embeddings': np.ones((1, 1, 4), np.float32),
    }


def test_scores_by_hand():
    found = to_instances(one_query(0.1, 0.3, 0.6), NET, FRAME, 0.1, K)
    assert found.scores == pytest.approx([0.3], abs=1e-4) and found.motion_scores == pytest.approx(
        [0.75], abs=1e-4
    )
    assert found.boxes.tolist() == [[0, 0, 64, 48]]
    assert len(to_instances(one_query(0.1, 0.3, 0.6), NET, FRAME, 0.31, K)) == 0
    assert len(to_instances(one_query(0.4, 0.3, 0.3), NET, FRAME, 0.1, K)) == 0
    assert len(to_instances(one_query(0.4, 0.3, 0.3), NET, FRAME, 0.1, K, as_released=True)) == 1


def test_background_takes_a_slot():
    outputs = {name: np.repeat(array, 2, 1) for name, array in one_query(0.1, 0.3, 0.6).items()}
    outputs['class_logits'][0, 0] = np.log([0.9, 0.05, 0.05])
    assert len(to_instances(outputs, NET, FRAME, 0.1, 1)) == 0
    assert len(to_instances(outputs, NET, FRAME, 0.1, 2)) == 1


def test_nothing_found_keeps_shapes():
    outputs = random_outputs(0) | {'mask_logits': np.full((1, Q, 6, 8), -5, np.float32)}
    found = to_instances(outputs, NET, FRAME, 0.0, K)
    assert len(found) == 0 and found.size == FRAME and found.embeddings.shape == (0, 4)


@pytest.mark.parametrize('name', ['class_logits', 'mask_logits', 'embeddings'])
@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_not_finite_is_an_error(name, bad):
    outputs = random_outputs(1)
    outputs[name].flat[3] = bad
    with pytest.raises(EngineError, match=f'output {name} has 1 of .* NaN or infinite'):
        to_instances(outputs, NET, FRAME, 0.1, K)
    with pytest.raises(EngineError, match=f'output {name} is missing'):
        to_instances(
            {key: value for key, value in outputs.items() if key != name}, NET, FRAME, 0.1, K
        )


SPEC = ImageSpec((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_image_tensor():
    image = np.random.default_rng(0).integers(0, 256, (*FRAME, 3), np.uint8)
    got = image_tensor(image, NET, SPEC)
    area = image.reshape(24, 2, 32, 2, 3).astype(np.float64).mean((1, 3)).round()
    want = ((area / 255 - SPEC.mean) / SPEC.std).transpose(2, 0, 1)
    assert got.dtype == np.float32 and got.flags.c_contiguous and got.shape == (3, *NET)
    # uint8 area means may round half either way
    assert np.abs(got - want).max() <= 1.01 / 255 / 0.224
    same = image_tensor(image, FRAME, SPEC)
    assert same == pytest.approx(
        ((image / 255 - SPEC.mean) / SPEC.std).transpose(2, 0, 1), abs=1e-5
    )
    assert image_tensor(image, (96, 128), SPEC).shape == (3, 96, 128)


def make_model(**changes) -> DimosModel:
    tensors = {
        'image': (1, 3, *NET),
        'voxel': (1, 10, *NET),
        'class_logits': (1, Q, 3),
        'mask_logits': (1, Q, 6, 8),
        'boxes': (1, Q, 4),
        'embeddings': (1, Q, 4),
    } | changes
    specs = [TensorSpec(name, shape, 'float32') for name, shape in tensors.items()]
    inputs, outputs = tuple(specs[:2]), tuple(specs[2:])
    card = ModelCard(
        'tiny',
        'dimos',
        'tiny.onnx',
        '0' * 64,
        inputs,
        outputs,
        SPEC,
        VoxelSpec('dimos', 5, 'max', 1.0, 'bin'),
        WindowSpec('before', 33.0),
        PostprocessSpec(K, 0.2),
        {},
        {},
        'Apache-2.0',
    )
    return DimosModel(SimpleNamespace(inputs=inputs, outputs=outputs), card)


def test_model_inputs():
    model = make_model()
    events = Events(
        np.array([3, 63], np.uint16),
        np.array([5, 47], np.uint16),
        np.array([1, 0], np.uint8),
        np.array([10, 20], np.int64),
    )
    window = EventWindow(events, 0, 100, *FRAME)

    def inputs_of(frame, window):
        return model.inputs(SyncedInput(0, '', frame, window, FRAME), StageTimes())
    inputs = inputs_of(Frame(0, np.zeros((*FRAME, 3), np.uint8)), window)
    assert inputs['image'].shape == (1, 3, *NET) and inputs['voxel'].shape == (1, 10, *NET)
    assert inputs['voxel'][0, :5, 2, 1].sum() > 0 and inputs['voxel'][0, 5:, 23, 31].sum() > 0
    nothing = inputs_of(None, None)
    assert (
        not nothing['image'].any()
        and not nothing['voxel'].any()
        and nothing['voxel'].dtype == np.float32
    )
    empty = EventWindow(Events.empty(), 0, 100, *FRAME)
    assert not inputs_of(None, empty)['voxel'].any()


def test_thresholds_come_from_card_or_parameters():
    model = make_model()
    model.engine.run = lambda inputs: one_query(0.1, 0.15, 0.75)

    def found() -> int:
        return len(model.detect(SyncedInput.nothing(FRAME), StageTimes()))
    assert (model.score_threshold, model.top_k) == (0.2, K) and found() == 0
    model.configure(Config(score_threshold=0.1, top_k=1))
    assert (model.score_threshold, model.top_k) == (0.1, 1) and found() == 1
    model.configure(Config(score_threshold=0.1))
    assert model.top_k == K and found() == 1
    model.configure(Config())
    assert model.score_threshold == 0.2


def test_detect_books_its_stages():
    model, stages = make_model(), StageTimes()
    model.engine.run = lambda inputs: random_outputs(2)
    model.detect(SyncedInput.nothing(FRAME), stages)
    assert list(stages) == ['voxel', 'pre', 'engine', 'post'] and min(stages.values()) >= 0


@pytest.mark.parametrize('changes, words', [
    ({'voxel': (1, 6, *NET)}, r'\(1, 10, H, W\)'), ({'image': (1, 3, 24, 33)}, 'one fixed size'),
    ({'image': (1, 3, None, None)}, 'one fixed size'), ({'flow': (1, 2, *NET)}, 'tensors are')])
def test_graphs_that_are_not_dimos(changes, words):
    with pytest.raises(EngineError, match=words):
        make_model(**changes)


@pytest.fixture
def onnx_model(tmp_path):
    """A DIMOS-shaped graph that always answers `random_outputs(3)`, with its card."""
    path, answers = tmp_path / 'tiny.onnx', random_outputs(3)
    shapes = {'image': (1, 3, *NET), 'voxel': (1, 10, *NET)} | {
        name: array.shape for name, array in answers.items()
    }
    info = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    ]
    graph = helper.make_graph(
        [helper.make_node('Identity', [f'{name}_value'], [name]) for name in answers],
        'tiny',
        info[:2],
        info[2:],
        [numpy_helper.from_array(array, f'{name}_value') for name, array in answers.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8), path
    )
    card = dataclasses.replace(make_model().card, sha256=sha256_of(path))
    save_card(card, path)
    return path, card


def test_load_model_runs_the_whole_room(onnx_model):
    path, _ = onnx_model
    model = load_model(Config(model=str(path), score_threshold=0.05, threads=1))
    found = model.detect(SyncedInput.nothing(FRAME), StageTimes())
    want = to_instances(random_outputs(3), NET, FRAME, 0.05, K)
    assert (
        len(found) > 0
        and (found.masks == want.masks).all()
        and found.scores.tolist() == want.scores.tolist()
    )


def test_load_model_refuses_what_it_cannot_run(onnx_model):
    path, card = onnx_model
    save_card(dataclasses.replace(card, architecture='other'), path)
    with pytest.raises(EngineError, match="architecture is 'other'"):
        load_model(Config(model=str(path)))
    save_card(dataclasses.replace(card, outputs=card.outputs[:-1]), path)
    with pytest.raises(EngineError, match='outputs differ; card: .*; graph: .*embeddings'):
        load_model(Config(model=str(path)))
