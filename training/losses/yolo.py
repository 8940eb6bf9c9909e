"""The supervised losses of the detector and of the flow.

Redmon and Farhadi, YOLOv3, 2018, with the thesis' choices (MoSIS, 9.2 and 9.3); masks as in Mask
R-CNN. Shapes: B images, N proposals, D objects of an image, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from training.nets.boxes import box_iou, centred, corners_of, crop
from training.nets.yolo import STRIDES, Proposals, Yolo

_COARSE_FLOW = 0.3
_SHAPE_IOU = 0.5  # YOLOv3: an anchor of the cell that fits this well is no negative


@dataclass(frozen=True)
class YoloWeights:
    """Factors of the terms. The thesis gives none."""

    box: float = 5.0
    """Of the boxes' squared error, in cells and logarithms."""
    object: float = 5.0
    """Of (objectness - IoU)^2 where an object is."""
    no_object: float = 20.0
    """Of the cross-entropy where none is."""
    mask: float = 1.0
    """Of the masks' cross-entropy."""
    jitter: float = 0.1
    """Boxes that masks are learnt in are moved and scaled by up to this share of their size."""


@dataclass(frozen=True)
class Assignment:
    """Which proposal answers for which object."""

    image: Tensor
    """(M,) of the batch."""
    proposal: Tensor
    """(M,) of N."""
    target: Tensor
    """(M, 4): where in its cell x and y are, [0, 1); log of w and h over the anchor."""
    boxes: Tensor
    """(M, 4) the objects' corners, px."""
    ignored: Tensor
    """(B, N) bool: neither object nor background."""


def assign(network: Yolo, boxes: list[Tensor]) -> Assignment:
    """The anchor whose shape fits an object best, in the cell of its centre.

    boxes: per image (D, 4) corners, px. Of two objects with the same cell and anchor the later is
    kept.
    """
    size, counts = network.config.size, [len(level) for level in network.config.anchors]
    cells = [(size[0] // stride, size[1] // stride) for stride in STRIDES]
    starts = [0]
    for count, (rows, columns) in zip(counts, cells):
        starts.append(starts[-1] + count * rows * columns)
    anchors = torch.cat([network.anchors(level) for level in range(len(STRIDES))])
    ignored = torch.zeros(len(boxes), starts[-1], dtype=torch.bool)
    found: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    for image, corners in enumerate(boxes):
        for box in corners.cpu():
            centre = centred(box)
            fits = _shape_iou(centre[2:], anchors)
            for anchor in range(len(anchors)):
                level, number = anchor // counts[0], anchor % counts[0]
                best = anchor == int(fits.argmax())
                if not best and fits[anchor] <= _SHAPE_IOU:
                    continue
                at = (centre[:2] / STRIDES[level]).clamp(min=0)
                (rows, columns), cell = cells[level], at.long()
                column, row = min(int(cell[0]), columns - 1), min(int(cell[1]), rows - 1)
                place = starts[level] + (number * rows + row) * columns + column
                ignored[image, place] = True
                if best:
                    inside = (at - torch.tensor([column, row])).clamp(0, 1)
                    ratio = (centre[2:] / anchors[anchor]).log()
                    found[image, place] = (torch.cat([inside, ratio]), box)
    places = torch.tensor(list(found), dtype=torch.int64).view(-1, 2)
    values = list(found.values())
    target, kept = (torch.stack([value[n] for value in values]) if values
                    else torch.zeros(0, 4) for n in (0, 1))
    return Assignment(places[:, 0], places[:, 1], target, kept, ignored)


def _shape_iou(size: Tensor, anchors: Tensor) -> Tensor:
    """(A,) overlap of a (w, h) with each of (A, 2) when both have the same centre."""
    common = torch.minimum(size, anchors).prod(1)
    return common / (size.prod() + anchors.prod(1) - common)


def detection_losses(proposals: Proposals, found: Assignment,
                     weights: YoloWeights) -> dict[str, Tensor]:
    """Cross-entropy where no object is, squared errors of objectness (against the IoU) and box."""
    device = proposals.logits.device
    rows = (found.image.to(device), found.proposal.to(device))
    background = ~found.ignored.to(device)
    none = F.softplus(proposals.logits[background]).mean()
    count = max(len(found.image), 1)
    corners = corners_of(proposals.boxes[rows].detach())
    iou = box_iou(corners[:, None], found.boxes.to(corners)[:, None])[:, 0, 0]
    objects = (proposals.logits[rows].sigmoid() - iou).square().sum() / count
    raw, target = proposals.raw[rows], found.target.to(corners)
    said = torch.cat([raw[:, :2].sigmoid(), raw[:, 2:]], 1)
    boxes = (said - target).square().sum() / count
    return {'no_object': weights.no_object * none, 'object': weights.object * objects,
            'box': weights.box * boxes}


def mask_loss(network: Yolo, proposals: Proposals, masks: list[Tensor], boxes: list[Tensor],
              jitter: float) -> Tensor:
    """Cross-entropy of the masks in the objects' own boxes, moved a little.

    masks: per image (D, H, W) bool; boxes: (D, 4) corners, px.
    """
    side, total, count = network.config.mask_side, proposals.features.sum() * 0, 0
    for row, (mask, corners) in enumerate(zip(masks, boxes)):
        if not len(mask):
            continue
        box = centred(corners)
        shift = jitter * (2 * torch.rand_like(box) - 1)
        box = torch.cat([box[:, :2] + shift[:, :2] * box[:, 2:], box[:, 2:] * shift[:, 2:].exp()],
                        1)
        logits = network.mask_logits(proposals.features[row:row + 1], box[None])[0]
        # each mask is its own image, cropped by its own box
        truth = crop(mask[:, None].float(), box[:, None], side, 1)[:, 0]
        total = total + F.binary_cross_entropy_with_logits(logits, truth, reduction='none').mean(
            (1, 2)).sum()
        count += len(mask)
    return total / max(count, 1)


def flow_losses(flows: list[Tensor], truth: Tensor) -> dict[str, Tensor]:
    """Mean of (flow - truth)^2 over both components, px^2 (thesis 9.2), at full size and, weighted,
    at each coarser level as in PWC-Net: these, too, are to find what they can see.

    flows: coarse to fine, (B, 2, h, w) px of the full size each; truth (B, 2, H, W).
    """
    *coarse, fine = flows
    terms = [(level - F.adaptive_avg_pool2d(truth, level.shape[2:])).square().mean()
             for level in coarse]
    return {'flow_mse': (fine - truth).square().mean(), 'coarse': _COARSE_FLOW * sum(terms)}
