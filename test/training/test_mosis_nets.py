"""MoSIS' networks: published sizes, geometry by hand and against oracles, where gradients go."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from mos_perception.errors import ConfigError
from training.nets.amd import AmdConfig, Segmenter
from training.nets.boxes import box_iou, centred, corners_of, crop, paste, suppress
from training.nets.darknet import Darknet, DarknetConfig
from training.nets.mosis import Mosis, MosisConfig, partition
from training.nets.pwc_lite import (
    PwcConfig,
    PwcLite,
    correlation,
    pool_segments,
    spread_segments,
    standardised,
)
from training.nets.yolo import Detections, Yolo, YoloConfig

torch.set_num_threads(1)
FLOW = PwcConfig(pyramid=(4, 6, 8), reduced=4, estimator=(8, 8, 8, 6, 4), hidden=8)
YOLO = YoloConfig(
    size=(64, 64),
    darknet=DarknetConfig(stem=4, channels=(4, 8, 8, 12, 16), blocks=(1, 1, 1, 1, 1)),
    mask_channels=8,
    mask_side=8,
    top_k=6,
)


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_published_sizes():
    with torch.device('meta'):
        assert count(Darknet(DarknetConfig())) == 40_584_928  # Darknet-53 without its classifier
        full = Yolo(YoloConfig())
        # YOLOv3 for COCO has 61 949 149 parameters: 255 outputs of a head instead of 15, and no
        # branch at 1/4
        heads = sum((255 - 15) * (width + 1) for width in (1024, 512, 256))
        ours = count(full.fine) + count(full.mask_head) + count(full.laterals[-1])
        assert count(full) - ours + heads == 61_949_149
        motion = PwcLite(PwcConfig())
        assert motion.config.features == 96
        assert motion.estimator[0][0].in_channels == 81 + 2 + 32
        # torchvision's ResNet-50 without its classifier has 23 508 032
        trunk = Segmenter(AmdConfig()).layers[:-8]
        assert count(trunk) == 23_508_032


def test_grids_proposals_and_decoding():
    network = Yolo(replace(YOLO, size=(128, 128))).eval()
    with torch.no_grad():
        proposals = network(torch.rand(1, 3, 128, 128))
    assert proposals.logits.shape == (1, 3 * (16 + 64 + 256)) == (1, 1008)
    assert proposals.features.shape == (1, 8, 32, 32)
    boxes, raw = proposals.boxes[0].numpy(), proposals.raw[0].numpy()
    sigmoid = 1 / (1 + np.exp(-raw))
    # stride 16, its second anchor (28, 36), row 5, column 3; stride 8, its last, row 15, column 0
    for place, stride, anchor, row, column in ((48 + 64 + 43, 16, (28, 36), 5, 3),
                                               (48 + 192 + 512 + 240, 8, (16, 24), 15, 0)):
        wanted = [stride * (column + sigmoid[place, 0]), stride * (row + sigmoid[place, 1]),
                  anchor[0] * np.exp(raw[place, 2]), anchor[1] * np.exp(raw[place, 3])]
        assert boxes[place] == pytest.approx(wanted, rel=1e-4)
    assert torch.allclose(network.anchors(0), torch.tensor([[48., 60], [64, 80], [80, 96]]))
    assert torch.allclose(Yolo(YOLO).anchors(0), torch.tensor([[24., 30], [32, 40], [40, 48]]))
    with pytest.raises(ConfigError, match='multiples of 32'):
        YoloConfig(size=(100, 128))


def test_a_crop_of_a_ramp_holds_the_bins_centres():
    ramp = torch.arange(16.0).expand(1, 1, 16, 16) * 4 + 2  # px of the image at stride 4
    boxes = torch.tensor([[[20.0, 30, 16, 8], [33.0, 32, 24, 20]]])
    found = crop(ramp, boxes, 8, 4)
    assert found.shape == (2, 1, 8, 8)
    for n, (cx, _, w, _) in enumerate(boxes[0].tolist()):
        wanted = cx - w / 2 + (torch.arange(8) + 0.5) * w / 8
        assert torch.allclose(found[n, 0], wanted.expand(8, 8), atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.floats(16, 48), st.floats(16, 48), st.floats(4, 24), st.floats(4, 24))
def test_a_pasted_mask_has_its_boxs_area_and_middle(cx, cy, w, h):
    pasted = paste(torch.ones(1, 1, 28, 28), torch.tensor([[[cx, cy, w, h]]]), (64, 64))[0, 0]
    at = torch.arange(64) + 0.5
    # Pixels are taken at their centres: a length w holds between w - 1 and w + 1 of them.
    assert (w - 1) * (h - 1) <= float(pasted.sum()) <= (w + 1) * (h + 1)
    assert float((pasted.sum(0) * at).sum() / pasted.sum()) == pytest.approx(cx, abs=0.5)
    assert float((pasted.sum(1) * at).sum() / pasted.sum()) == pytest.approx(cy, abs=0.5)
    outside = ((at - cx).abs() > w / 2 + 1)[None] | ((at - cy).abs() > h / 2 + 1)[:, None]
    assert not pasted[outside].any()


def test_a_crop_of_a_pasted_mask_is_the_mask():
    mask = torch.nn.functional.interpolate(torch.rand(1, 1, 3, 3), (8, 8), mode='bilinear')
    boxes = torch.tensor([[[30.0, 34, 40, 32]]])
    again = crop(paste(mask, boxes, (64, 64)), boxes, 8, 1)
    assert float((again - mask)[..., 1:-1, 1:-1].abs().max()) < 0.05


def test_pasting_moves_boxes():
    """Torchvision's ROIAlign and pasting do not. The box left of an object is pulled over it."""
    boxes = torch.tensor([[[28.0, 32, 20, 20]]], requires_grad=True)
    wanted = torch.zeros(64, 64)
    wanted[22:42, 24:44] = 1
    loss = (paste(torch.ones(1, 1, 14, 14), boxes, (64, 64)) - wanted).square().sum()
    loss.backward()
    assert boxes.grad[0, 0, 0] < 0 and boxes.grad.abs().min() >= 0
    assert boxes.grad[0, 0, 0].abs() > 10 * boxes.grad[0, 0, 1].abs()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10 ** 6), st.sampled_from([0.1, 0.5, 0.7]))
def test_suppression_is_opencvs(seed, iou):
    rng = np.random.default_rng(seed)
    near = rng.uniform(0, 60, (20, 2))
    sizes = rng.uniform(8, 40, (20, 2))
    corners = torch.from_numpy(np.concatenate([near, near + sizes], 1)).float()
    scores = np.linspace(1, 0.1, 20)
    wanted = cv2.dnn.NMSBoxes(np.concatenate([near, sizes], 1), scores, 0.0, iou)
    assert np.flatnonzero(suppress(corners[None], iou)[0]).tolist() == sorted(wanted)


def test_boxes_and_overlaps_by_hand():
    corners = torch.tensor([[0.0, 0, 4, 2], [2.0, 0, 6, 2], [9.0, 9, 9, 9]])
    assert torch.equal(corners_of(centred(corners)), corners)
    assert torch.allclose(box_iou(corners, corners)[0], torch.tensor([1.0, 4 / 12, 0]))


def test_partition_sums_to_one_and_starves_the_background_of_many():
    shares = partition(torch.rand(2, 5, 8, 8))
    assert torch.allclose(shares.sum(1), torch.ones(2, 8, 8), atol=1e-5)
    lone = partition(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1))[:, :, 0, 0]
    assert torch.allclose(lone, torch.eye(2), atol=1e-5)
    # 0.75^n / (0.75^n + n / 4)
    assert float(partition(torch.full((1, 4, 1, 1), 0.25))[0, 0]) == pytest.approx(0.24, abs=0.005)
    assert float(partition(torch.full((1, 32, 1, 1), 0.25))[0, 0]) == pytest.approx(1e-5, rel=0.3)


def test_top_k_keeps_logits_boxes_and_masks_together():
    network = Yolo(YOLO).eval()
    with torch.no_grad():
        proposals = network(torch.rand(2, 3, 64, 64))
        # a fresh network's are all but equal
        proposals = replace(proposals, logits=torch.randn_like(proposals.logits))
        found = network.detect(proposals)
        for n in range(2):
            order = proposals.logits[n].argsort(descending=True)[:6]
            assert torch.equal(found.logits[n], proposals.logits[n, order])
            assert torch.equal(found.boxes[n], proposals.boxes[n, order])
        apart = network.detect(proposals, 4, 0.3)
        overlaps = box_iou(corners_of(apart.boxes), corners_of(apart.boxes))
        real = apart.logits.isfinite()
        both = real[:, :, None] & real[:, None] & ~torch.eye(4, dtype=torch.bool)
        assert (overlaps[both] <= 0.3).all() and real[:, 0].all()
        lone = network.mask_logits(proposals.features[1:], found.boxes[1:, 2:3])
        assert torch.allclose(lone[0, 0], found.mask_logits[1, 2], atol=1e-5)


def test_a_filler_is_no_object():
    found = Detections(torch.tensor([[0.0, -torch.inf]]), torch.full((1, 2, 4), 16.0),
                       torch.full((1, 2, 4, 4), 9.0))
    inside = found.probabilities((32, 32))[0, :, 16, 16]
    assert inside.tolist() == [pytest.approx(0.5, abs=1e-3), 0.0]


@pytest.mark.parametrize('circular', [True, False])
def test_correlation_by_loops(circular):
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(2, 3, 6, 9)).astype(np.float32) for _ in range(2))
    found = correlation(*(torch.from_numpy(value) for value in (first, second)), 2, circular)
    assert found.shape == (2, 25, 6, 9)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            moved = np.roll(second, (-dy, -dx), (2, 3))
            if not circular:
                y, x = np.mgrid[:6, :9]
                moved = moved * ((y + dy >= 0) & (y + dy < 6) & (x + dx >= 0) & (x + dx < 9))
            wanted = (first * moved).mean(1)
            assert np.allclose(found[:, 5 * (dy + 2) + dx + 2], wanted, atol=1e-5)


def test_correlation_gradient():
    torch.manual_seed(0)
    pair = [torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda a, b: correlation(a, b, 1, True), pair)


def test_segments_are_pooled_and_spread():
    shares = torch.zeros(1, 2, 2, 2)
    shares[0, 0, 0], shares[0, 1, 1] = 1, 1
    features = torch.tensor([[[[1.0, 3], [5, 9]]]])
    assert torch.allclose(pool_segments(features, shares)[0, :, 0], torch.tensor([2.0, 7]))
    flow = spread_segments(torch.tensor([[[1.0, 0], [0, -2]]]), shares)
    assert torch.equal(flow[0, :, 0, 0], torch.tensor([1.0, 0]))
    assert torch.equal(flow[0, :, 1, 1], torch.tensor([0.0, -2]))


def test_a_brighter_channel_does_not_hide_what_matches():
    """Features with means of their own: the product is still highest where frames agree."""
    rng = np.random.default_rng(3)
    first = torch.from_numpy(rng.normal(size=(1, 32, 16, 16)).astype(np.float32))
    means = 30 * torch.linspace(-1, 1, 32)[:, None, None]
    second = first.roll((1, -2), (2, 3))
    one, other = standardised(first + means, second + means)
    assert torch.allclose(one.mean((2, 3)), torch.zeros(1, 32), atol=1e-5)
    assert float(torch.cat([one, other]).std()) == pytest.approx(1, rel=1e-2)
    volume = correlation(one, other, 2, True)
    assert (volume.argmax(1) == 5 * (1 + 2) + (-2 + 2)).float().mean() > 0.95
    assert volume.amax(1).mean() > 3 * volume.median(1).values.abs().mean()


def test_the_fine_stage_follows_the_frames_and_begins_as_a_mean():
    """With its head at zero the flow is the mean of the 3x3 around; it learns from both frames."""
    torch.manual_seed(0)
    network = PwcLite(replace(FLOW, fine=6))
    frames = [torch.rand(1, 3, 64, 64, requires_grad=True) for _ in range(2)]
    flow = torch.randn(1, 2, 16, 16)
    features = torch.randn(1, FLOW.features, 16, 16)
    fine = network.fine(*frames, features, flow)
    mean = F.avg_pool2d(F.pad(flow, (1,) * 4, mode='replicate'), 3, 1)
    assert torch.allclose(fine, F.interpolate(mean, scale_factor=4.0), atol=1e-5)
    torch.nn.init.normal_(network.fine.head.weight)
    network.fine(*frames, features, flow).square().sum().backward()
    assert all(frame.grad.abs().amax((1, 2, 3)) > 0 for frame in frames)


def test_flow_shapes():
    frames = [torch.rand(2, 3, 64, 96) for _ in range(2)]
    with torch.no_grad():
        found = PwcLite(replace(FLOW, fine=6)).pixel_flows(*frames)
        assert [tuple(flow.shape[1:]) for flow in found] == [(2, 8, 12), (2, 16, 24), (2, 64, 96)]
        # a fresh network's is near zero, the thesis' first error that of no flow
        assert PwcLite(replace(PwcConfig(), fine=64))(*frames).abs().mean() < 1
        levels = PwcLite(FLOW).segment_flows(*frames, partition(torch.rand(2, 3, 64, 96)))
    assert [tuple(flow.shape) for flow in levels] == [(2, 4, 2)] * 2


def test_gradients_reach_boxes_masks_objectness_and_flow():
    torch.manual_seed(0)
    network = Mosis(MosisConfig(YOLO, FLOW))
    motion = network(torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64))
    field = spread_segments(motion.flows[-1], motion.partition)
    assert motion.partition.shape == (4, 7, 64, 64)
    field.square().mean().backward()
    heads = torch.stack([convs.head[-1].bias.grad.view(3, 5) for convs in network.detector.sets])
    assert (heads.abs().amax((0, 1)) > 0).all()  # objectness, x, y, w, h
    for part in (network.detector.mask_head, network.detector.backbone, network.motion.readout,
                 network.motion.pyramid, network.motion.estimator):
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in part.parameters()
                   if p.ndim > 1)


def test_amds_regions():
    config = AmdConfig(width=4, blocks=(1, 1, 1, 1), bottleneck=False, head=8)
    network = Segmenter(config).eval()
    with torch.no_grad():
        regions = network(torch.rand(2, 3, 64, 64))
        assert network.layers[:-1](torch.rand(2, 3, 64, 64)).shape[2:] == (8, 8)
    assert regions.shape == (2, 5, 64, 64)
    assert torch.allclose(regions.sum(1), torch.ones(2, 64, 64), atol=1e-5)
