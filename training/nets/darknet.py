"""Darknet-53 (Redmon and Farhadi, YOLOv3, 2018) in any width and depth: maps at 1/4 to 1/32."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class DarknetConfig:
    """Sizes; the defaults are Darknet-53's, 40.58 M parameters without its classifier."""

    stem: int = 32
    """Channels at full resolution."""
    channels: tuple[int, int, int, int, int] = (64, 128, 256, 512, 1024)
    """Of the stages at 1/2, 1/4, 1/8, 1/16 and 1/32."""
    blocks: tuple[int, int, int, int, int] = (1, 2, 8, 8, 4)
    """Residual blocks of each stage."""


def conv_leaky(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm, LeakyReLU 0.1."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1))


class DarknetBlock(nn.Module):
    """1x1 to half the channels, 3x3 back, and a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(conv_leaky(channels, channels // 2, 1),
                                    conv_leaky(channels // 2, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        return x + self.layers(x)


class Darknet(nn.Module):
    """A 3x3 stem, then five stages: 3x3 stride 2 and residual blocks."""

    def __init__(self, config: DarknetConfig) -> None:
        super().__init__()
        self.stem = conv_leaky(3, config.stem, 3)
        before, stages = config.stem, []
        for channels, blocks in zip(config.channels, config.blocks):
            stages.append(nn.Sequential(conv_leaky(before, channels, 3, 2),
                                        *(DarknetBlock(channels) for _ in range(blocks))))
            before = channels
        self.stages = nn.ModuleList(stages)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> maps at 1/4, 1/8, 1/16, 1/32."""
        maps, x = [], self.stem(image)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[1:]
