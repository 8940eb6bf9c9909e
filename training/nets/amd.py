"""AMD: a soft segmentation into m regions, and the motion of each between two frames.

Liu et al., "The Emergence of Objectness", NeurIPS 2021, section 3; MoSIS' baseline (its 9.1).
Written from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn import functional as F

from training.nets.mosis import SegmentMotion, both_ways
from training.nets.pwc_lite import PwcConfig, PwcLite
from training.nets.resnet import Residual

_STRIDES, _DILATIONS = (1, 2, 1, 1), (1, 1, 1, 2)  # of the stages: output at 1/8


@dataclass(frozen=True)
class AmdConfig:
    """Sizes; the defaults are the paper's: ResNet-50, five regions."""

    size: tuple[int, int] = (128, 128)
    """(height, width) of the image."""
    regions: int = 5
    """m."""
    width: int = 64
    """Of the stem and of the first stage's 3x3 convolutions; doubles with each stage."""
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    """Residual blocks of each stage."""
    bottleneck: bool = True
    """1x1 - 3x3 - 1x1 blocks with four times the channels."""
    head: int = 256
    """Channels of the segmenting head."""
    motion: PwcConfig = field(default_factory=PwcConfig)
    """The motion network."""


class Segmenter(nn.Module):
    """A dilated ResNet and a head of two dilated convolutions: image -> m soft regions."""

    def __init__(self, config: AmdConfig) -> None:
        super().__init__()
        before = config.width
        layers: list[nn.Module] = [nn.Conv2d(3, before, 7, 2, 3, bias=False),
                                   nn.BatchNorm2d(before), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        growth = 4 if config.bottleneck else 1
        for stage, count in enumerate(config.blocks):
            width = config.width << stage
            for number in range(count):
                stride = 1 if number else _STRIDES[stage]
                layers.append(Residual(before, width, stride, config.bottleneck,
                                       _DILATIONS[stage]))
                before = growth * width
        for _ in range(2):
            layers += [nn.Conv2d(before, config.head, 3, padding=6, dilation=6, bias=False),
                       nn.BatchNorm2d(config.head), nn.ReLU()]
            before = config.head
        self.layers = nn.Sequential(*layers, nn.Dropout2d(0.1), nn.Conv2d(before, config.regions,
                                                                          1))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, m, H, W), sums to 1."""
        logits = F.interpolate(self.layers(image), image.shape[2:], mode='bilinear')
        return logits.softmax(1)


class Amd(nn.Module):
    """Frames -> regions and their motion. Only `segmenter` is needed after training."""

    def __init__(self, config: AmdConfig) -> None:
        super().__init__()
        self.config = config
        self.segmenter, self.motion = Segmenter(config), PwcLite(config.motion)

    def forward(self, first: Tensor, second: Tensor) -> SegmentMotion:
        """Of frames (B, 3, H, W) in [0, 1], both ways."""
        frames, others = both_ways(first, second)
        regions = self.segmenter(frames)
        return SegmentMotion(regions, self.motion.segment_flows(frames, others, regions))
