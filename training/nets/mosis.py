"""MoSIS: a detector of one frame and the motion of its masks between two.

N. Dubbeldam, "MoSIS: End-to-End Self-Supervised Instance Segmentation from Video", TU Delft 2025,
sections 3.2 to 3.6. Shapes: B pairs, K detections, S = K + 1 segments, the background first.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from training.nets.pwc_lite import EPSILON, PwcConfig, PwcLite
from training.nets.yolo import Detections, Yolo, YoloConfig


@dataclass(frozen=True)
class MosisConfig:
    """Sizes of both networks; the defaults are the thesis'."""

    detector: YoloConfig = field(default_factory=YoloConfig)
    """What runs on the robot."""
    motion: PwcConfig = field(default_factory=PwcConfig)
    """The teacher."""
    frozen: bool = False
    """The motion network learns alone: no gradient for the detector."""


@dataclass(frozen=True)
class SegmentMotion:
    """What explains frame 2 of each pair by frame 1 and the other way round: 2 B rows, the pairs
    first forward, then backward.
    """

    partition: Tensor
    """(2 B, S, H, W), sums to 1: segments of the frame that is explained."""
    flows: list[Tensor]
    """Per level of the motion network, coarse to fine: (2 B, S, 2) px from that frame to the
    other."""
    detections: Detections | None = None
    """Of which the segments but the first were made, if they were."""


def partition(probabilities: Tensor) -> Tensor:
    """(B, K, H, W) in [0, 1] -> (B, K + 1, H, W), sums to 1 (thesis eq 3 and 4).

    The first is the background, prod_i (1 - M_i). With many overlapping masks of middling
    probability it starves: 32 of 0.25 leave it 1e-5.
    """
    background = (1 - probabilities).prod(1, keepdim=True)
    both = torch.cat([background, probabilities], 1)
    return both / (both.sum(1, keepdim=True) + EPSILON)


def both_ways(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """(2 B, ...) of (B, ...) each: what is explained, and what it is explained by."""
    return torch.cat([first, second]), torch.cat([second, first])


class Mosis(nn.Module):
    """Frames -> segments and their motion. Only `detector` is needed after training."""

    def __init__(self, config: MosisConfig) -> None:
        super().__init__()
        self.config = config
        self.detector, self.motion = Yolo(config.detector), PwcLite(config.motion)

    def forward(self, first: Tensor, second: Tensor) -> SegmentMotion:
        """Of frames (B, 3, H, W) in [0, 1], both ways."""
        frames, others = both_ways(first, second)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.frozen):
            detections = self.detector.detect(self.detector(frames))
            segments = partition(detections.probabilities(tuple(frames.shape[2:])))
        return SegmentMotion(segments, self.motion.segment_flows(frames, others, segments),
                             detections)
