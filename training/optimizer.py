"""How the weights move: one cycle of the learning rate, AdamW of ours or the released Adam (dimos.md 1.9)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from training.recipes import Recipe

_BETAS = (0.85, 0.95)  # OneCycleLR's defaults, as released


def _blend(start: float, end: float, part: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * part))


def one_cycle(fraction: float, peak: float, warmup: float, last: float = 1e-3) -> float:
    """Learning rate: cosine from peak / 25 up to peak at `warmup`, then cosine down to peak x `last` at 1."""
    fraction = min(max(fraction, 0.0), 1.0)
    if fraction < warmup:
        return _blend(peak / 25, peak, fraction / warmup)
    return _blend(peak, peak * last, (fraction - warmup) / (1 - warmup))


def momentum(fraction: float, warmup: float) -> float:
    """Adam's first beta where it is cycled against the rate: 0.95, 0.85 at `warmup`, 0.95 at the end."""
    low, high = _BETAS
    if fraction < warmup:
        return _blend(high, low, fraction / warmup)
    return _blend(low, high, (min(fraction, 1.0) - warmup) / (1 - warmup))


def make_optimizer(recipe: Recipe, modules: Mapping[str, nn.Module]) -> torch.optim.Optimizer:
    """Of all parameters that want gradients.

    Ours: AdamW, vectors (norms, biases, positions) not decayed. `released_optimizer`: Adam with eps 1e-7 and its L2
    decay on every "weight"; the discriminators have an Adam of their own at a constant rate.
    """
    named = [(name, value) for module in modules.values() for name, value in module.named_parameters()]
    if not recipe.released_optimizer:
        matrices = [value for _, value in named if value.ndim > 1]
        vectors = [value for _, value in named if value.ndim <= 1]
        return torch.optim.AdamW([{'params': matrices}, {'params': vectors, 'weight_decay': 0.0}],
                                 lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)
    judges = [value for name, value in named if name.startswith('discriminators.')]
    others = [(name, value) for name, value in named if not name.startswith('discriminators.')]
    groups = [{'params': [value for name, value in others if 'weight' in name]},
              {'params': [value for name, value in others if 'weight' not in name], 'weight_decay': 0.0}]
    if judges:
        groups.append({'params': judges, 'lr': recipe.discriminator_rate, 'weight_decay': 0.0, 'eps': 1e-8,
                       'constant': True})
    return torch.optim.Adam(groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, eps=1e-7, fused=True)


def set_rates(optimizer: torch.optim.Optimizer, recipe: Recipe, rate: float, progress: float) -> None:
    """Set the learning rate, and the released beta at `progress` in [0, 1] of the run."""
    for group in optimizer.param_groups:
        if group.get('constant'):
            continue
        group['lr'] = rate
        if recipe.released_optimizer:
            group['betas'] = (momentum(progress, recipe.warmup), 0.999)
