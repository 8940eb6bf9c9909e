"""Model cards: round trip, every way to be wrong, and the check against the graph."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_perception.engine import card as cards
from mos_perception.engine import model_files
from mos_perception.engine.card import (
    ImageSpec,
    ModelCard,
    PostprocessSpec,
    VoxelSpec,
    WindowSpec,
    check,
    load_card,
    save_card,
    sha256_of,
)
from mos_perception.engine.interface import TensorSpec
from mos_perception.engine.model_files import find_model
from mos_perception.errors import EngineError

# sha256('abc'), FIPS 180-2 appendix B.1
ABC = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'


def make_card(**changes) -> ModelCard:
    card = ModelCard(
        'tiny',
        'dimos',
        'tiny.onnx',
        ABC,
        (TensorSpec('x', (1, 3), 'float32'),),
        (TensorSpec('y', (1, None), 'float32'),),
        ImageSpec((0.4, 0.5, 0.6), (0.2, 0.2, 0.2)),
        VoxelSpec('dimos', 5, 'max', 1.0, 'bin'),
        WindowSpec('before', 33.0),
        PostprocessSpec(7, 0.1),
        {'steps': 3},
        {'mIoU_ins': 0.5},
        'Apache-2.0',
    )
    return dataclasses.replace(card, **changes)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model file with its card."""
    path = tmp_path / 'tiny.onnx'
    path.write_bytes(b'abc')
    save_card(make_card(), path)
    return path


def test_round_trip(model):
    assert load_card(model) == make_card()
    assert [path.name for path in sorted(model.parent.iterdir())] == ['tiny.json', 'tiny.onnx']
    assert sha256_of(model) == ABC


def test_tampered_model_is_refused(model):
    model.write_bytes(b'abd')
    with pytest.raises(EngineError, match=f'sha256 .*its card says {ABC}'):
        load_card(model)


def test_weights_beside_the_graph_are_verified_too(model):
    data = model.with_name('tiny.onnx.data')
    data.write_bytes(b'abc')
    save_card(make_card(data_sha256=ABC), model)
    assert load_card(model).data_sha256 == ABC
    data.write_bytes(b'abd')
    with pytest.raises(EngineError, match=f'tiny.onnx.data has sha256 .*its card says {ABC}'):
        load_card(model)
    data.unlink()
    with pytest.raises(EngineError, match='tiny.onnx.data cannot be read'):
        load_card(model)


def edit(model: Path, change) -> None:
    path = model.with_suffix('.json')
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize('change, words', [
    (lambda v: v.pop('voxel'), 'missing voxel'),
    (lambda v: v.update(licens='x'), "unknown key 'licens'; did you mean 'licence'"),
    (lambda v: v['window'].update(side='around'), "window.side is 'around'"),
    (lambda v: v['window'].update(length_ms=0), 'window.length_ms is 0'),
    (lambda v: v['window'].update(length_ms=True), 'must be a number'),
    (lambda v: v['image'].update(std=[1, 0, 1]), 'image.std'),
    (lambda v: v['image'].update(mean=[1, 1]), 'three numbers'),
    (lambda v: v['image'].update(mean='abc'), 'must be a list'),
    (lambda v: v['voxel'].update(bins=2.5), 'a whole number'),
    (lambda v: v['inputs'][0].update(shape=[1, 'x']), 'list of whole numbers'),
    (lambda v: v['inputs'][0].pop('dtype'), r'inputs\[0\]: missing dtype'),
    (lambda v: v.update(inputs=[3]), r'inputs\[0\]: must be a JSON object'),
    (lambda v: v.update(sha256='12'), '64 lower-case hex'),
    (lambda v: v.update(data_sha256='12'), 'data_sha256 .* 64 lower-case hex'),
    (lambda v: v.update(data_sha256=12), 'data_sha256 is 12: must be text'),
    (lambda v: v.update(id=None), 'must be text'),
    (lambda v: v['postprocess'].update(top_k=0), 'top_k')])
def test_wrong_cards_name_the_key(model, change, words):
    edit(model, change)
    with pytest.raises(EngineError, match=words):
        load_card(model)


def test_unreadable_cards(model):
    card = model.with_suffix('.json')
    for data, words in (
        (b'{"id": ', 'not JSON'),
        (b'\xff\xfe', 'cannot be read'),
        (b'[]', 'must be a JSON object'),
    ):
        card.write_bytes(data)
        with pytest.raises(EngineError, match=words):
            load_card(model)
    card.unlink()
    with pytest.raises(EngineError, match='needs its card beside it'):
        load_card(model)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(sorted(field.name for field in dataclasses.fields(ModelCard)))
                | st.text(),
                inner,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_refused_cleanly(values):
    with pytest.raises(EngineError):
        cards.build_card(ModelCard, values, 'fuzz')


def test_check_lists_both_sides():
    def engine(inputs, outputs):
        return SimpleNamespace(inputs=inputs, outputs=outputs)

    y = (TensorSpec('y', (1, 9), 'float32'),)
    check(make_card(), engine((TensorSpec('x', (None, 3), 'float32'),), y))
    for wrong in ((TensorSpec('x', (1, 4), 'float32'),), (TensorSpec('x', (1, 3), 'float16'),),
                  (TensorSpec('w', (1, 3), 'float32'),), make_card().inputs + y, ()):
        with pytest.raises(EngineError, match='inputs differ; card: x float32 1x3; graph: '):
            check(make_card(), engine(wrong, y))
    with pytest.raises(
        EngineError, match=r'outputs differ; card: y float32 1x\?; graph: y float32 1:'
    ):
        check(make_card(), engine(make_card().inputs, (TensorSpec('y', (1,), 'float32'),)))


def test_find_model(model, monkeypatch):
    monkeypatch.setattr(model_files, '_model_folders',
                        lambda: [model.parent / 'absent', model.parent])
    assert find_model('tiny') == find_model(str(model)) == model
    with pytest.raises(EngineError, match="did you mean 'tiny'"):
        find_model('tinny')
    with pytest.raises(EngineError, match='known models: tiny'):
        find_model('')
    with pytest.raises(EngineError, match='does not exist'):
        find_model('some/where.onnx')
