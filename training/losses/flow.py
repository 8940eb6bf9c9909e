"""Optical flow: unsupervised, and where the true flow is known.

Unsupervised are photometric and edge-aware smoothness terms and the census, as released. The
flow of frame t points to the frame before it, because our event windows lie before the frame.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """image (B, C, H, W) read at x + flow(x), flow (B, 2, H, W) px.

    Bilinear, clamped at the border.
    """
    _, _, height, width = image.shape
    x = torch.arange(width, dtype=flow.dtype, device=flow.device) + flow[:, 0]
    y = torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None] + flow[:, 1]
    grid = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], -1)
    return F.grid_sample(image, grid, mode='bilinear', padding_mode='border', align_corners=True)


def photometric_loss(image: Tensor, previous: Tensor, flow: Tensor) -> Tensor:
    """mean((|I - I_prev(x + flow)| + 0.01)^0.4)."""
    return ((image - warp(previous, flow)).abs() + 0.01).pow(0.4).mean()


def smoothness_loss(image: Tensor, flow: Tensor) -> Tensor:
    """Mean of |d flow| exp(-mean_c |d image|), x and y added."""
    total = flow.new_zeros(())
    for axis in (-1, -2):
        weight = torch.exp(-image.diff(dim=axis).abs().mean(1, keepdim=True))
        total = total + (flow.diff(dim=axis).abs() * weight).mean()
    return total


def census(image: Tensor, size: int = 7) -> Tensor:
    """(B, 3, H, W) -> (B, size^2, H, W): soft ternary signs of each pixel's neighbours against it.

    d / sqrt(0.81 + d^2) of grey levels (0.2989, 0.587, 0.114) x 255; zero padding.
    """
    luminance = image.new_tensor([0.2989, 0.587, 0.114])[:, None, None]
    grey = (image * luminance).sum(1, keepdim=True) * 255
    around = F.unfold(grey, size, padding=size // 2).unflatten(2, image.shape[-2:])
    difference = around - grey
    return difference / torch.sqrt(0.81 + difference * difference)


def census_loss(image: Tensor, previous: Tensor, flow: Tensor) -> Tensor:
    """mean((|soft Hamming distance| + 0.01)^0.4) of the census of I and I_prev(x + flow).

    Meister 2018.
    """
    squared = (census(image) - census(warp(previous, flow))) ** 2
    return ((squared / (0.1 + squared)).sum(1).abs() + 0.01).pow(0.4).mean()


def flow_loss(image: Tensor, previous: Tensor, flow: Tensor,
              with_census: bool = False) -> Tensor:
    """Normalised images (B, 3, H, W) of any size, flow (B, 2, h, w) in px of the images -> scalar.

    The images are area-averaged to the flow's size, and the flow scaled to its pixels.
    `with_census`: all three terms, as released.
    """
    scale = flow.shape[-1] / image.shape[-1]
    image = F.adaptive_avg_pool2d(image, flow.shape[-2:])
    previous = F.adaptive_avg_pool2d(previous, flow.shape[-2:])
    flow = flow * scale
    total = photometric_loss(image, previous, flow) + smoothness_loss(image, flow)
    if with_census:
        total = total + census_loss(image, previous, flow)
    return total


def true_flow_loss(flow: Tensor, truth: Tensor, background: Tensor) -> Tensor:
    """|flow - truth| px, (B, 2, h, w) both: half its mean over the background, half elsewhere.

    NaN is unknown. `background` (B, H, W) is 1 where nothing moves by itself. Not in the paper,
    whose data have no true flow; rendered scenes do.
    """
    known = truth.isfinite().all(1)
    error = (flow - truth.nan_to_num()).abs().sum(1)
    still = F.adaptive_avg_pool2d(background[:, None], flow.shape[-2:])[:, 0]

    def mean_over(weight: Tensor) -> Tensor:
        return (error * weight).sum() / weight.sum().clamp(min=1.0)

    return (mean_over(still * known) + mean_over((1 - still) * known)) / 2
