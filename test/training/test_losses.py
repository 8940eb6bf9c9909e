"""Losses and matching against independent NumPy computations and brute force."""

import itertools

import numpy as np
import pytest
import torch

from training.losses.flow import (
    census_loss,
    flow_loss,
    photometric_loss,
    smoothness_loss,
    true_flow_loss,
    warp,
)
from training.losses.masks import (
    LossWeights,
    box_loss,
    class_loss,
    dice_loss,
    focal_loss,
    foreground_loss,
    instance_losses,
)
from training.losses.matching import Matches, Targets, costs, dice_cost, focal_cost, match

RNG = np.random.default_rng(3)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def toy(layers=2, samples=2, queries=4, counts=(3, 2)):
    """Random outputs and targets; sample 1 has one target less."""
    masks = np.zeros((samples, max(counts), 6, 8))
    labels = np.full((samples, max(counts)), -1)
    boxes = np.full((samples, max(counts), 4), -1.0)
    for b, count in enumerate(counts):
        owner = RNG.integers(0, count, (6, 8))
        masks[b, :count] = owner[None] == np.arange(count)[:, None, None]
        labels[b, :count] = 1
        labels[b, 0] = 0
        boxes[b, 1:count] = RNG.uniform(0, 8, (count - 1, 4))
    outputs = {'class_logits': torch.tensor(RNG.normal(size=(layers, samples, queries, 3)), dtype=torch.float32),
               'mask_logits': torch.tensor(RNG.normal(size=(layers, samples, queries, 6, 8)), dtype=torch.float32),
               'boxes': torch.tensor(RNG.uniform(0, 8, (layers, samples, queries, 4)), dtype=torch.float32)}
    return outputs, Targets(torch.tensor(labels), torch.tensor(masks, dtype=torch.float32),
                            torch.tensor(boxes, dtype=torch.float32))


def np_focal(logits, target):
    """Mean over the pixels, by cases, for 0/1 targets."""
    p = sigmoid(logits)
    return np.where(target == 1, -0.25 * (1 - p) ** 2 * np.log(p), -0.75 * p ** 2 * np.log(1 - p)).mean()


def np_dice(logits, target):
    p = sigmoid(logits)
    return 1 - (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1)


def test_costs_are_the_losses_of_each_pair():
    outputs, targets = toy()
    logits, masks = outputs['mask_logits'][0, 0].flatten(1), targets.masks[0].flatten(1)
    focal, dice = focal_cost(logits, masks), dice_cost(logits, masks)
    for q, n in itertools.product(range(4), range(3)):
        assert focal[q, n] == pytest.approx(np_focal(logits[q].numpy(), masks[n].numpy()), rel=1e-4)
        assert dice[q, n] == pytest.approx(np_dice(logits[q].numpy(), masks[n].numpy()), rel=1e-4)


def test_total_cost_adds_the_class_probability():
    outputs, targets = toy()
    table = costs(outputs['class_logits'], outputs['mask_logits'], targets, 20.0, 1.0).numpy()
    z = outputs['class_logits'][1, 0, 2].numpy().astype(np.float64)
    p = np.exp(z) / np.exp(z).sum()
    logits, masks = outputs['mask_logits'][1, 0, 2].numpy(), targets.masks[0].numpy()
    for n in (0, 1):
        wanted = 20 * np_focal(logits, masks[n]) + np_dice(logits, masks[n]) - p[n]
        assert table[1, 0, 2, n] == pytest.approx(wanted, rel=1e-4)


def test_matching_is_the_cheapest_assignment_by_brute_force():
    labels = torch.tensor([[0, 1, 1], [0, 1, -1]])
    cost = torch.tensor(RNG.normal(size=(2, 2, 5, 3)), dtype=torch.float32)
    found = match(cost, labels)
    for layer, sample, count in ((0, 0, 3), (1, 0, 3), (0, 1, 2), (1, 1, 2)):
        here = (found.layer == layer) & (found.sample == sample)
        value = float(cost[layer, sample, found.query[here], found.target[here]].sum())
        best = min(sum(float(cost[layer, sample, q, n]) for n, q in enumerate(queries))
                   for queries in itertools.permutations(range(5), count))
        assert int(here.sum()) == count
        assert value == pytest.approx(best, abs=1e-5)


def test_class_loss_weights_the_unmatched_queries_a_tenth():
    outputs, targets = toy(layers=1, samples=1, queries=3, counts=(2,))
    pairs = Matches(*(torch.tensor(x) for x in ([0, 0], [0, 0], [2, 0], [0, 1])))
    z = outputs['class_logits'][0, 0].numpy().astype(np.float64)
    logs = z - np.log(np.exp(z).sum(1, keepdims=True))
    wanted = -(logs[2, 0] + logs[0, 1] + 0.1 * logs[1, 2]) / 2.1
    assert float(class_loss(outputs['class_logits'], pairs, targets, (1, 1, 0.1))) == pytest.approx(wanted, rel=1e-4)


def test_dice_and_focal_against_numpy():
    logits, target = RNG.normal(size=(3, 20)), RNG.integers(0, 2, (3, 20))
    tensors = torch.tensor(logits), torch.tensor(target, dtype=torch.float64)
    found = [f(*tensors).numpy() for f in (dice_loss, focal_loss)]
    np.testing.assert_allclose(found[0], [np_dice(a, b) for a, b in zip(logits, target)], rtol=1e-6)
    np.testing.assert_allclose(found[1], [np_focal(a, b) for a, b in zip(logits, target)], rtol=1e-6)


def test_focal_of_a_fractional_target_is_least_at_the_target():
    p = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)[:, None]
    losses = focal_loss(torch.logit(p), torch.full_like(p, 0.3))
    assert float(p[losses.argmin()]) == pytest.approx(0.3, abs=0.02)


def test_background_has_no_box_loss():
    _, targets = toy(layers=1, samples=1, queries=2, counts=(2,))
    pairs = Matches(*(torch.tensor(x) for x in ([0, 0], [0, 0], [0, 1], [0, 1])))
    boxes = torch.tensor([[[[9.0, 9, 9, 9], [1, 2, 3, 4]]]])
    wanted = np.abs(np.array([1, 2, 3, 4]) - targets.boxes[0, 1].numpy()).sum()
    assert float(box_loss(boxes, pairs, targets)) == pytest.approx(wanted, rel=1e-5)


def test_instance_losses_are_summed_over_layers_and_divided_by_the_targets():
    outputs, targets = toy()
    weights = LossWeights()
    found = instance_losses(outputs, targets, weights)
    pairs = match(costs(outputs['class_logits'], outputs['mask_logits'], targets, 20, 1), targets.labels)
    focal = [np_focal(outputs['mask_logits'][key[:3]].numpy(), targets.masks[key[1], key[3]].numpy())
             for key in zip(*(x.tolist() for x in (pairs.layer, pairs.sample, pairs.query, pairs.target)))]
    assert len(focal) == 2 * 5
    assert float(found['focal']) == pytest.approx(20 * sum(focal) / 5, rel=1e-4)


def test_foreground_loss_falls_with_the_right_answer():
    _, targets = toy()
    truth = 1 - targets.masks[:, 0]
    right, wrong = 8 * (2 * truth - 1), -8 * (2 * truth - 1)
    assert float(foreground_loss(right, targets)) < 0.05 < float(foreground_loss(wrong, targets))


def test_warp_reads_at_x_plus_flow_and_clamps():
    image = torch.arange(12.0).reshape(1, 1, 3, 4)
    flow = torch.zeros(1, 2, 3, 4)
    flow[:, 0], flow[:, 1] = 0.5, 1.0
    rows, columns = np.minimum(np.arange(3) + 1, 2), np.minimum(np.arange(4) + 0.5, 3)
    np.testing.assert_allclose(warp(image, flow)[0, 0].numpy(), 4 * rows[:, None] + columns[None], atol=1e-4)


def test_photometric_and_smoothness_against_numpy():
    image, other = RNG.normal(size=(1, 3, 4, 5)), RNG.normal(size=(1, 3, 4, 5))
    flow = RNG.normal(size=(1, 2, 4, 5))
    tensors = [torch.tensor(x) for x in (image, other)]
    assert float(photometric_loss(*tensors, torch.zeros(1, 2, 4, 5, dtype=torch.float64))) == pytest.approx(
        ((np.abs(image - other) + 0.01) ** 0.4).mean(), rel=1e-6)
    wanted = sum((np.abs(np.diff(flow, axis=a)) * np.exp(-np.abs(np.diff(image, axis=a)).mean(1, keepdims=True))).mean()
                 for a in (2, 3))
    assert float(smoothness_loss(tensors[0], torch.tensor(flow))) == pytest.approx(wanted, rel=1e-6)


def test_census_against_numpy():
    image, other = RNG.uniform(size=(2, 1, 3, 6, 7))
    distance = np.zeros((6, 7))
    greys = [np.pad(255 * (x[0] * np.array([0.2989, 0.587, 0.114])[:, None, None]).sum(0), 3) for x in (image, other)]
    for y in range(6):
        for x in range(7):
            for dy in range(7):
                for dx in range(7):
                    a, b = (grey[y + dy, x + dx] - grey[y + 3, x + 3] for grey in greys)
                    a, b = a / np.sqrt(0.81 + a * a), b / np.sqrt(0.81 + b * b)
                    distance[y, x] += (a - b) ** 2 / (0.1 + (a - b) ** 2)
    found = census_loss(torch.tensor(image), torch.tensor(other), torch.zeros(1, 2, 6, 7, dtype=torch.float64))
    assert float(found) == pytest.approx(((distance + 0.01) ** 0.4).mean(), rel=1e-6)


def test_flow_loss_is_least_at_the_flow_to_the_previous_frame():
    seeds = torch.randn(1, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    scene = torch.nn.functional.interpolate(seeds, (32, 60), mode='bicubic')
    now, before = scene[..., 4:44], scene[..., 8:48]  # what is at x now was at x - 4 before

    def loss(x):
        flow = torch.zeros(1, 2, 16, 20)
        flow[:, 0] = x
        return float(flow_loss(now, before, flow))
    assert min((-8, -4, 0, 4, 8), key=loss) == -4


def test_true_flow_loss_against_numpy():
    flow, truth = RNG.normal(size=(2, 2, 2, 3, 4))
    truth[0, :, 1, 2] = np.nan  # unknown
    truth[1, 0, 0, 0] = np.nan  # half known is unknown
    background = RNG.integers(0, 2, (2, 6, 8)).astype(float)
    share = background.reshape(2, 3, 2, 4, 2).mean((2, 4))
    sums, weights = np.zeros(2), np.zeros(2)
    for b, y, x in np.ndindex(2, 3, 4):
        if np.isfinite(truth[b, :, y, x]).all():
            error = np.abs(flow - truth)[b, :, y, x].sum()
            sums += error * np.array([share[b, y, x], 1 - share[b, y, x]])
            weights += [share[b, y, x], 1 - share[b, y, x]]
    predicted = torch.tensor(flow, requires_grad=True)
    found = true_flow_loss(predicted, torch.tensor(truth), torch.tensor(background))
    assert float(found.detach()) == pytest.approx((sums / weights).mean(), rel=1e-6)
    found.backward()
    assert predicted.grad.isfinite().all() and not predicted.grad[0, :, 1, 2].any()
    nothing = torch.full_like(predicted.detach(), float('nan'))
    assert float(true_flow_loss(predicted.detach(), nothing, torch.tensor(background))) == 0
