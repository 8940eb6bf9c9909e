"""The objective of GMOS' light members: masks, matched queries, predicted quality, weighted by
confidence.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

ALPHA = 0.6  # C* = clip(ALPHA / loss, 1, 5): samples of a loss above it count least
_BAND_PX = 3


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """(N,): BCE + 0.5 dice + 0.2 BCE in a band of 3 px round the boundary (OCLR's), of (N, h, w)
    logits and truth.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction='none')
    probability = logits.sigmoid()
    overlap = 2 * (probability * target).sum((1, 2)) + 1
    dice = 1 - overlap / (probability.sum((1, 2)) + target.sum((1, 2)) + 1)
    wide = functional.max_pool2d(target[:, None], 2 * _BAND_PX + 1, 1, _BAND_PX)[:, 0]
    band = (
        wide + functional.max_pool2d(1 - target[:, None], 2 * _BAND_PX + 1, 1, _BAND_PX)[:, 0] - 1
    ).clamp(0, 1)
    edge = (entropy * band).sum((1, 2)) / (band.sum((1, 2)) + 1)
    return entropy.mean((1, 2)) + 0.5 * dice + 0.2 * edge


def overlap(logits: Tensor, target: Tensor) -> Tensor:
    """(N,): IoU of the masks logits > 0 and truth; 1 where both are empty."""
    found, true = logits > 0, target > 0.5
    union = (found | true).sum((1, 2))
    return torch.where(union > 0, (found & true).sum((1, 2)) / union.clamp(min=1), 1.0)


def confident(losses: Tensor, quality: Tensor, logits: Tensor, target: Tensor,
              weighted: bool = True) -> Tensor:
    """Scalar: losses (N,) `weighted` by confidence C over its mean or not, plus C l - alpha log C
    and the IoU's error.
    """
    confidence = quality[:, 1]
    weights = (confidence / confidence.mean() if weighted else torch.ones_like(losses)).detach()
    regret = confidence * losses.detach() - ALPHA * confidence.log()
    error = (quality[:, 0] - overlap(logits, target).detach()) ** 2
    return (weights * losses).mean() + 0.1 * regret.mean() + 0.5 * error.mean()


def match(logits: Tensor, motion: Tensor, targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Rows of masks (Q, h, w) and of targets (K, h, w), by least dice, BCE and motion cost."""
    with torch.no_grad():
        small = functional.avg_pool2d(logits[None], 2)[0].flatten(1)
        true = functional.avg_pool2d(targets[None], 2)[0].flatten(1)
        probability = small.sigmoid()
        dice = 1 - (2 * probability @ true.T + 1) / (
            probability.sum(1)[:, None] + true.sum(1)[None] + 1
        )
        entropy = (functional.softplus(small).sum(1)[:, None] - small @ true.T) / small.shape[1]
        cost = 5 * dice + 5 * entropy - 2 * motion.sigmoid()[:, None]
    return linear_sum_assignment(cost.numpy())


def query_loss(outputs: dict[str, Tensor], labels: Tensor, weighted: bool = True) -> Tensor:
    """Scalar, of the decoder's outputs against labels (B, h, w) int64, 1, 2, ... by object."""
    masks, motions = outputs['mask_logits'], outputs['motion_logits']
    found, wanted, qualities = [], [], []
    moving = torch.zeros_like(motions)
    for row, label in enumerate(labels):
        ids = [n for n in range(1, int(label.max()) + 1) if (label == n).sum() >= 4][
            : masks.shape[1]
        ]
        if not ids:
            continue
        targets = torch.stack([(label == n).float() for n in ids])
        queries, objects = match(masks[row], motions[row], targets)
        moving[row, queries] = 1
        found.append(masks[row, queries])
        wanted.append(targets[objects])
        qualities.append(outputs['quality'][row, queries])
    weights = torch.where(moving > 0, 1.0, 0.3)
    loss = (
        functional.binary_cross_entropy_with_logits(motions, moving, reduction='none') * weights
    ).mean() * 2
    if not found:
        return loss
    logits, target = torch.cat(found), torch.cat(wanted)
    return loss + confident(mask_loss(logits, target), torch.cat(qualities), logits, target,
                            weighted)


def gmos_loss(outputs: dict[str, Tensor], labels: Tensor,
              weighted: bool = True) -> dict[str, Tensor]:
    """`foreground` and, with queries, `queries`: the two terms, of labels (B, h, w). Not
    `weighted`: a loss counts the same whatever the confidence.
    """
    target = (labels > 0).float()
    logits = outputs['foreground_logits'][:, 0]
    terms = {
        'foreground': confident(
            mask_loss(logits, target), outputs['foreground_quality'], logits, target, weighted
        )
    }
    if 'mask_logits' in outputs:
        terms['queries'] = query_loss(outputs, labels, weighted)
    return terms
