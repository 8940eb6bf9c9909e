"""Heads on the queries: class, mask and box."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers of these widths with ReLU between."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip(widths, widths[1:]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class QueryHeads(nn.Module):
    """Class logits {0 background or static, 1 moving, 2 no object}, mask logits, boxes in px.

    The paper regresses raw pixels; here a sigmoid keeps the box in the image and is scaled to px,
    so that the output has the paper's unit and a scale the first step can learn from.
    """

    def __init__(self, width: int, mask_width: int, raw_boxes: bool = False) -> None:
        """`raw_boxes`: as released, pixels without a sigmoid."""
        super().__init__()
        self.raw_boxes = raw_boxes
        self.classify = nn.Linear(width, 3)
        self.mask = mlp(width, width, width, mask_width)
        self.box_embed = mlp(width, width, width)
        self.box = mlp(width, width // 2, width // 2, 4)

    def forward(self, queries: Tensor, mask_features: Tensor,
                size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (..., B, Q, d) and features (B, m, h, w), the input being of `size` (H, W).

        -> class logits (..., B, Q, 3), mask logits (..., B, Q, h, w), boxes (..., B, Q, 4) px.
        """
        features = mask_features.flatten(2)
        masks = (self.mask(queries) @ features).unflatten(-1, mask_features.shape[2:])
        height, width = size
        scale = torch.tensor([width, height, width, height], dtype=torch.float32,
                             device=queries.device)
        boxes = self.box(self.box_embed(queries))
        if not self.raw_boxes:
            boxes = torch.sigmoid(boxes) * scale
        return self.classify(queries), masks, boxes
