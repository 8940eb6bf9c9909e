"""The objective of GMOS and GMOS-S against loops over every way to match."""

import itertools
from dataclasses import replace

import pytest
import torch

from training.losses.gmos_whole import confidence_regret, objective
from training.recipes_gmos import GmosWeights

torch.set_num_threads(1)


def by_hand(outputs, masks, weights, confident, certain):
    """The objective of one frame: loops, and every way to match."""
    logits, motion = outputs['mask_logits'][0].double(), outputs['motion_logits'][0].double()
    quality = outputs['quality'][0].double()

    def pair(query, target, size):
        p, goal = logits[query], masks[target].double()
        if size > 1:
            p, goal = (v.reshape(4, 2, 4, 2).mean((1, 3)) for v in (p, goal))
        s = p.sigmoid()
        entropy = -(goal * s.log() + (1 - goal) * (1 - s).log()).mean()
        dice = 1 - (2 * (s * goal).sum() + 1) / (s.sum() + goal.sum() + 1)
        return 5 * entropy + 5 * dice, -2 * motion[query].sigmoid().log()
    best = min(itertools.permutations(range(len(logits)), len(masks)),
               key=lambda chosen: sum(sum(pair(q, k, 2)) for k, q in enumerate(chosen)))
    parts = [pair(q, k, 1) for k, q in enumerate(best)]
    count = len(masks)
    c = quality[list(best), 1]
    share = (c / c.mean() if confident else torch.ones(count)) * certain
    rest = [q for q in range(len(logits)) if q not in best]
    still = sum(-2 * (1 - motion[q].sigmoid()).log() for q in rest)
    error = 0.0
    for k, q in enumerate(best):
        on, true = logits[q] > 0, masks[k] > 0
        error += (quality[q, 0] - (on & true).sum() / (on | true).sum()) ** 2
    loss = torch.stack([sum(part) for part in parts])
    # of an even number the lower middle one
    alpha = 3 * loss.sort().values[(count - 1) // 2]
    return {
        'mask': sum(w * part[0] for w, part in zip(share, parts)) / count,
        'motion': (sum(w * part[1] for w, part in zip(share, parts)) + 0.1 * still) / count,
        'iou': 0.5 * error / count,
        'confidence': 0.1 * (c * loss - alpha * c.log()).sum() / count}


def made_up(seed, queries=5):
    rng = torch.Generator().manual_seed(seed)
    quality = torch.rand(1, queries, 2, generator=rng) * torch.tensor([1.0, 4.0]) + torch.tensor(
        [0.0, 1.0])
    labels = torch.zeros(1, 8, 8, dtype=torch.uint8)
    labels[0, :3, :4], labels[0, 5:, 2:5], labels[0, 3:5, 6:] = 1, 2, 3
    return {'mask_logits': 3 * torch.randn(1, queries, 8, 8, generator=rng),
            'motion_logits': torch.randn(1, queries, generator=rng), 'quality': quality}, labels


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('transitions, progress', [(False, 1.0), (True, 1.0), (True, 0.05)])
def test_the_objective_is_what_its_text_says(seed, transitions, progress):
    outputs, labels = made_up(seed)
    certain = torch.ones(1, 20)
    certain[0, :3] = torch.tensor([0.9, 0.2, 1.0])
    weights = GmosWeights(transitions=transitions)
    found = objective(outputs, labels, certain, weights, progress)
    masks = torch.stack([labels[0] == n for n in (1, 2, 3)])
    wanted = by_hand(outputs, masks, weights, progress > 0.1,
                     certain[0, :3] if transitions else torch.ones(3))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-4), name
    plain = objective(outputs, labels, certain, replace(weights, confidence=0.0), progress)
    assert plain.keys() == wanted.keys() - {'confidence'}


def test_frames_without_objects_and_with_too_many():
    outputs, labels = made_up(0, queries=2)
    for value in outputs.values():
        value.requires_grad_()
    certain = torch.ones(1, 20)
    empty = objective(outputs, torch.zeros_like(labels), certain, GmosWeights())
    assert all(empty[name].detach() == 0 for name in ('mask', 'iou', 'confidence'))
    still = sum(-(1 - motion.sigmoid()).log() for motion in outputs['motion_logits'][0])
    assert empty['motion'].item() == pytest.approx(0.2 * still.item(), rel=1e-5)
    sum(empty.values()).backward()
    assert outputs['motion_logits'].grad.abs().min() > 0
    full = objective(outputs, labels, certain, GmosWeights())  # three objects, two queries
    assert all(torch.isfinite(value) for value in full.values()) and full['mask'] > 0


def test_gmos_s_wants_all_that_moves_and_nothing_where_nothing_does():
    labels = torch.zeros(2, 8, 8, dtype=torch.uint8)
    labels[0, :4, :4], labels[0, 6:, 6:] = 1, 2
    right = torch.where(labels[:, None] > 0, 12.0, -12.0)
    quality = torch.tensor([[1.0, 2.0], [1.0, 2.0]])
    outputs = {'foreground_logits': right, 'foreground_quality': quality}
    found = objective(outputs, labels, torch.ones(2, 20), GmosWeights())
    assert found.keys() == {'mask', 'iou', 'confidence'}
    assert float(found['mask']) < 1e-3 and float(found['iou']) == 0
    # faint everywhere where nothing moves: no dice, which would be near 1
    outputs['foreground_logits'] = torch.where(labels[:, None] > 0, 12.0, -4.0)
    found = objective(outputs, labels, torch.ones(2, 20), GmosWeights())
    assert float(found['mask']) < 0.5


def test_the_best_confidence_is_alpha_over_the_loss():
    loss = torch.tensor([0.2, 0.5, 1.0, 1.5, 40.0])
    grid = torch.linspace(1, 5, 4001)
    regret = torch.stack([confidence_regret(c.expand(5), loss, 3.0) for c in grid])
    assert grid[regret.argmin(0)].tolist() == pytest.approx([5, 5, 3, 2, 1], abs=2e-3)
