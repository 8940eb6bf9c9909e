"""Graphs of fixed shapes: weights too large for one file lie beside it, under the card's sha256."""

import pytest
import torch
from torch import nn

from mos_perception.engine.card import ImageSpec, check, data_file, load_card, sha256_of
from mos_perception.engine.ort import OrtEngine
from mos_perception.errors import EngineError
from training import static_graphs


@pytest.fixture()
def graph():
    torch.manual_seed(0)
    return static_graphs.Graph(nn.Linear(64, 64), {'x': torch.randn(1, 64)}, ('y',),
                               ImageSpec((0.0,) * 3, (1.0,) * 3))


def test_weights_too_large_for_one_file_lie_beside_it(graph, monkeypatch, tmp_path):
    monkeypatch.setattr(static_graphs, '_ONE_FILE', 1000)
    staged, out = tmp_path / 'staged', tmp_path / 'out'
    staged.mkdir()
    out.mkdir()
    static_graphs.write_graph(graph, staged / 'big.onnx')
    static_graphs.write_card(graph, staged / 'big.onnx', 'none', {})
    written = static_graphs.move_in(staged, out)
    assert [path.name for path in written] == ['big.onnx.data', 'big.onnx', 'big.json']
    path = out / 'big.onnx'
    data = data_file(path)
    card, engine = load_card(path), OrtEngine(path, 1)
    check(card, engine)
    assert card.data_sha256 == sha256_of(data) and data.stat().st_size >= 64 * 64 * 4
    found = engine.run({'x': graph.inputs['x'].numpy()})['y']
    torch.testing.assert_close(torch.from_numpy(found), graph.module(graph.inputs['x']).detach())
    data.write_bytes(bytes(data.stat().st_size))
    with pytest.raises(EngineError, match='big.onnx.data has sha256'):
        load_card(path)


def test_a_graph_that_differs_from_torch_is_refused(graph, monkeypatch, tmp_path):
    monkeypatch.setattr(static_graphs, 'TOLERANCE', -1.0)
    with pytest.raises(EngineError, match='torch and ONNX Runtime differ by'):
        static_graphs.write_graph(graph, tmp_path / 'wrong.onnx')
