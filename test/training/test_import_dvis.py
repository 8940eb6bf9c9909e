"""DVIS' published checkpoints: the official modules' numbers through our networks.

`goldens/dvis.json` has names and shapes of the official modules at a small size, and what they gave
with the weights and inputs below (zhang-tao-whu/DVIS @6695214, `ReferringTracker` and
`TemporalRefiner` in evaluation mode, 2026-11-28).
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from mos_perception.engine.ort import OrtEngine
from mos_perception.errors import EngineError, UnsafeFileError
from training.import_dvis import import_dvis, load_dvis, main
from training.nets.dvis import DvisConfig

GOLDEN = json.loads((Path(__file__).parent / 'goldens' / 'dvis.json').read_text())
CONFIG = DvisConfig(**GOLDEN['config'])


def waves(shape, step, phase):
    count = int(np.prod(shape))
    return torch.sin(step * torch.arange(count, dtype=torch.float64) + phase).reshape(shape).float()


def official_state():
    state = {'backbone.stem.conv1.weight': torch.zeros(2, 3, 7, 7),
             'sem_seg_head.predictor.query_feat.weight': torch.zeros(4, 8),
             'criterion.empty_weight': torch.ones(4)}
    for part, shapes in GOLDEN['shapes'].items():
        for number, (key, shape) in enumerate(sorted(shapes.items())):
            state[f'{part}.{key}'] = 0.5 * waves(shape, 1.3, 0.7 * number + 0.3)
    return state


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / 'dvis.pth'
    torch.save({'model': official_state(), 'iteration': 7}, path)
    return path


def followed(tracker, queries):
    """Slots (T, Q, C) of frames (T, Q, C): the Hungarian on the cosine of the matched queries. As
    the official code has it the order is the inverse of the matching, which differs from it where
    three or more go round.
    """
    slots, matched = [tracker(queries[:1], queries[:1], None)[-1]], queries[0]
    for now in queries[1:]:
        cosine = torch.nn.functional.cosine_similarity(matched[:, None], now[None], dim=-1)
        matched = now[linear_sum_assignment(cosine.numpy().T, maximize=True)[1]]
        slots.append(tracker(matched[None], now[None], slots[-1])[-1])
    return torch.cat(slots)


def test_numbers_are_the_official_ones(checkpoint):
    networks = load_dvis(checkpoint, CONFIG)
    queries = waves((1, 8, 3, 4), 2.1, 0.5)[0].permute(1, 2, 0)
    features = waves((1, 3, 4, 2, 2), 2.1, 0.9)[0]
    with torch.no_grad():
        slots = followed(networks['tracker'], queries)
        # the official refiner takes them normed, as the official tracker gives them
        normed = networks['tracker'].heads.norm(slots)
        refined = networks['refiner'](normed[None], queries[None])[-1]
        found = {'tracker': (slots[None], networks['tracker']),
                 'refiner': (refined, networks['refiner'])}
        for part, (values, network) in found.items():
            golden = {name: np.array(value) for name, value in GOLDEN[part].items()}
            classes, masks = network.read(values)
            own = network.heads.norm(values)[0].permute(2, 0, 1)
            np.testing.assert_allclose(own, golden['slots'], atol=2e-5)
            logits = torch.einsum('tqd,tdhw->qthw', masks[0], features)
            np.testing.assert_allclose(logits, golden['masks'], atol=2e-5)
            expected = golden['logits'].reshape(classes[0].shape[:-1] + (-1,)) if (
                part == 'tracker') else golden['logits'][0]
            np.testing.assert_allclose(classes[0], expected, atol=2e-5)


def test_what_does_not_fit_is_refused_by_name(checkpoint, tmp_path, capsys):
    def saved(state):
        torch.save(state, tmp_path / 'other.pth')
        return tmp_path / 'other.pth'

    state = official_state()
    with pytest.raises(EngineError, match='no key that begins with "tracker.": .*backbone'):
        load_dvis(saved({key: value for key, value in state.items() if 'tracker' not in key}),
                  CONFIG)
    with pytest.raises(EngineError, match='keys of no DVIS: slot_attention.k: is it'):
        load_dvis(saved(state | {'slot_attention.k': torch.ones(1)}), CONFIG)
    del state['tracker.decoder_norm.weight']
    with pytest.raises(EngineError, match=r'\(tracker\) does not fit .*missing heads.norm.weight; '
                                          r'extra ref_proj.layers.0.weight'):
        load_dvis(saved(state | {'tracker.ref_proj.layers.0.weight': torch.ones(1)}), CONFIG)
    with pytest.raises(EngineError, match=r'is \(8,\), must be \(256,\)'):
        load_dvis(checkpoint, DvisConfig())
    torch.save({'model': torch.nn.Linear(1, 1)}, tmp_path / 'code.pth')
    with pytest.raises(UnsafeFileError):
        load_dvis(tmp_path / 'code.pth', CONFIG)
    assert main(['--checkpoint', str(checkpoint), '--out', str(tmp_path / 'out')]) == 1
    assert capsys.readouterr().err.startswith('mos import dvis: ')
    assert not (tmp_path / 'out').exists()


def test_an_online_checkpoint_becomes_graphs(tmp_path):
    torch.save({key: value for key, value in official_state().items() if 'refiner' not in key},
               tmp_path / 'online.pth')
    out = tmp_path / 'models'
    paths = import_dvis(tmp_path / 'online.pth', CONFIG, 4, 3, out)
    assert [path.name for path in paths] == [
        'dvis_tracker.safetensors', 'dvis_tracker.onnx', 'dvis_tracker_first.onnx',
        'dvis_tracker.json', 'dvis_tracker_first.json']
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in paths)
    engine = OrtEngine(out / 'dvis_tracker.onnx', 1)
    values = np.ones((1, 4, 8), np.float32)
    found = engine.run({'initial': values, 'queries': values, 'reference': values})
    assert {name: value.shape for name, value in found.items()} == {
        'slots': (1, 4, 8), 'classes': (1, 4, 4), 'masks': (1, 4, 4)}
    card = json.loads((out / 'dvis_tracker.json').read_text())
    assert card['architecture'] == 'dvis' and 'non-commercial' in card['licence']
