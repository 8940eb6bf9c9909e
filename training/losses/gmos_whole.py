"""The objective of GMOS and GMOS-S. The paper's is not public: what follows is our proposal.

Each query is matched to at most one object that moves, of up to 20 in a frame, so that the sum of
l is least (Hungarian). GMOS-S has one mask per frame, of all that moves, and no motion.

    l_i = 5 BCE + 5 dice of the mask + 2 BCE of the motion           of a matched query i
    w_i = C_i / mean C, C in [1, 5] the predicted confidence         1 where switched off
    L   = 1/n [ sum w_i l_i + 0.1 sum 2 BCE(motion_j, 0) + 0.5 sum (IoU'_i - IoU_i)^2
                + 0.1 sum (C_i l_i - alpha log C_i) ]                j the queries without an object

Why so:
* Objects at rest are no targets (in the annotations they have no mask either): their queries learn
  from the second sum that they do not move. Their masks are not trained.
* n is the number of objects, at least one per frame. A query without an object counts a tenth of
  one with; with a mean over them they would count a thousandth, and motion would be found anywhere.
* C l - alpha log C has its least value at C = clip(alpha / l, 1, 5): what has a high loss, as a
  frame of a wrong motion label has, counts up to five times less. It is taken apart: l is a
  constant in it, C is one in w. alpha is 3 times the batch's median of l, as l falls by itself
  while the network learns and a fixed alpha would end in C = 5 for all. w is over its mean: else a
  rising C would outweigh the second sum, which has none.
* A frame of GMOS-S in which nothing moves has no dice loss: there is no overlap to measure, yet the
  dice of the faintest mask is near 1, and frames at rest would have the least confidence of all.
* Early losses say what is not learned yet, not what is wrong: C weighs from a tenth of the run on.
* `transitions`: w_i times 1 - exp(-(d / 2s)^2), d the time to the nearest start or stop of the
  object and s the window's stride. For annotated moments; those of rendered clips are exact.

Shapes: B samples, Q queries, K objects, M matched pairs, h w = 4g, 4g of the masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.datasets.gmos_features import GmosBatch
from training.distributed import mean_over_processes
from training.losses.gmos import overlap
from training.losses.masks import dice_loss
from training.losses.matching import Matches, dice_cost, match
from training.recipes_gmos import GmosRecipe, GmosWeights

_SHRINK = 2  # of the masks in the matching


@dataclass(frozen=True)
class _Pairs:
    """What is held against each other: `logits` and `masks` (M, h, w), `quality` (M, 2), `certain`
    (M,), `motion_loss` (M,), and the `unmatched` queries' motion loss, a scalar.
    """

    logits: Tensor
    masks: Tensor
    quality: Tensor
    certain: Tensor
    motion_loss: Tensor
    unmatched: Tensor


def gmos_losses(network: nn.Module, batch: GmosBatch, recipe: GmosRecipe,
                progress: float = 1.0, *_: object) -> dict[str, Tensor]:
    """The weighted loss terms of a batch; `progress` in [0, 1] of the run. In float32, as the
    published head runs.
    """
    outputs = network(*batch.features())
    return objective(outputs, batch.labels, batch.certain, recipe.weights, progress)


def objective(outputs: dict[str, Tensor], labels: Tensor, certain: Tensor, weights: GmosWeights,
              progress: float = 1.0) -> dict[str, Tensor]:
    """The terms `mask`, `iou`, with queries `motion`, and unless switched off `confidence`.

    `outputs` of `GmosProposer` or `GmosS`; `labels` (B, h, w) 0, or 1, 2, ... for each object that
    moves; `certain` (B, 20) of the objects' labels, 1 - exp(-(d / 2s)^2).
    """
    has_queries = 'mask_logits' in outputs
    pairs = _of_queries(outputs, labels, certain, weights) if has_queries else _of_frames(
        outputs, labels, certain)
    logits, masks = pairs.logits.flatten(1), pairs.masks.flatten(1)
    entropy = functional.binary_cross_entropy_with_logits(logits, masks, reduction='none').mean(1)
    dice = dice_loss(logits, masks) * masks.any(1)
    mask_loss = weights.entropy * entropy + weights.dice * dice
    loss, confidence = (mask_loss + pairs.motion_loss).detach(), pairs.quality[:, 1]
    share = shares(confidence.detach(), pairs.certain, weights, progress)
    count = mean_over_processes(max(len(logits), len(labels)))
    error = pairs.quality[:, 0] - overlap(pairs.logits, pairs.masks).detach()
    terms = {'mask': (share * mask_loss).sum() / count,
             'iou': weights.iou * error.square().sum() / count}
    if has_queries:
        terms['motion'] = ((share * pairs.motion_loss).sum() + pairs.unmatched) / count
    if weights.confidence:
        regret = confidence_regret(confidence, loss, weights.alpha)
        terms['confidence'] = weights.confidence * regret.sum() / count
    return terms


def shares(confidence: Tensor, certain: Tensor, weights: GmosWeights, progress: float) -> Tensor:
    """(M,): what each pair counts."""
    share = torch.ones_like(confidence)
    if weights.confidence and progress >= weights.confident_from and len(confidence):
        share = confidence / confidence.mean()
    return share * certain if weights.transitions else share


def confidence_regret(confidence: Tensor, loss: Tensor, alpha: float) -> Tensor:
    """(M,): C l - a log C, a = `alpha` times the median of `loss` (M,), which gets no gradient."""
    loss = loss.detach()
    median = loss.median() if len(loss) else loss.sum()
    return confidence * loss - alpha * median * confidence.log()


def _of_frames(outputs: dict[str, Tensor], labels: Tensor, certain: Tensor) -> _Pairs:
    """GMOS-S: each frame's mask of all that moves; as certain as its least certain object."""
    logits = outputs['foreground_logits'][:, 0]
    zero = torch.zeros_like(logits[:, 0, 0])
    return _Pairs(logits, (labels > 0).float(), outputs['foreground_quality'], certain.amin(1),
                  zero, zero.sum())


def _of_queries(outputs: dict[str, Tensor], labels: Tensor, certain: Tensor,
                weights: GmosWeights) -> _Pairs:
    logits, motion = outputs['mask_logits'], outputs['motion_logits']
    numbers = torch.arange(1, max(1, int(labels.max())) + 1, device=labels.device)
    masks = (labels[:, None] == numbers[:, None, None]).float()
    found = matched(logits, motion, masks, weights)
    moves = torch.zeros_like(motion, dtype=torch.bool)
    moves[found.sample, found.query] = True
    return _Pairs(
        logits=logits[found.sample, found.query],
        masks=masks[found.sample, found.target],
        quality=outputs['quality'][found.sample, found.query],
        certain=certain[found.sample, found.target],
        motion_loss=weights.motion * functional.softplus(-motion[found.sample, found.query]),
        unmatched=weights.unmatched * weights.motion * functional.softplus(motion[~moves]).sum())


@torch.no_grad()
def matched(logits: Tensor, motion: Tensor, masks: Tensor, weights: GmosWeights) -> Matches:
    """The pairs of least cost, which is l at half the masks' resolution.

    `logits` (B, Q, h, w), `motion` (B, Q), `masks` (B, K, h, w); an empty mask is no object, and
    those are the last ones.
    """
    small, true = (functional.avg_pool2d(maps, _SHRINK).flatten(2) for maps in (logits, masks))
    entropy = functional.softplus(small).sum(2)[..., None] - small @ true.transpose(1, 2)
    cost = (weights.entropy * entropy / small.shape[2] + weights.dice * dice_cost(small, true)
            + weights.motion * functional.softplus(-motion)[..., None])
    there = masks.flatten(2).any(2)
    return match(cost[None], there.long() - 1)
