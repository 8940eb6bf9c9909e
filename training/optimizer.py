"""How the weights move: one cycle of the learning rate; AdamW of ours, or Adam as released.

"As released": the factory and the training loop of the released DIMOS code (`training/nets`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from training.recipes import Training

_BETAS = (0.85, 0.95)  # OneCycleLR's defaults, as released


def one_cycle(progress: float, peak: float, warmup: float, final_factor: float = 1e-3) -> float:
    """The learning rate at `progress` in [0, 1] of the run.

    Cosine from peak / 25 up to peak at `warmup`, then cosine down to peak x `final_factor` at 1.
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        return _blend(peak / 25, peak, progress / warmup)
    return _blend(peak, peak * final_factor, (progress - warmup) / (1 - warmup))


def momentum(progress: float, warmup: float) -> float:
    """Adam's first beta where it is cycled against the learning rate.

    0.95, 0.85 at `warmup`, 0.95 at the end.
    """
    low, high = _BETAS
    if progress < warmup:
        return _blend(high, low, progress / warmup)
    return _blend(low, high, (min(progress, 1.0) - warmup) / (1 - warmup))


def make_optimizer(recipe: Training, modules: Mapping[str, nn.Module]) -> torch.optim.Optimizer:
    """Of all parameters that want gradients.

    Ours: AdamW, vectors (norms, biases, positions) not decayed. `released_optimizer`: Adam with eps
    1e-7 and its L2 decay on every "weight"; the discriminators have an Adam of their own at a
    constant learning rate.
    """
    named = [(name, value) for module in modules.values()
             for name, value in module.named_parameters()]
    if not recipe.released_optimizer:
        matrices = [value for _, value in named if value.ndim > 1]
        vectors = [value for _, value in named if value.ndim <= 1]
        groups = [{'params': matrices}, {'params': vectors, 'weight_decay': 0.0}]
        return torch.optim.AdamW(groups, lr=recipe.learning_rate,
                                 weight_decay=recipe.weight_decay, fused=True)
    discriminators, weights, others = [], [], []
    for name, value in named:
        if name.startswith('discriminators.'):
            discriminators.append(value)
        elif 'weight' in name:
            weights.append(value)
        else:
            others.append(value)
    groups = [{'params': weights}, {'params': others, 'weight_decay': 0.0}]
    if discriminators:
        groups.append({'params': discriminators, 'lr': recipe.discriminator_learning_rate,
                       'weight_decay': 0.0, 'eps': 1e-8, 'constant': True})
    return torch.optim.Adam(groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay,
                            eps=1e-7, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, recipe: Training, learning_rate: float,
                      progress: float) -> None:
    """Set the learning rate, and the released beta at `progress` in [0, 1] of the run."""
    for group in optimizer.param_groups:
        if group.get('constant'):
            continue
        group['lr'] = learning_rate
        if recipe.released_optimizer:
            group['betas'] = (momentum(progress, recipe.warmup), 0.999)


def _blend(start: float, end: float, part: float) -> float:
    """Half a cosine from `start` (part 0) to `end` (part 1)."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * part))
