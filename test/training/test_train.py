"""Training: every recipe learns a batch, the NaN stop, the accounting of frames, the smoke run."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from squares import FULL, NET, RECIPE, square_clip

from mos_perception.motion.evidence import EvidenceSpec
from mos_perception.motion.flow import FlowSettings
from training.datasets.arrays import clip_arrays
from training.loop import LOSSES, TrainingError, dimos_losses, train_step
from training.optimizer import one_cycle
from training.recipes import RECIPES, Recipe
from training.recipes_gmos import GMOS_RECIPES
from training.recipes_mosis import MOSIS_RECIPES
from training.smoke import smoke
from training.state import State, start


def tiny(recipe: Recipe) -> Recipe:
    """A shipped recipe with everything it switches on, and a network for 32x48 px."""
    net = replace(
        recipe.net,
        size=NET.size,
        backbone='plain',
        stem=NET.stem,
        channels=NET.channels,
        blocks=NET.blocks,
        hidden=NET.hidden,
        groups=NET.groups,
        queries=NET.queries,
        width=NET.width,
        attention_heads=NET.attention_heads,
        feed_forward=NET.feed_forward,
        layers=NET.layers,
        fusion_width=8 if recipe.net.fusion_width else 0,
    )
    evidence = recipe.evidence and EvidenceSpec(NET.size, flow=FlowSettings((64, 96)))
    return replace(recipe, net=net, batch=4 // recipe.frames, min_pixels=12,
                   window_ns=RECIPE.window_ns, evidence=evidence)


@pytest.mark.parametrize('name', RECIPES)
def test_every_recipe_learns_one_batch(packed, monkeypatch, name):
    recipe = tiny(RECIPES[name])
    monkeypatch.setattr(packed, 'recipe', recipe)
    if recipe.weights.true_flow:  # the square moves 3 px a frame to the right
        right = np.where(packed.ids[:, 1:, ::2, ::2] == 1, 128 - 8 * 3, 128)
        flows = np.stack([right, np.full_like(right, 128)], 2).astype(np.uint8)
        monkeypatch.setattr(packed, 'flows', flows)
    if recipe.evidence:
        plain = replace(recipe, weights=replace(recipe.weights, true_flow=0.0))
        rows = [clip_arrays(square_clip(seed), plain)['evidence'] for seed in range(packed.clips)]
        monkeypatch.setattr(packed, 'evidence', np.stack(rows))
    state = start(recipe)
    batch = packed.batch(np.array([0, 3, 6, 9][:recipe.batch]), np.random.default_rng(0), None)
    steps = [train_step(state, batch, recipe, 1e-3, 0.1) for _ in range(45)]

    def late(term):
        """Of the last steps: one alone hangs on the last bits of the machine's arithmetic."""
        return np.median([step[term] for step in steps[-7:]])
    assert late('loss') < 0.7 * steps[0]['loss']
    learnt = {'focal', 'flow', 'true_flow', 'foreground', 'contrast', 'translation'}
    for term in learnt & set(steps[0]):
        assert late(term) < steps[0][term], term


def test_one_batch_can_be_learnt_by_heart(packed):
    state = start(RECIPE)
    batch = packed.batch(np.array([0, 3, 6, 9]), np.random.default_rng(0), None)
    for step in range(200):
        train_step(state, batch, RECIPE, one_cycle(step / 200, 1e-3, 0.1))
    with torch.no_grad():
        logits, masks, boxes, _ = state.network.eval().infer(batch.image, batch.voxel)
    for b in range(4):
        query = int(logits[b].softmax(-1)[:, 1].argmax())
        assert float(logits[b].softmax(-1)[query, 1]) > 0.7
        full = torch.nn.functional.interpolate(masks[b, query][None, None], (32, 48),
                                               mode='bilinear')[0, 0] > 0
        truth = torch.from_numpy(square_clip(b).ids[1] == 1)
        assert float((full & truth).sum() / (full | truth).sum()) > 0.7
        assert float((boxes[b, query] - batch.targets.boxes[b, 1]).abs().max()) < 6


def test_a_loss_that_is_not_finite_stops_before_the_update(packed):
    state = start(RECIPE)
    batch = packed.batch(np.arange(2), np.random.default_rng(0), None)
    train_step(state, batch, RECIPE, 1e-3)
    before = {name: value.clone() for name, value in state.network.named_parameters()}
    bad = batch.unaugmented.clone()
    bad[0, 0, 0, 0] = float('nan')
    flow_alone = replace(batch, unaugmented=bad)
    with pytest.raises(TrainingError, match='step 1: loss is nan'):
        train_step(state, flow_alone, RECIPE, 1e-3)
    fresh = State(start(RECIPE).network, state.optimizer)
    with pytest.raises(TrainingError, match='not finite in class_logits'):
        train_step(fresh, replace(batch, image=bad), RECIPE, 1e-3)
    for name, value in state.network.named_parameters():
        assert torch.equal(value, before[name]), name


def test_released_frame_accounting_sums_the_task_and_not_the_contrast(packed, monkeypatch):
    """As released: task and flow once per frame, contrast once per sample."""
    monkeypatch.setattr(packed, 'recipe', FULL)
    state, batch = start(FULL), packed.batch(np.array([0, 5]), np.random.default_rng(0), None)
    for module in state.modules.values():
        module.eval()
    alone, targets = [], batch.targets
    for rows in ([0, 1], [2, 3]):
        frame = replace(
            batch,
            image=batch.image[rows],
            voxel=batch.voxel[rows],
            unaugmented=batch.unaugmented[rows],
            previous=batch.previous[rows],
            targets=replace(targets, labels=targets.labels[rows], masks=targets.masks[rows],
                            boxes=targets.boxes[rows]),
        )
        alone.append(dimos_losses(state.network, frame, FULL))
    mean, summed = (dimos_losses(state.network, batch, recipe, alignment=state.alignment)
                    for recipe in (FULL, replace(FULL, sum_frames=True)))
    for name in ('class', 'dice', 'focal', 'box', 'flow'):
        wanted = sum(term[name].item() for term in alone)
        assert summed[name].item() == pytest.approx(wanted, rel=1e-4), name
    assert torch.equal(summed['contrast'], mean['contrast'])


def test_every_kind_of_recipe_has_losses_of_its_own():
    kinds = {type(recipe) for known in (RECIPES, MOSIS_RECIPES, GMOS_RECIPES)
             for recipe in known.values()}
    assert kinds == LOSSES.keys() and len(set(LOSSES.values())) == len(kinds)


def test_smoke_runs_every_stage(capsys):
    recipe = replace(RECIPES['dimos_nano'], net=replace(NET, size=(120, 160)), batch=2)
    assert smoke(recipe) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('smoke')]
    assert len(lines) == 4 and 'resumed to step 12' in lines[1]
