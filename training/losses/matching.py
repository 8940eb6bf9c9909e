"""Hungarian matching of queries to targets, per decoder layer (costs as in mmdet 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

ALPHA, GAMMA = 0.25, 2.0


@dataclass(frozen=True)
class Targets:
    """Padded ground truth of a batch; row 0 is always the background."""

    labels: Tensor
    """(B, N) int64: 0 background, 1 moving, -1 padding."""
    masks: Tensor
    """(B, N, h, w) float in [0, 1] at the loss's resolution."""
    boxes: Tensor
    """(B, N, 4) xyxy px at the network's size, -1 for background and padding."""

    @property
    def count(self) -> int:
        """Targets in the batch, backgrounds included."""
        return int((self.labels >= 0).sum())


@dataclass(frozen=True)
class Matches:
    """Index arrays (M,) of matched pairs over all layers."""

    layer: Tensor
    sample: Tensor
    query: Tensor
    target: Tensor


def focal_cost(logits: Tensor, masks: Tensor) -> Tensor:
    """Focal cost (Lin 2017), mean over pixels.

    Logits (..., Q, P), masks (..., N, P) -> (..., Q, N).
    """
    p = logits.sigmoid()
    on = -(p + 1e-12).log() * ALPHA * (1 - p) ** GAMMA
    off = -(1 - p + 1e-12).log() * (1 - ALPHA) * p ** GAMMA
    # on . g + off . (1 - g), in one product
    return ((on - off) @ masks.transpose(-1, -2) + off.sum(-1, keepdim=True)) / logits.shape[-1]


def dice_cost(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - (2 p.g + 1) / (sum p + sum g + 1).

    Logits (..., Q, P), masks (..., N, P) -> (..., Q, N).
    """
    p = logits.sigmoid()
    total = p.sum(-1)[..., :, None] + masks.sum(-1)[..., None, :]
    return 1 - (2 * p @ masks.transpose(-1, -2) + 1) / (total + 1)


@torch.no_grad()
def costs(class_logits: Tensor, mask_logits: Tensor, targets: Targets, focal: float,
          dice: float) -> Tensor:
    """Cost of each pair (L, B, Q, N) = -p[label] + focal * focal cost + dice * dice cost.

    The sizes of logits and masks agree.
    """
    logits, masks = mask_logits.flatten(-2), targets.masks.flatten(-2)[None]
    labels = targets.labels.clamp(min=0)[None, :, None, :].expand(*class_logits.shape[:3], -1)
    probability = class_logits.softmax(-1).gather(-1, labels)
    return focal * focal_cost(logits, masks) + dice * dice_cost(logits, masks) - probability


def match(cost: Tensor, labels: Tensor) -> Matches:
    """The cheapest one-to-one pairs per layer and sample.

    cost (L, B, Q, N), labels (B, N) with -1 = padding.
    """
    table, counts = cost.cpu().numpy(), (labels >= 0).sum(1).tolist()
    rows: list[np.ndarray] = []
    for layer in range(table.shape[0]):
        for sample, count in enumerate(counts):
            query, target = linear_sum_assignment(table[layer, sample, :, :count])
            here = np.full_like(query, layer), np.full_like(query, sample)
            rows.append(np.stack([*here, query, target]))
    return Matches(*torch.from_numpy(np.concatenate(rows, 1)).to(cost.device))
