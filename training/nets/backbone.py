"""A narrow three-scale convolutional encoder: maps at 1/4, 1/8 and 1/16 of the input, or finer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.nets.convolution import StridedPointwise


def conv_bn(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """conv3x3 without bias, then batch norm; no activation."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class ResidualBlock(nn.Module):
    """Two conv3x3 + BN with a skip (He et al. 2016, basic block).

    The skip is a 1x1 where the shape changes.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = conv_bn(inputs, outputs, stride), conv_bn(outputs, outputs)
        if inputs == outputs and stride == 1:
            self.skip: nn.Module = nn.Identity()
        else:
            self.skip = nn.Sequential(StridedPointwise(inputs, outputs, stride),
                                      nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H/stride, W/stride)."""
        return F.relu(self.second(F.relu(self.first(x))) + self.skip(x))


class Encoder(nn.Module):
    """Stem of two convolutions (`first_stride`, 2), then three stages of residual blocks.

    The stages' strides are 1, 2, 2.
    """

    def __init__(self, inputs: int, stem: int, channels: tuple[int, int, int],
                 blocks: tuple[int, int, int], first_stride: int = 2) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(inputs, stem, first_stride), nn.ReLU(),
                                  conv_bn(stem, channels[0], 2), nn.ReLU())
        self.stages = nn.ModuleList()
        width = channels[0]
        for stage, (outputs, count) in enumerate(zip(channels, blocks)):
            layers = [ResidualBlock(width, outputs, 1 if stage == 0 else 2)]
            layers += [ResidualBlock(outputs, outputs, 1) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*layers))
            width = outputs

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, inputs, H, W) -> maps at 1/s, 1/2s, 1/4s, s = 2 `first_stride` (sizes rounded up)."""
        maps, x = [], self.stem(x)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def event_validity(voxel: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 1, H, W) float: 1 where any bin holds an event."""
    return (voxel.sum(1, keepdim=True) != 0).to(voxel.dtype)


class EventMaskEncoder(nn.Module):
    """Where events fell, as features as fine as an `Encoder`'s: two convolutions."""

    def __init__(self, middle: int, outputs: int, first_stride: int = 2) -> None:
        super().__init__()
        self.layers = nn.Sequential(conv_bn(1, middle, first_stride), nn.ReLU(),
                                    nn.Conv2d(middle, outputs, 3, 2, 1))

    def forward(self, voxel: Tensor, sizes: list[torch.Size]) -> list[Tensor]:
        """Voxel (B, C, H, W) -> (B, outputs, h, w) for each (h, w) of `sizes`.

        Resized with align_corners, as released.
        """
        features, resized = self.layers(event_validity(voxel)), []
        for size in sizes:
            if features.shape[2:] == size:
                resized.append(features)
            else:
                resized.append(F.interpolate(features, size, mode='bilinear', align_corners=True))
        return resized
