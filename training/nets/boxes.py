"""Boxes and their masks: crops, differentiable pasting, overlap, suppression.

A box is cx, cy, w, h px; its area spans cx - w/2 to cx + w/2, where pixel column x covers x to
x + 1. Shapes: B batch, K boxes of an image, R side of a mask in its box.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def corners_of(boxes: Tensor) -> Tensor:
    """(..., 4) cx, cy, w, h -> x1, y1, x2, y2 with exclusive far edges."""
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


def centred(corners: Tensor) -> Tensor:
    """(..., 4) x1, y1, x2, y2 -> cx, cy, w, h."""
    near, far = corners[..., :2], corners[..., 2:]
    return torch.cat([(near + far) / 2, far - near], -1)


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of (..., N, 4) and (..., M, 4) corners: (..., N, M)."""
    near = torch.maximum(a[..., :, None, :2], b[..., None, :, :2])
    far = torch.minimum(a[..., :, None, 2:], b[..., None, :, 2:])
    common = (far - near).clamp(min=0).prod(-1)
    area_a, area_b = ((box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (a, b))
    return common / (area_a[..., :, None] + area_b[..., None, :] - common).clamp(min=1e-6)


def suppress(corners: Tensor, iou: float) -> Tensor:
    """(B, N) bool: which of the boxes (B, N, 4), best first, greedy non-maximum suppression keeps.

    A box is dropped if it overlaps a kept better one by more than `iou`.
    """
    overlaps = box_iou(corners, corners) > iou
    kept = torch.ones(corners.shape[:2], dtype=torch.bool, device=corners.device)
    for row in range(corners.shape[1]):
        kept[:, row + 1:] &= ~(overlaps[:, row, row + 1:] & kept[:, row, None])
    return kept


def crop(features: Tensor, boxes: Tensor, side: int, stride: int) -> Tensor:
    """ROIAlign with one sample at each bin's centre (He et al., Mask R-CNN, 2017).

    features (B, C, h, w) at 1 / `stride` of the image, boxes (B, K, 4) px of the image ->
    (B K, C, side, side). Beyond the map its border's values.
    """
    batch, count = boxes.shape[:2]
    height, width = features.shape[2:]
    at = (torch.arange(side, device=boxes.device, dtype=boxes.dtype) + 0.5) / side - 0.5
    x = (boxes[..., 0, None] + at * boxes[..., 2, None]) * (2 / (stride * width)) - 1
    y = (boxes[..., 1, None] + at * boxes[..., 3, None]) * (2 / (stride * height)) - 1
    # all boxes of an image side by side, so that its map is not copied for each
    grid = torch.stack(torch.broadcast_tensors(x[:, :, None, :], y[:, :, :, None]), -1)
    found = F.grid_sample(features, grid.flatten(1, 2), 'bilinear', 'border', align_corners=False)
    return found.unflatten(2, (count, side)).transpose(1, 2).reshape(
        batch * count, features.shape[1], side, side)


def paste(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (B, K, R, R) spread over their boxes (B, K, 4): (B, K, H, W), 0 outside.

    Bilinear by the inverse of the box' map, so the gradient reaches the boxes, which those of
    torchvision's ROIAlign and pasting do not. At the box' edge the mask fades to 0 over one cell.
    """
    (height, width), (batch, count, side) = size, masks.shape[:3]
    rows, columns = (torch.arange(n, device=boxes.device, dtype=boxes.dtype) + 0.5 for n in size)
    x = (columns - boxes[..., 0, None]) * (2 / boxes[..., 2, None])
    y = (rows - boxes[..., 1, None]) * (2 / boxes[..., 3, None])
    grid = torch.stack(torch.broadcast_tensors(x[:, :, None, :], y[:, :, :, None]), -1)
    flat = masks.reshape(batch * count, 1, side, side)
    pasted = F.grid_sample(flat, grid.flatten(0, 1), 'bilinear', 'zeros', align_corners=False)
    return pasted.view(batch, count, height, width)
