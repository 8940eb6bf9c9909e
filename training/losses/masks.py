"""Class, dice, focal and box losses of DIMOS, summed over the decoder layers (dimos.md 1.6)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from training import parallel
from training.losses.matching import ALPHA, GAMMA, Matches, Targets, costs, match


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms; the first four are those of the paper's MouseSIS configuration, flow the code's.

    Ours: `dense`, see `dense_loss`; `true_flow`, see `losses.flow.true_flow_loss`.
    """

    classes: float = 1.0
    dice: float = 1.0
    focal: float = 20.0
    box: float = 0.01
    flow: float = 0.5
    dense: float = 0.0
    true_flow: float = 0.0
    census: bool = False
    class_weights: tuple[float, float, float] = (1.0, 1.0, 0.1)


def class_loss(class_logits: Tensor, matches: Matches, targets: Targets, weights: tuple[float, ...]) -> Tensor:
    """Weighted cross entropy, normalised per layer by the labels' weights; unmatched queries are class 2."""
    labels = torch.full(class_logits.shape[:3], 2, dtype=torch.int64, device=class_logits.device)
    labels[matches.layer, matches.sample, matches.query] = targets.labels[matches.sample, matches.target]
    weight = torch.tensor(weights, dtype=class_logits.dtype, device=class_logits.device)
    return sum(F.cross_entropy(logits.flatten(0, 1), label.flatten(), weight)
               for logits, label in zip(class_logits, labels))


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """(M, P) twice -> (M,): 1 - (2 p.g + 1) / (sum p + sum g + 1)."""
    p = logits.sigmoid()
    return 1 - (2 * (p * masks).sum(-1) + 1) / (p.sum(-1) + masks.sum(-1) + 1)


def focal_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """(M, P) twice -> (M,): mean over pixels of alpha_t |g - p|^gamma cross entropy; g may be fractional."""
    p = logits.sigmoid()
    alpha = ALPHA * masks + (1 - ALPHA) * (1 - masks)
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction='none')
    return (alpha * (masks - p).abs() ** GAMMA * entropy).mean(-1)


def box_loss(boxes: Tensor, matches: Matches, targets: Targets) -> Tensor:
    """L1 in px summed over the coordinates of matched movers (the background has no box)."""
    wanted = targets.boxes[matches.sample, matches.target]
    found = boxes[matches.layer, matches.sample, matches.query]
    return ((found - wanted).abs().sum(-1) * (wanted[:, 2] >= 0)).sum()


def instance_losses(outputs: dict[str, Tensor], targets: Targets, weights: LossWeights) -> dict[str, Tensor]:
    """The weighted terms class, dice, focal, box of `Dimos.forward`'s outputs.

    Matching runs at the mask logits' resolution; dice and focal at that of `targets.masks` (logits
    upsampled bilinearly where it is finer). Dice, focal and box are divided by the number of targets, the mean over
    the processes of a distributed run.
    """
    logits, fine = outputs['mask_logits'], targets.masks
    size = logits.shape[-2:]
    coarse = fine if fine.shape[-2:] == size else F.adaptive_avg_pool2d(fine, size)
    table = costs(outputs['class_logits'], logits, Targets(targets.labels, coarse, targets.boxes),
                  weights.focal, weights.dice)
    pairs, count = match(table, targets.labels), parallel.mean(targets.count)
    chosen = logits[pairs.layer, pairs.sample, pairs.query]
    if fine.shape[-2:] != size:
        chosen = F.interpolate(chosen[:, None], fine.shape[-2:], mode='bilinear', align_corners=False)[:, 0]
    chosen, wanted = chosen.flatten(1), fine[pairs.sample, pairs.target].flatten(1)
    return {'class': weights.classes * class_loss(outputs['class_logits'], pairs, targets, weights.class_weights),
            'dice': weights.dice * dice_loss(chosen, wanted).sum() / count,
            'focal': weights.focal * focal_loss(chosen, wanted).sum() / count,
            'box': weights.box * box_loss(outputs['boxes'], pairs, targets) / count}


def dense_loss(logits: Tensor, targets: Targets) -> Tensor:
    """Cross entropy + dice of "some mover here" (B, h, w): a direct gradient to the pixel features.

    Not in the paper: queries matched from a random start say little for thousands of steps; on a CPU
    budget this shortens that phase.
    """
    wanted = F.adaptive_avg_pool2d(1 - targets.masks[:, :1], logits.shape[-2:])[:, 0].flatten(1)
    logits = logits.flatten(1)
    return F.binary_cross_entropy_with_logits(logits, wanted) + dice_loss(logits, wanted).mean()
