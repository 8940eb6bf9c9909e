"""The learning rate's cycle, and the released optimizer against torch's OneCycleLR."""

import pytest
import torch
from squares import RELEASED

from training.optimizer import momentum, one_cycle, set_learning_rate
from training.recipes import RECIPES
from training.state import start


def test_one_cycle_rises_then_falls():
    values = [one_cycle(progress, 1.0, 0.1) for progress in (0, 0.05, 0.1, 0.5, 1.0, 2.0)]
    assert values[0] == pytest.approx(1 / 25) and values[2] == pytest.approx(1)
    assert values[4] == values[5] == pytest.approx(1e-3)
    assert values[0] < values[1] < values[2] > values[3] > values[4]


def test_released_optimizer_decays_weights_only():
    recipe = RELEASED
    state = start(recipe)
    optimizer = state.optimizer
    assert type(optimizer) is torch.optim.Adam
    weights, others, discriminators = optimizer.param_groups
    assert [group['weight_decay'] for group in optimizer.param_groups] == [1e-4, 0.0, 0.0]
    assert (weights['eps'], discriminators['eps'], discriminators['lr']) == (1e-7, 1e-8, 5e-5)
    wanted = {id(p) for p in state.alignment.discriminators.parameters()}
    assert {id(p) for p in discriminators['params']} == wanted
    names = {id(p): name for module in state.modules.values()
             for name, p in module.named_parameters()}
    assert all('weight' in names[id(p)] for p in weights['params'])
    assert not any('weight' in names[id(p)] for p in others['params'])
    set_learning_rate(optimizer, recipe, 0.5, recipe.warmup)
    assert (weights['lr'], others['lr'], discriminators['lr']) == (0.5, 0.5, 5e-5)
    assert weights['betas'] == (pytest.approx(0.85), 0.999)
    assert discriminators['betas'] == (0.9, 0.999)


def test_released_cycle_is_torch_s():
    adam = torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    cycle = torch.optim.lr_scheduler.OneCycleLR(adam, 1e-4, 100, pct_start=0.3)
    for step in range(99):
        if step in (0, 29):  # torch's phases end one step apart
            progress = 0.3 if step else 0.0
            beta, learning_rate = adam.param_groups[0]['betas'][0], cycle.get_last_lr()[0]
            assert momentum(progress, 0.3) == pytest.approx(beta, abs=1e-6)
            assert one_cycle(progress, 1e-4, 0.3, 4e-6) == pytest.approx(learning_rate, rel=1e-6)
        adam.step()
        cycle.step()
    last = one_cycle(1, 1e-4, 0.3, RECIPES['dimos'].final_learning_rate_factor)
    assert last == pytest.approx(cycle.get_last_lr()[0], rel=1e-3)
