"""Networks: shapes, the arithmetic they claim, and the channel attention against NumPy."""

import numpy as np
import torch

from training.nets.backbone import event_validity
from training.nets.dimos import Dimos, DimosConfig, count_macs
from training.nets.fusion import ChannelCrossAttention
from training.nets.query_decoder import QueryDecoder, grid_positions

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
    assert out['dense'].shape == (2, 9, 13)
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
