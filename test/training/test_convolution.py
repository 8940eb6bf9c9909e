"""Strided 1x1 convolutions: none that oneDNN's gradient breaks on, in a recipe or test network."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from training.nets.convolution import StridedPointwise
from training.nets.dimos import Dimos
from training.nets.dimos_config import DimosConfig
from training.nets.gmos_nano import GmosNano, GmosNanoConfig
from training.recipes import RECIPES, Recipe

HERE = Path(__file__).parent
NETWORKS = {DimosConfig: Dimos, GmosNanoConfig: GmosNano}


def configurations():
    """Of every recipe, and of every network or recipe that a test file here names."""
    found = {name: recipe.net for name, recipe in RECIPES.items()} | {'gmos': GmosNanoConfig()}
    for path in sorted(HERE.glob('test_*.py')):
        if path == Path(__file__):
            continue
        spec = importlib.util.spec_from_file_location(f'looked_at_{path.stem}', path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, value in vars(module).items():
            if isinstance(value, Recipe):
                value = value.net
            if type(value) in NETWORKS:
                found[f'{path.stem}.{name}'] = value
    return found


@pytest.mark.parametrize('config', [pytest.param(config, id=name)
                                    for name, config in configurations().items()])
def test_no_network_has_a_plain_strided_pointwise_convolution(config):
    with torch.device('meta'):
        network = NETWORKS[type(config)](config)
    plain = [name for name, layer in network.named_modules()
             if isinstance(layer, nn.Conv2d) and not isinstance(layer, StridedPointwise)
             and layer.kernel_size == (1, 1) and max(layer.stride) > 1]
    assert not plain


def test_all_test_networks_are_looked_at():
    assert {'test_ablate.NET', 'test_nets.TINY', 'test_train.NET'} <= set(configurations())


@pytest.mark.parametrize('size', [(7, 9), (8, 12)])
def test_it_computes_what_a_plain_convolution_does(size):
    torch.manual_seed(0)
    ours, plain = StridedPointwise(5, 7, 2), nn.Conv2d(5, 7, 1, 2, bias=False)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, *size)
    for training in (True, False):
        torch.testing.assert_close(ours.train(training)(x), plain(x))


def test_gradient_of_few_channels_survives_channels_last():
    """The reproducer of the oneDNN issue, through our layer."""
    layer = StridedPointwise(4, 8, 2)
    x = torch.randn(4, 4, 32, 48).to(memory_format=torch.channels_last)
    for _ in range(200):
        layer(x).sum().backward()
    assert torch.isfinite(layer.weight.grad).all()
