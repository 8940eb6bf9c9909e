"""1x1 convolutions with a stride: none may reach oneDNN's weight gradient, which overruns where they are narrow."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from training.nets.backbone import StridedPointwise
from training.nets.dimos import Dimos, DimosConfig
from training.recipes import RECIPES, Recipe

NARROW = 16  # input channels: the greater of the two limits (AVX-512; 8 on AVX2)


def configurations():
    """Every recipe's network, and those of all constants in this folder's test modules."""
    found = {f'recipe {name}': recipe.net for name, recipe in RECIPES.items()}
    folder = Path(__file__).parent
    sys.path.insert(0, str(folder))
    try:
        for path in sorted(folder.glob('test_*.py')):
            for name, value in vars(importlib.import_module(path.stem)).items():
                net = value.net if isinstance(value, Recipe) else value
                if isinstance(net, DimosConfig):
                    found[f'{path.name} {name}'] = net
    finally:
        sys.path.remove(str(folder))
    return found


def dangerous(module):
    """Names of the narrow strided 1x1 layers that would run as they are in training."""
    return [name for name, layer in module.named_modules()
            if isinstance(layer, torch.nn.Conv2d) and not isinstance(layer, StridedPointwise)
            and layer.kernel_size == (1, 1) and max(layer.stride) > 1 and layer.in_channels // layer.groups < NARROW]


def test_no_network_has_a_narrow_strided_pointwise_layer():
    found = configurations()
    assert len(found) > len(RECIPES) + 6
    for name, config in found.items():
        with torch.device('meta'):
            assert not dangerous(Dimos(config)), name
    with torch.device('meta'):
        assert dangerous(torch.nn.Sequential(torch.nn.Conv2d(8, 8, 1, 2))) == ['0']


@pytest.mark.parametrize('stride, size', [(1, (6, 7)), (2, (6, 7)), (2, (7, 8)), (3, (5, 11))])
def test_training_and_inference_are_the_strided_convolution(stride, size):
    torch.manual_seed(0)
    layer = StridedPointwise(4, 8, stride).double()
    x = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
    wanted = F.conv2d(x, layer.weight, stride=stride)
    weight = torch.einsum('bohw,bchw->oc', torch.ones_like(wanted), x[:, :, ::stride, ::stride])
    torch.testing.assert_close(layer.eval()(x), wanted)
    out = layer.train()(x)
    torch.testing.assert_close(out, wanted)
    out.sum().backward()
    torch.testing.assert_close(layer.weight.grad[:, :, 0, 0], weight.detach())
    assert dict(layer.state_dict()).keys() == {'weight'}


def test_a_narrow_layer_s_weight_gradient_survives_two_hundred_steps():
    """The public reproducer's shapes; the plain layer aborts here on AVX2."""
    layer = StridedPointwise(4, 8, 2)
    x = torch.randn(4, 4, 32, 48).contiguous(memory_format=torch.channels_last)
    for _ in range(200):
        layer(x).square().mean().backward()
    assert torch.isfinite(layer.weight.grad).all()
