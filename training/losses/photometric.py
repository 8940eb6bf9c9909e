"""How well one frame is explained by another: SSIM, occlusion.

Shapes: B frames, H W pixels; images in [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_C1, _C2 = 0.01 ** 2, 0.03 ** 2


def ssim_distance(one: Tensor, other: Tensor) -> Tensor:
    """(B, H, W) in [0, 1]: (1 - SSIM) / 2 of images (B, 3, H, W), mean over their channels.

    Wang et al. 2004 with a 3x3 mean as the window, mirrored at the border. The thesis' eq 13,
    1 - SSIM, would reach 2.
    """
    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (1,) * 4, mode='reflect'), 3, 1)

    a, b = mean(one), mean(other)
    squares = mean(one * one) - a * a + mean(other * other) - b * b
    covariance = mean(one * other) - a * b
    ssim = ((2 * a * b + _C1) * (2 * covariance + _C2)
            / ((a * a + b * b + _C1) * (squares + _C2)))
    return ((1 - ssim) / 2).clamp(0, 1).mean(1)


def photometric_distance(one: Tensor, other: Tensor, kind: str = 'ssim') -> Tensor:
    """(B, H, W): 'ssim' (thesis 3.7), 'l1' (thesis 9.1) or 'mixed', 0.85 and 0.15 of both (AMD)."""
    l1 = (one - other).abs().mean(1)
    if kind == 'l1':
        return l1
    distance = ssim_distance(one, other)
    return distance if kind == 'ssim' else 0.85 * distance + 0.15 * l1


def visible(back: Tensor, least: float = 0.2) -> Tensor:
    """(B, H, W) bool: pixels that the other frame shows too.

    `back` (B, 2, H, W) px is the flow from the other frame to this one: a pixel is hidden in the
    other frame if bilinearly splatted flow brings less than `least` of a pixel to it (Wang et al.,
    "Occlusion aware unsupervised learning of optical flow", CVPR 2018).
    """
    batch, _, height, width = back.shape
    x = torch.arange(width, device=back.device) + back[:, 0]
    y = torch.arange(height, device=back.device)[:, None] + back[:, 1]
    left, top = x.floor(), y.floor()
    weight = back.new_zeros(batch, height * width)
    for column, share_x in ((left, left + 1 - x), (left + 1, x - left)):
        for row, share_y in ((top, top + 1 - y), (top + 1, y - top)):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            place = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
            weight.scatter_add_(1, place.flatten(1), (share_x * share_y * inside).flatten(1))
    return weight.view(batch, height, width) >= least
