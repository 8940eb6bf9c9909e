"""Three-scale convolutional encoder: maps at 1/4, 1/8 and 1/16 of the input (dimos.md 1.3, narrow) or finer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_bn(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """conv3x3 without bias, then batch norm; no activation."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))


class StridedPointwise(nn.Conv2d):
    """conv1x1 without bias or padding that takes every `stride`-th pixel; weights and export are a plain Conv2d's.

    In training the pixels are picked before a convolution of stride 1: oneDNN's weight gradient of a strided 1x1
    writes past its buffer on AVX2 below 8 input channels, on AVX-512 below 16 (public issue uxlfoundation/oneDNN
    #6035), and a user's own narrow recipe must not end in a crash.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H/stride, W/stride), rounded up."""
        if not self.training:
            return super().forward(x)
        return F.conv2d(x[:, :, ::self.stride[0], ::self.stride[1]], self.weight)


class ResidualBlock(nn.Module):
    """Two conv3x3 + BN with a skip (He et al. 2016, basic block); the skip is a 1x1 where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = conv_bn(inputs, outputs, stride), conv_bn(outputs, outputs)
        same = inputs == outputs and stride == 1
        self.skip = nn.Identity() if same else nn.Sequential(
            StridedPointwise(inputs, outputs, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H/stride, W/stride)."""
        return F.relu(self.second(F.relu(self.first(x))) + self.skip(x))


class Encoder(nn.Module):
    """Stem of two convolutions (`first_stride`, 2), then three stages of residual blocks with strides 1, 2, 2."""

    def __init__(self, inputs: int, stem: int, channels: tuple[int, int, int], blocks: tuple[int, int, int],
                 first_stride: int = 2) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(inputs, stem, first_stride), nn.ReLU(),
                                  conv_bn(stem, channels[0], 2), nn.ReLU())
        stages, width = [], channels[0]
        for number, (outputs, count) in enumerate(zip(channels, blocks)):
            strides = [1 if number == 0 else 2] + [1] * (count - 1)
            stages.append(nn.Sequential(*(ResidualBlock(width if k == 0 else outputs, outputs, s)
                                          for k, s in enumerate(strides))))
            width = outputs
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, inputs, H, W) -> maps at 1/s, 1/2s, 1/4s, s = 2 `first_stride` (sizes rounded up)."""
        maps, x = [], self.stem(x)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def event_validity(voxel: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 1, H, W) float: 1 where any bin holds an event (dimos.md 1.4)."""
    return (voxel.sum(1, keepdim=True) != 0).to(voxel.dtype)


class EventMaskEncoder(nn.Module):
    """Where events fell, as features as fine as an `Encoder`'s: two conv BN (ReLU between), dimos.md 1.4."""

    def __init__(self, middle: int, outputs: int, first_stride: int = 2) -> None:
        super().__init__()
        self.layers = nn.Sequential(conv_bn(1, middle, first_stride), nn.ReLU(), nn.Conv2d(middle, outputs, 3, 2, 1))

    def forward(self, voxel: Tensor, sizes: list[torch.Size]) -> list[Tensor]:
        """Voxel (B, C, H, W) -> (B, outputs, h, w) resized (align_corners) to each (h, w) of `sizes`."""
        features = self.layers(event_validity(voxel))
        return [features if features.shape[2:] == size else
                F.interpolate(features, size, mode='bilinear', align_corners=True) for size in sizes]
