"""FPN pixel decoder (as in mmdet 3.3, MaskFormer's) and the flow head."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_gn(inputs: int, outputs: int, kernel: int, groups: int,
            relu: bool = True) -> nn.Sequential:
    """conv without bias, group norm, optional ReLU."""
    convolution = nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2, bias=False)
    activation = [nn.ReLU()] if relu else []
    return nn.Sequential(convolution, nn.GroupNorm(groups, outputs), *activation)


def coordinates(like: Tensor) -> Tensor:
    """(B, 2, H, W) x and y in [-1, 1] beside a map."""
    batch, _, height, width = like.shape
    x = torch.linspace(-1, 1, width, dtype=like.dtype, device=like.device).view(1, 1, 1, width)
    y = torch.linspace(-1, 1, height, dtype=like.dtype, device=like.device).view(1, 1, height, 1)
    return torch.cat([x.expand(batch, 1, height, width), y.expand(batch, 1, height, width)], 1)


class PixelDecoder(nn.Module):
    """Top-down path over the three scales, ending in the mask features at the finest."""

    def __init__(self, inputs: int, width: int, groups: int, with_coordinates: bool) -> None:
        super().__init__()
        self.with_coordinates = with_coordinates
        self.top = conv_gn(inputs, width, 3, groups)
        self.laterals = nn.ModuleList(conv_gn(inputs, width, 1, groups, relu=False)
                                      for _ in range(2))
        self.smooth = nn.ModuleList(conv_gn(width, width, 3, groups) for _ in range(2))
        self.mask_features = nn.Conv2d(width + 2 * with_coordinates, width, 3, 1, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps, finest first, each half as large as the one before -> (B, width, h, w).

        At the size of the first.
        """
        x = self.top(maps[2])
        for level in (1, 0):
            lateral = self.laterals[level](maps[level])
            x = self.smooth[level](lateral + F.interpolate(x, lateral.shape[2:], mode='nearest'))
        if self.with_coordinates:
            x = torch.cat([x, coordinates(x)], 1)
        return self.mask_features(x)


class FlowHead(nn.Module):
    """Optical flow from frame t to the previous one, px at the input's size.

    From the motion halves of the fused maps.
    """

    def __init__(self, inputs: int, width: int, groups: int, wide: bool = False) -> None:
        """`wide`: as released, twice the width at 1/8 and 1/16 and one more layer at 1/16."""
        super().__init__()
        into = onto = (width, width, width)
        self.first = None
        if wide:
            into, onto = (width, 2 * width, 2 * width), (width, width, 2 * width)
            self.first = conv_gn(inputs, into[2], 1, groups, relu=False)
        self.adapt = nn.ModuleList(conv_gn(inputs, outputs, 1, groups, relu=False)
                                   for outputs in into)
        self.smooth = nn.ModuleList(conv_gn(*widths, 3, groups) for widths in zip(into, onto))
        self.out = nn.Conv2d(width, 2, 1)

    def forward(self, halves: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Motion halves of the maps -> (B, 2, H, W) of `size`, channel 0 = x."""
        top = self.adapt[2](halves[2])
        if self.first is not None:
            top = top + self.first(halves[2])
        x = self.smooth[2](top)
        for level in (1, 0):
            here = self.adapt[level](halves[level])
            x = self.smooth[level](here + F.interpolate(x, here.shape[2:], mode='nearest'))
        flow = F.interpolate(10.0 * self.out(x), size, mode='bilinear', align_corners=False)
        return flow * (size[0] / x.shape[2])
