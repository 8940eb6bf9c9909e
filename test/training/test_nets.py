"""Networks: shapes, the arithmetic they claim, and the channel attention against NumPy."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mos_perception.errors import ConfigError
from training.nets.backbone import event_validity
from training.nets.dimos import Dimos
from training.nets.dimos_config import RELEASED, DimosConfig
from training.nets.fusion import ChannelCrossAttention
from training.nets.macs import count_macs
from training.nets.query_decoder import QueryDecoder, grid_positions
from training.nets.resnet import load_imagenet, make_backbone

TINY = DimosConfig(size=(36, 52), stem=4, channels=(4, 8, 8), blocks=(1, 1, 1), hidden=8, groups=4, queries=5, width=16,
                   attention_heads=2, feed_forward=16, layers=2)


def test_training_and_inference_outputs_agree_and_have_the_contract_s_shapes():
    torch.manual_seed(0)
    network = Dimos(TINY).eval()
    image, voxel = torch.randn(2, 3, 36, 52), torch.rand(2, 10, 36, 52)
    with torch.no_grad():
        out = network(image, voxel)
    assert out['class_logits'].shape == (2, 2, 5, 3)
    assert out['mask_logits'].shape == (2, 2, 5, 9, 13)
    assert out['boxes'].shape == (2, 2, 5, 4)
    assert out['embeddings'].shape == (2, 5, 16)
    assert out['flow'].shape == (2, 2, 18, 26)
    assert out['foreground'].shape == (2, 9, 13)
    for name, value in zip(('class_logits', 'mask_logits', 'boxes'), network.infer(image, voxel)):
        torch.testing.assert_close(out[name][-1], value.detach())
    assert 0 <= float(out['boxes'].min()) and float(out['boxes'].max()) <= 52


def test_missing_modalities_give_finite_outputs():
    network = Dimos(TINY).eval()
    for value in network.infer(torch.zeros(1, 3, 36, 52), torch.zeros(1, 10, 36, 52)):
        assert torch.isfinite(value).all()


def test_nano_keeps_its_budget_of_multiplications():
    network = Dimos(DimosConfig())
    macs = count_macs(network)
    assert 0.2e9 < macs <= 0.35e9
    assert sum(p.numel() for p in network.parameters()) < 1.5e6


def test_macs_of_a_convolution_counted_by_hand():
    network = Dimos(TINY)
    stem = 4 * 3 * 9 * 18 * 26 + 4 * 4 * 9 * 9 * 13
    kept = network.image_appearance.stem
    for name, module in list(network.named_children()):
        setattr(network, name, torch.nn.Identity())
    network.infer = lambda image, voxel: kept(image)
    network.kept = kept
    assert count_macs(network) == stem


def test_channel_attention_against_numpy():
    torch.manual_seed(1)
    layer = ChannelCrossAttention(4, 2).eval()
    x, y = torch.randn(1, 4, 3, 5), torch.randn(1, 4, 3, 5)
    query = layer.query(x).detach().numpy().reshape(2, 2, 15)
    both = layer.key_value(y).detach().numpy()[0]
    key, value = both[0::2].reshape(2, 2, 15), both[1::2].reshape(2, 2, 15)
    out = np.zeros((2, 2, 15))
    for head in range(2):
        q = query[head] / np.linalg.norm(query[head], axis=1, keepdims=True)
        k = key[head] / np.linalg.norm(key[head], axis=1, keepdims=True)
        scores = np.exp(q @ k.T)
        out[head] = scores / scores.sum(1, keepdims=True) @ value[head]
    wanted = np.tensordot(layer.project.weight.detach().numpy()[:, :, 0, 0], out.reshape(4, 15), 1)
    np.testing.assert_allclose(layer(x, y).detach().numpy().reshape(4, 15), wanted, atol=1e-5)


def test_event_mask_marks_pixels_with_any_event():
    voxel = torch.zeros(1, 10, 2, 3)
    voxel[0, 7, 1, 2] = 0.25
    assert event_validity(voxel).flatten().tolist() == [0, 0, 0, 0, 0, 1]


def test_sine_positions_tell_every_cell_apart():
    positions = grid_positions(8, 10, 64)
    distance = torch.cdist(positions, positions) + 10 * torch.eye(80)
    assert positions.shape == (80, 64)
    assert float(distance.min()) > 0.1


def test_every_decoder_layer_s_output_is_normalised():
    decoder = QueryDecoder(queries=7, width=16, heads=2, hidden=16, layers=3, dropout=0.0)
    out = decoder(torch.randn(2, 16, 3, 4))
    assert out.shape == (3, 2, 7, 16)
    torch.testing.assert_close(out.mean(-1), torch.zeros(3, 2, 7), atol=1e-5, rtol=0)


def convolutions(config, size):
    """G multiply-accumulates of the convolutions alone, without running them."""
    with torch.device('meta'):
        network = Dimos(replace(config, size=size))
    return count_macs(network, (torch.nn.Conv2d,)) / 1e9


@pytest.mark.parametrize('change, size, wanted', [
    ({}, (384, 512), 201.25), ({}, (180, 320), 60.41),
    ({'disentangled': False}, (384, 512), 87.51), ({'disentangled': False}, (180, 320), 26.07)])
def test_published_arithmetic(change, size, wanted):
    """DIMOS and EvInsMOS, published as 201.26 G and 87.52 G at 384x512."""
    assert convolutions(replace(RELEASED, **change), size) == pytest.approx(wanted, abs=0.006)


def test_published_parameters_and_the_cheaper_variants():
    with torch.device('meta'):
        network = Dimos(RELEASED)
    count = {name: sum(p.numel() for p in module.parameters()) / 1e6 for name, module in network.named_children()}
    assert count['image_motion'] == pytest.approx(8.54, abs=0.005)
    assert sum(count.values()) == pytest.approx(108.7, abs=0.05)
    assert count['flow'] == pytest.approx(1.15, abs=0.01)
    small = {name: convolutions(replace(RELEASED, **change), (384, 512)) for name, change in
             {'projected': {'fusion_width': 256}, 'resnet18': {'backbone': 'resnet18'},
              'mobilenetv2': {'backbone': 'mobilenetv2'}}.items()}
    assert small['projected'] < 0.76 * 201.25 and small['resnet18'] == pytest.approx(71, abs=0.5)
    assert small['mobilenetv2'] < 42


@pytest.mark.parametrize('change', [{'backbone': 'resnet18', 'as_released': True}, {'backbone': 'mobilenetv2'},
                                    {'disentangled': False}, {'fusion_width': 4}])
def test_every_configuration_trains(change):
    torch.manual_seed(0)
    network = Dimos(replace(TINY, **change)).train()
    out = network(torch.randn(2, 3, 36, 52), torch.rand(2, 10, 36, 52))
    assert out['mask_logits'].shape == (2, 2, 5, 9, 13) and out['flow'].shape == (2, 2, 18, 26)
    assert ('image_motion.2' in out) == network.config.disentangled
    sum(value.float().square().mean() for value in out.values()).backward()
    still = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not still


def test_released_norms_and_temperatures_stay():
    network = Dimos(replace(TINY, backbone='resnet18', as_released=True)).train()
    assert not network.image_motion.bn1.training and network.event_motion.bn1.training
    fixed = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert 'interactions.0.to_motion.attention.temperature' in fixed and 'image_appearance.bn1.weight' in fixed
    assert not any(name.startswith('event') for name in fixed)


def test_imagenet_weights_of_the_same_network_load(tmp_path):
    source, target = make_backbone('resnet18', 3), make_backbone('resnet18', 10)
    state = {**source.state_dict(), 'layer4.0.conv1.weight': torch.zeros(1), 'fc.bias': torch.zeros(1000)}
    torch.save(state, tmp_path / 'resnet18.pth')
    first = target.conv1.weight.clone()
    load_imagenet(target, tmp_path / 'resnet18.pth')
    assert torch.equal(target.layer3[1].conv2.weight, source.layer3[1].conv2.weight)
    assert torch.equal(target.conv1.weight, first)  # ten channels are not three
    with pytest.raises(ConfigError, match='another network'):
        load_imagenet(make_backbone('mobilenetv2', 3), tmp_path / 'resnet18.pth')
    (tmp_path / 'no.safetensors').write_bytes(b'no')
    with pytest.raises(ConfigError, match='no readable state dict'):
        load_imagenet(target, tmp_path / 'no.safetensors')
    with pytest.raises(ConfigError, match='unknown backbone'):
        make_backbone('vgg', 3)
