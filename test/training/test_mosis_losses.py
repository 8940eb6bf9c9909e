"""MoSIS' losses against numbers by hand and against the true segments and flow of its scenes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from training.datasets.mosis2d_wrappers import FlowSupervised
from training.losses.mosis import (
    ExplainWeights,
    explain_losses,
    explained,
    objectness_loss,
    objectness_targets,
)
from training.losses.photometric import photometric_distance, ssim_distance, visible
from training.losses.yolo import YoloWeights, assign, detection_losses, flow_losses, mask_loss
from training.nets.darknet import DarknetConfig
from training.nets.mosis import SegmentMotion
from training.nets.yolo import Detections, Yolo, YoloConfig
from training.scenes.moving_shapes import Preset2D

torch.set_num_threads(1)
SMALL = Preset2D('small', size=(64, 96), frames=4, objects=(2, 2), object_px=(16, 24),
                 sway_px=(6, 8), speed_px=(2, 3))


def test_ssim_by_hand():
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 1, 3, 5, 5)).astype(np.float32)
    wanted = []
    for c in range(3):
        a, b = (image[0, c, 1:4, 2:5].astype(np.float64) for image in (one, other))
        top = (2 * a.mean() * b.mean() + 1e-4) * (2 * ((a * b).mean() - a.mean() * b.mean()) + 9e-4)
        bottom = (a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (a.var() + b.var() + 9e-4)
        wanted.append((1 - top / bottom) / 2)
    one, other = torch.from_numpy(one), torch.from_numpy(other)
    assert float(ssim_distance(one, other)[0, 2, 3]) == pytest.approx(np.mean(wanted), abs=1e-5)
    assert ssim_distance(one, one).abs().max() < 1e-5
    checks = (torch.arange(5)[:, None] + torch.arange(5)).remainder(2).float().expand(1, 3, 5, 5)
    against = ssim_distance(checks, 1 - checks)
    assert 0.95 < against.max() <= 1  # where 1 - SSIM would be near 2


def test_the_distances():
    one, other = torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.5)
    assert torch.allclose(photometric_distance(one, other, 'l1'), torch.tensor(0.5))
    mixed = 0.85 * ssim_distance(one, other) + 0.15 * 0.5
    assert torch.allclose(photometric_distance(one, other, 'mixed'), mixed)


def test_what_no_flow_reaches_is_hidden():
    """The other frame's flow goes 3 px to the right: nothing comes to the three left columns."""
    back = torch.zeros(1, 2, 6, 10)
    back[:, 0] = 3
    assert visible(back)[0].all(0).tolist() == [False] * 3 + [True] * 7
    back[:, 0] = 2.9  # a tenth reaches column 2
    assert visible(back)[0].all(0).tolist() == [False] * 3 + [True] * 7
    assert visible(back, 0.05)[0].all(0).tolist() == [False] * 2 + [True] * 8


def truth(seed, frame=1):
    """Frames, their partitions (S, H, W) and flows (S, 2) forward and backward of a scene."""
    data = FlowSupervised(SMALL, videos=1, seed=seed)
    scene = data.scene(0)
    images, ids = scene.render(np.array([frame, frame + 1]))
    shares = torch.stack([(one == torch.arange(3)[:, None, None]).float() for one in ids])
    paths = [scene.path, *(shape.path for shape in scene.shapes)]
    steps = torch.tensor(np.stack([np.diff(path(np.array([frame, frame + 1.0])), axis=0)[0]
                                   for path in paths])).float()
    return images, shares, torch.stack([steps, -steps]), ids


def test_the_true_segments_and_flow_explain_and_the_thesis_pairing_does_not():
    sound, nothing, unsound = [], [], []
    for seed in range(4):
        images, shares, flows, ids = truth(seed)
        _, valid = FlowSupervised(SMALL, videos=1, seed=seed).scene(0).flow(1, ids[0])
        # away from outlines, where pixels are mixtures
        edges = F.max_pool2d(shares, 5, 1, 2).sum(1) > 1
        clear = valid & ~edges[0]
        one = explained(images[1:], shares[:1], flows[:1])
        sound.append(float(photometric_distance(images[:1], one)[0][clear].mean()))
        # eq 9 as printed: frame t read with its own flow to t + 1
        other = explained(images[:1], shares[:1], flows[:1])
        unsound.append(float(photometric_distance(images[1:], other)[0][clear].mean()))
        nothing.append(float(photometric_distance(images[1:], images[:1])[0][clear].mean()))
    assert max(sound) < 0.01
    assert all(bad > worse > 2 * good for good, worse, bad in zip(sound, nothing, unsound))


def test_photometric_terms_of_both_directions_by_hand():
    images, shares, flows, _ = truth(0)
    motion = SegmentMotion(shares, [torch.zeros(2, 3, 2), flows])
    terms = explain_losses(motion, images[:1], images[1:], ExplainWeights())
    both = [photometric_distance(images[n:n + 1], explained(images[1 - n:2 - n], shares[n:n + 1],
                                                            flows[n:n + 1])).mean()
            for n in range(2)]
    assert list(terms) == ['photometric']
    assert float(terms['photometric']) == pytest.approx(float(sum(both)), rel=1e-5)
    scaled = explain_losses(motion, images[:1], images[1:], ExplainWeights(scales=(0.5, 1.0)))
    small = F.avg_pool2d(images, 2)
    coarse = photometric_distance(small, small.flip(0)).mean()
    assert float(scaled['photometric']) == pytest.approx(float(sum(both) + 0.5 * 2 * coarse),
                                                         rel=1e-5)
    seen = explain_losses(motion, images[:1], images[1:], ExplainWeights(occlusion=True))
    assert float(seen['photometric']) < float(terms['photometric'])


def test_objectness_targets_by_hand():
    """Two segments of two pixels each: the first's error fell from 0.8 to 0.2, the second's not."""
    segments = torch.zeros(1, 2, 1, 4)
    segments[0, 0, 0, :2], segments[0, 1, 0, 2:] = 1, 1
    error = torch.tensor([[[0.2, 0.2, 0.5, 0.5]]])
    without = torch.tensor([[[0.8, 0.8, 0.5, 0.5]]])
    assert objectness_targets('thesis', segments, error, without)[0].tolist() == pytest.approx(
        [0.4, 1.0], abs=1e-4)
    assert objectness_targets('inverted', segments, error, without)[0].tolist() == pytest.approx(
        [0.6, 0.0], abs=1e-4)
    assert objectness_targets('gain', segments, error, without)[0].tolist() == pytest.approx(
        [0.6 / 0.65, 0.0], abs=1e-4)
    # half of the first object: as good by pixel, half as much in all
    halves = torch.cat([segments[:, :1], segments[:, :1].clone()], 1)
    halves[0, 1, 0, 1] = 0
    assert objectness_targets('gain', halves, error, without)[0].tolist() == pytest.approx(
        [0.6 / 0.65, 0.6 / 0.65 * 0.5 ** 0.5], abs=1e-4)


def test_objectness_loss_leaves_out_what_rests_and_what_is_no_detection():
    logits = torch.tensor([[0.0, 2.0, -torch.inf]], requires_grad=True)
    flows = torch.tensor([[[1.0, 1], [1.3, 1], [4, 1], [9, 9]]])  # 0.3 px, 3 px beside it
    targets = torch.tensor([[0.0, 0.9, 0.0]])
    loss = objectness_loss(logits, targets, flows, 0.5)
    wanted = -(0.9 * np.log(1 / (1 + np.exp(-2))) + 0.1 * np.log(1 / (1 + np.exp(2))))
    assert float(loss) == pytest.approx(wanted, abs=1e-5)
    loss.backward()
    assert logits.grad[0, 0] == 0 and logits.grad[0, 1] != 0 and torch.isfinite(logits.grad).all()
    assert float(objectness_loss(torch.zeros(1, 1), torch.zeros(1, 1), flows[:, :2], 0.5)) == 0


def hypotheses(ids):
    """(6, H, W) segments: first object, half of it, it dilated by 6 px, both objects, a patch of
    the background, nothing."""
    first, second = (ids == 1).float(), (ids == 2).float()
    half = first.clone()
    columns = torch.nonzero(first.any(0)).flatten()
    half[:, int(columns.float().mean()):] = 0
    patch = torch.zeros_like(first)
    patch[2:14, 2:14] = 1
    dilated = F.max_pool2d(first[None, None], 13, 1, 6)[0, 0]
    return torch.stack([first, half, dilated, (first + second).clamp(max=1), patch * (ids == 0),
                        torch.zeros_like(first)])


def alone(image, other, segment, flow):
    """The targets' inputs for one hypothesis beside the background, with the best flow for it."""
    background = flow[:1]
    inside = segment * 0 if not segment.any() else segment
    shares = torch.stack([1 - inside, inside])[None]
    error = photometric_distance(image, explained(other, shares, flow[None]))
    without = photometric_distance(image, explained(other, shares, background.expand(2, 2)[None]))
    return shares[:, 1:], error, without


def test_gain_ranks_whole_objects_first_and_the_thesis_ranks_them_last():
    """The table of the unsound sign: each hypothesis with the mean of the true flow under it."""
    gains, areas, errors = np.zeros(6), np.zeros(6), np.zeros(6)
    for seed in range(6):
        images, shares, flows, ids = truth(seed)
        field = torch.einsum('sc,shw->chw', flows[0], shares[0])
        for n, segment in enumerate(hypotheses(ids[0])):
            mean = (field * segment).sum((1, 2)) / segment.sum().clamp(min=1)
            segments, error, without = alone(images[:1], images[1:], segment,
                                             torch.stack([flows[0, 0], mean]))
            total = (segments * (without - error)[:, None]).sum().clamp(min=0)
            gains[n] += float(total / (segments.sum() + 1e-6))
            areas[n] += float(total)
            errors[n] += float((segments * error[:, None]).sum() / (segments.sum() + 1e-6))
    wanted = gains / (gains.max() + 0.05) * np.sqrt(areas / areas.max())
    exact, half, dilated, both, patch, empty = wanted
    assert exact > half > max(dilated, both) and min(dilated, both) > max(patch, empty)
    assert patch == pytest.approx(0, abs=1e-3) and empty == 0
    # as printed, the worst masks become objects
    assert errors[0] < min(errors[2], errors[3])


NETWORK = Yolo(YoloConfig(
    darknet=DarknetConfig(stem=4, channels=(4, 8, 8, 12, 16), blocks=(1, 1, 1, 1, 1)),
    mask_channels=8, mask_side=8)).eval()


def test_an_object_is_assigned_to_its_anchor_and_cell():
    """A box of 30 x 34 px: anchor (28, 36) of stride 16, IoU 952 / 1076; its centre is 60, 52."""
    found = assign(NETWORK, [torch.zeros(0, 4), torch.tensor([[45.0, 35, 75, 69]])])
    place = 48 + 64 + 3 * 8 + 3  # 48 of stride 32, the second anchor, row 3, column 3
    assert found.image.tolist() == [1] and found.proposal.tolist() == [place]
    assert found.target[0].tolist() == pytest.approx(
        [60 / 16 - 3, 52 / 16 - 3, np.log(30 / 28), np.log(34 / 36)], abs=1e-5)
    # (20, 28) 560 / 1020 and (36, 44) 1020 / 1584 fit over a half, too: neither object nor
    # background in their cells; (48, 60) 1020 / 2880 does not
    assert torch.nonzero(found.ignored).tolist() == [[1, 48 + 27], [1, place], [1, 48 + 128 + 27]]


def test_detection_losses_by_hand():
    with torch.no_grad():
        proposals = NETWORK(torch.rand(1, 3, 128, 128))
    found = assign(NETWORK, [torch.tensor([[45.0, 35, 75, 69]])])
    place = int(found.proposal[0])
    raw = proposals.raw.clone()
    raw[0, place] = torch.tensor([1.0, -1.0, 0.2, 0.0])
    boxes = proposals.boxes.clone()
    boxes[0, place] = torch.tensor([60.0, 52, 30, 17])  # half of the object
    logits = torch.full_like(proposals.logits, -3.0)
    logits[0, place] = 0.0
    terms = detection_losses(replace(proposals, raw=raw, boxes=boxes, logits=logits), found,
                             YoloWeights(box=1, object=1, no_object=1))
    assert float(terms['no_object']) == pytest.approx(np.log1p(np.exp(-3)), rel=1e-5)
    assert float(terms['object']) == pytest.approx((0.5 - 0.5) ** 2, abs=1e-6)
    said = np.array([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1)), 0.2, 0])
    assert float(terms['box']) == pytest.approx(
        ((said - found.target[0].numpy()) ** 2).sum(), rel=1e-4)
    none = assign(NETWORK, [torch.zeros(0, 4)])
    empty = detection_losses(proposals, none, YoloWeights())
    assert float(empty['object']) == float(empty['box']) == 0 and float(empty['no_object']) > 0


def test_mask_loss_by_hand():
    """A head that says 0 everywhere costs log 2; one that says the truth, nothing."""
    network = Yolo(NETWORK.config).eval()
    torch.nn.init.zeros_(network.mask_head[-1].weight)
    torch.nn.init.zeros_(network.mask_head[-1].bias)
    with torch.no_grad():
        proposals = network(torch.rand(2, 3, 128, 128))
        mask = torch.zeros(1, 128, 128, dtype=torch.bool)
        mask[0, 40:60, 40:70] = True
        box = torch.tensor([[40.0, 40, 70, 60]])
        given = ([mask, mask[:0]], [box, box[:0]])
        assert float(mask_loss(network, proposals, *given, 0.0)) == pytest.approx(np.log(2))
        network.mask_head[-1].bias.fill_(20)  # the box is all object
        assert float(mask_loss(network, proposals, *given, 0.0)) < 1e-6
        assert float(mask_loss(network, proposals, *given, 0.3)) > 1e-3
        assert float(mask_loss(network, proposals, [mask[:0]], [box[:0]], 0.1)) == 0


def test_flow_losses_by_hand():
    flow = torch.zeros(1, 2, 4, 4)
    flow[0, 0, 0, 0] = 8  # a mean of 2 over its quarter
    terms = flow_losses([torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 4, 4)], flow)
    assert float(terms['flow_mse']) == 2.0
    assert float(terms['coarse']) == pytest.approx(0.3 * 0.5)


def test_perfect_detections_get_full_objectness_and_bad_ones_none():
    """The whole loss on true segments: descent raises the object's logit and lowers the patch's."""
    images, shares, flows, ids = truth(1)
    patch = torch.zeros(2, 1, 64, 96)
    patch[:, 0, :10, :10] = 1
    segments = torch.cat([shares, patch * shares[:, :1]], 1)
    segments[:, 0] -= segments[:, 3]
    moved = torch.cat([flows, flows[:, :1] + 1], 1)
    logits = torch.zeros(2, 3, requires_grad=True)
    found = Detections(logits, torch.zeros(2, 3, 4), torch.zeros(2, 3, 2, 2))
    terms = explain_losses(SegmentMotion(segments, [moved], found), images[:1], images[1:],
                           ExplainWeights())
    terms['objectness'].backward()
    assert (logits.grad[:, :2].min(1).values < 0).all() and (logits.grad[:, 2] > 0).all()
