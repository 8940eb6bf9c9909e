"""GMOS, GMOS-S and Pi3's trunk: the published sizes and keys, and the official code's numbers.

`goldens/gmos.json` comes from the official code: see `training.parity`.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_perception.errors import ConfigError
from training.nets.gmos import GmosProposer
from training.nets.gmos_fusion import GmosConfig
from training.nets.gmos_s import GmosS
from training.nets.pi3 import Pi3Config, Pi3Trunk
from training.nets.rope2d import rope_table, rotate
from training.parity import (
    TINY,
    TINY_PI3,
    TOLERANCE,
    digest,
    fill,
    head_inputs,
    ours,
    summary,
    window,
)

GOLDENS = Path(__file__).parent / 'goldens'
PUBLISHED = {'gmos': (lambda: GmosProposer(GmosConfig()), 9_911_941, 211),
             'gmos_s': (lambda: GmosS(GmosConfig()), 4_743_939, 80),
             'pi3': (lambda: Pi3Trunk(Pi3Config()), 757_923_840, 994)}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize('name', PUBLISHED)
def test_sizes_and_keys_are_the_published_ones(name):
    make, parameters, keys = PUBLISHED[name]
    with torch.device('meta'):
        network = make()
    assert sum(value.numel() for value in network.parameters()) == parameters
    golden = json.loads((GOLDENS / 'gmos.json').read_text())['keys'][name]
    assert digest(network.state_dict()) == golden
    assert golden['keys'] == keys


@pytest.mark.parametrize('name', ['gmos_tiny', 'gmos_s_tiny', 'pi3_tiny'])
def test_outputs_are_those_of_the_official_code(name):
    golden = json.loads((GOLDENS / 'gmos.json').read_text())[name]
    found, _ = ours(name)
    assert found.keys() == golden.keys()
    for key, value in found.items():
        got, wanted = summary(value), golden[key]
        assert got['shape'] == wanted['shape']
        torch.testing.assert_close(torch.tensor(got['samples']), torch.tensor(wanted['samples']),
                                   atol=TOLERANCE, rtol=0)
        assert got['mean'] == pytest.approx(wanted['mean'], abs=TOLERANCE)
        assert got['std'] == pytest.approx(wanted['std'], abs=TOLERANCE)


@torch.no_grad()
def test_confidence_is_bounded_and_a_still_query_is_pushed_down():
    network = GmosProposer(replace(TINY, grid=8)).eval()
    fill(network, 1)
    inputs = head_inputs(network.config)
    network.motion_weight.fill_(100.0)
    network.motion_bias.fill_(1.0)
    pushed = network(*inputs)
    network.motion_weight.zero_()
    plain = network(*inputs)
    assert ((plain['quality'][..., 1] > 1) & (plain['quality'][..., 1] < 5)).all()
    shift = 100 * (plain['motion_logits'].sigmoid() - 1)
    torch.testing.assert_close(
        pushed['mask_logits'] - plain['mask_logits'],
        shift[..., None, None].expand_as(plain['mask_logits']), atol=1e-3, rtol=0)


@torch.no_grad()
def test_the_trunk_does_not_care_for_the_order_of_frames():
    network = Pi3Trunk(TINY_PI3).eval()
    fill(network, 2)
    order = torch.tensor([3, 0, 4, 2, 1])
    frames = window(TINY_PI3)
    torch.testing.assert_close(network(frames[:, order]), network(frames)[:, order],
                               atol=1e-4, rtol=0)


@torch.no_grad()
def test_position_table_at_the_trained_size_is_the_embedding_and_fixing_it_changes_nothing():
    network = Pi3Trunk(replace(TINY_PI3, size=(56, 56), trained_grid=4)).encoder.eval()
    fill(network, 3)
    torch.testing.assert_close(network.position_table(), network.pos_embed.data)
    image = torch.randn(1, 3, 56, 56)
    before = network(image)
    network.fix_positions()
    assert torch.equal(network(image), before)
    assert 'fixed_positions' not in network.state_dict()


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.integers(0, 60)] * 4), st.tuples(*[st.integers(0, 20)] * 2),
       st.sampled_from([4, 8, 32]), st.integers(0, 2**31))
def test_rotation_keeps_lengths_and_sees_differences_of_places_alone(places, shift, width, seed):
    rng = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, 1, width, generator=rng).double()
    positions = torch.tensor(places).reshape(2, 1, 2)
    products = []
    for offset in (torch.zeros(2), torch.tensor(shift)):
        tables = [rope_table(place + offset, width, 56.25).double() for place in positions]
        turned = rotate(query, tables[0]), rotate(key, tables[1])
        torch.testing.assert_close(turned[0].norm(), query.norm(), atol=1e-5, rtol=0)
        products.append((turned[0] * turned[1]).sum())
    torch.testing.assert_close(products[0], products[1], atol=1e-3, rtol=0)


@pytest.mark.parametrize('changes, words', [({'size': (378, 670)}, 'multiples of 14'),
                                            ({'size': (0, 14)}, 'multiples of 14'),
                                            ({'width': 100, 'heads': 8}, 'multiple of 4')])
def test_sizes_that_do_not_divide_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        replace(Pi3Config(), **changes)
