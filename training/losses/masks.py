"""Class, dice, focal and box losses of DIMOS, summed over the decoder layers, as released."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from training.distributed import mean_over_processes
from training.losses.matching import ALPHA, GAMMA, Matches, Targets, costs, match


@dataclass(frozen=True)
class LossWeights:
    """Factors of the terms; where nothing else is said, those released for MouseSIS."""

    classes: float = 1.0
    """Of the cross entropy of the class."""
    dice: float = 1.0
    """Of the masks' dice loss, also in the matching."""
    focal: float = 20.0
    """Of the masks' focal loss, also in the matching."""
    box: float = 0.01
    """Of the boxes' L1, px."""
    flow: float = 0.5
    """Of the unsupervised flow loss. The paper has 10."""
    foreground: float = 0.0
    """Of `foreground_loss`. Ours."""
    true_flow: float = 0.0
    """Of `losses.flow.true_flow_loss`. Ours."""
    census: bool = False
    """As released, the flow loss has a census term."""
    class_weights: tuple[float, float, float] = (1.0, 1.0, 0.1)
    """Of background or static, moving, no object in the cross entropy."""


def class_loss(class_logits: Tensor, matches: Matches, targets: Targets,
               weights: tuple[float, ...]) -> Tensor:
    """Weighted cross entropy, normalised per layer by the labels' weights.

    Queries without a match are class 2.
    """
    labels = torch.full(class_logits.shape[:3], 2, dtype=torch.int64, device=class_logits.device)
    matched = targets.labels[matches.sample, matches.target]
    labels[matches.layer, matches.sample, matches.query] = matched
    weight = torch.tensor(weights, dtype=class_logits.dtype, device=class_logits.device)
    return sum(F.cross_entropy(logits.flatten(0, 1), label.flatten(), weight)
               for logits, label in zip(class_logits, labels))


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """(M, P) twice -> (M,): 1 - (2 p.g + 1) / (sum p + sum g + 1)."""
    p = logits.sigmoid()
    return 1 - (2 * (p * masks).sum(-1) + 1) / (p.sum(-1) + masks.sum(-1) + 1)


def focal_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """(M, P) twice -> (M,): mean over pixels of alpha_t |g - p|^gamma cross entropy.

    g may be fractional.
    """
    p = logits.sigmoid()
    alpha = ALPHA * masks + (1 - ALPHA) * (1 - masks)
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction='none')
    return (alpha * (masks - p).abs() ** GAMMA * entropy).mean(-1)


def box_loss(boxes: Tensor, matches: Matches, targets: Targets) -> Tensor:
    """L1 in px summed over the coordinates of matched moving objects.

    The background has no box.
    """
    wanted = targets.boxes[matches.sample, matches.target]
    found = boxes[matches.layer, matches.sample, matches.query]
    has_box = wanted[:, 2] >= 0
    return ((found - wanted).abs().sum(-1) * has_box).sum()


def instance_losses(outputs: dict[str, Tensor], targets: Targets,
                    weights: LossWeights) -> dict[str, Tensor]:
    """The weighted terms class, dice, focal, box of `Dimos.forward`'s outputs.

    Matching runs at the mask logits' resolution; dice and focal at that of `targets.masks` (logits
    upsampled bilinearly where it is finer). Dice, focal and box are divided by the number of
    targets, the mean over the processes of a distributed run.
    """
    classes, logits = outputs['class_logits'], outputs['mask_logits']
    size, fine_size = logits.shape[-2:], targets.masks.shape[-2:]
    at_logits = targets.masks
    if fine_size != size:
        at_logits = F.adaptive_avg_pool2d(targets.masks, size)
    at_logits = Targets(targets.labels, at_logits, targets.boxes)
    table = costs(classes, logits, at_logits, weights.focal, weights.dice)
    pairs = match(table, targets.labels)
    count = mean_over_processes(targets.count)
    matched = logits[pairs.layer, pairs.sample, pairs.query]
    if fine_size != size:
        matched = F.interpolate(matched[:, None], fine_size, mode='bilinear', align_corners=False)
        matched = matched[:, 0]
    matched = matched.flatten(1)
    masks = targets.masks[pairs.sample, pairs.target].flatten(1)
    class_term = class_loss(classes, pairs, targets, weights.class_weights)
    return {
        'class': weights.classes * class_term,
        'dice': weights.dice * dice_loss(matched, masks).sum() / count,
        'focal': weights.focal * focal_loss(matched, masks).sum() / count,
        'box': weights.box * box_loss(outputs['boxes'], pairs, targets) / count,
    }


def foreground_loss(logits: Tensor, targets: Targets) -> Tensor:
    """Cross entropy + dice of "something moves here" (B, h, w): a direct gradient to the features.

    Not in the paper: queries matched from a random start say little for thousands of steps; on a
    CPU budget this shortens that phase.
    """
    background = targets.masks[:, :1]
    wanted = F.adaptive_avg_pool2d(1 - background, logits.shape[-2:])[:, 0].flatten(1)
    logits = logits.flatten(1)
    return F.binary_cross_entropy_with_logits(logits, wanted) + dice_loss(logits, wanted).mean()
