"""DIMOS' released checkpoints: the official code's numbers through our network.

`goldens/dimos.json` has the names and shapes of the official class, and what it gave with the
weights and inputs below (its repository @99b2976, mmdet 3.3.0, 2026-11-28).
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mos_perception.errors import EngineError
from training import import_dimos
from training.nets.dimos_config import RELEASED
from training.parity import seeded, weight

GOLDEN = json.loads((Path(__file__).parent / 'goldens' / 'dimos.json').read_text())
SIZE = (96, 128)


def official_state():
    """Every key of the official class in training, of seeded values."""
    state = {}
    for key, shape in GOLDEN['keys'].items():
        if key.endswith('num_batches_tracked'):
            state[key] = torch.tensor(0)
            continue
        value = weight(tuple(shape), 0, key)
        state[key] = value.abs() + 0.5 if key.endswith('running_var') else value
    return state


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('dimos') / 'dimos.pth'
    torch.save({'state_dict': official_state(), 'last_epoch': 3}, path)
    return path


@torch.no_grad()
def test_numbers_are_the_official_codes(checkpoint):
    network = import_dimos.load_dimos(checkpoint, replace(RELEASED, size=SIZE, queries=50))
    assert network.config.queries == 10  # as in the file
    image = seeded((1, 3, *SIZE), 1, 'image').double()
    voxel = seeded((1, 10, *SIZE), 1, 'voxel').clamp(min=0).double()
    found = network.double().infer(image, voxel * (seeded((1, 1, *SIZE), 1, 'mask') > 0.5))
    for value, (name, wanted) in zip(found, GOLDEN['outputs'].items()):
        at = torch.linspace(0, value.numel() - 1, len(wanted)).long()
        # ours is exact here; the official float32 numbers are as far as 7e-4 from what float64
        # gives, and so is float32 of another CPU
        torch.testing.assert_close(value.flatten()[at], torch.tensor(wanted).double(), atol=1e-3,
                                   rtol=0, msg=lambda text, name=name: name + text)


def test_what_does_not_fit_is_named_and_nothing_is_written(tmp_path, capsys):
    state = {'query_embed.weight': torch.zeros(10, 256),
             'mask_decoder.query_embed.weight': torch.zeros(10, 256)}
    torch.save(state, tmp_path / 'other.pth')
    code = import_dimos.main(['--checkpoint', str(tmp_path / 'other.pth'), '--out',
                              str(tmp_path / 'out')])
    told = capsys.readouterr().err
    assert code == 1 and not (tmp_path / 'out').exists()
    assert 'missing event_appearance.bn1.bias' in told and 'extra query_embed.weight' in told
    with pytest.raises(EngineError, match='does not exist'):
        import_dimos.load_dimos(tmp_path / 'none.pth', RELEASED)
