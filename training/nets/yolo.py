"""YOLOv3 with masks: boxes on three grids, a map at 1/4 and a mask head on crops of it.

Redmon and Farhadi, "YOLOv3", 2018; N. Dubbeldam, "MoSIS", TU Delft 2025, sections 3.3 and 9.3. One
kind of object: the class output, whose loss the thesis sets to 0, is left out. Shapes: B batch, N
proposals (all anchors of all cells), K chosen ones, R side of a mask in its box.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mos_perception.errors import ConfigError
from training.nets.boxes import corners_of, crop, paste, suppress
from training.nets.darknet import Darknet, DarknetConfig, conv_leaky

STRIDES = (32, 16, 8)
MASK_STRIDE = 4
_ANCHOR_SIZE = 128  # px: the image for which the thesis gives its anchors
_LARGEST = 4.0  # of log(w / anchor): a box of 55 anchors


@dataclass(frozen=True)
class YoloConfig:
    """Sizes; the defaults are the thesis', and where it is silent Mask R-CNN's half width."""

    size: tuple[int, int] = (128, 128)
    """(height, width) of the image, multiples of 32."""
    darknet: DarknetConfig = field(default_factory=DarknetConfig)
    """The backbone."""
    anchors: tuple[tuple[tuple[int, int], ...], ...] = (
        ((48, 60), (64, 80), (80, 96)),
        ((20, 28), (28, 36), (36, 44)),
        ((8, 10), (12, 16), (16, 24)),
    )
    """(w, h) px of an image 128 px high, for strides 32, 16 and 8; scaled with the height."""
    mask_channels: int = 128
    """Of the map at 1/4 and of the mask head."""
    mask_side: int = 28
    """Cells of a mask across its box."""
    top_k: int = 32
    """Proposals that get a mask."""
    nms_iou: float = 0.0
    """Proposals that overlap a better one by more are not chosen; 0 = no suppression."""
    objectness_bias: float = -4.0
    """Of the objectness logit at the start: many likely boxes would leave no background."""

    def __post_init__(self) -> None:
        if any(length % STRIDES[0] for length in self.size):
            raise ConfigError(f'the detector\'s image is {self.size}: height and width must be '
                              f'multiples of {STRIDES[0]}')


@dataclass(frozen=True)
class Proposals:
    """Every anchor of every cell, strides 32, 16, 8; in each by anchor, row, column."""

    logits: Tensor
    """(B, N) objectness."""
    raw: Tensor
    """(B, N, 4): the logits of x and y in their cell, log of w and h over the anchor."""
    boxes: Tensor
    """(B, N, 4) cx, cy, w, h px."""
    features: Tensor
    """(B, C, H/4, W/4) of which masks are made."""


@dataclass(frozen=True)
class Detections:
    """The chosen proposals of each image, best first."""

    logits: Tensor
    """(B, K) objectness; -inf fills up where suppression left fewer than K."""
    boxes: Tensor
    """(B, K, 4) cx, cy, w, h px."""
    mask_logits: Tensor
    """(B, K, R, R) over the box."""

    def probabilities(self, size: tuple[int, int]) -> Tensor:
        """(B, K, H, W): objectness x mask, 0 outside the box (thesis 3.3, with the sigmoid that
        its eq 3 needs).
        """
        return self.logits.sigmoid()[..., None, None] * self.masks(size)

    def masks(self, size: tuple[int, int]) -> Tensor:
        """(B, K, H, W) in [0, 1], whatever the objectness."""
        return paste(self.mask_logits.sigmoid(), self.boxes, size)


class ConvSet(nn.Module):
    """YOLOv3's five alternating convolutions and its head of two."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        plan = [(inputs, width, 1), (width, 2 * width, 3), (2 * width, width, 1),
                (width, 2 * width, 3), (2 * width, width, 1)]
        self.layers = nn.Sequential(*(conv_leaky(*step) for step in plan))
        self.head = nn.Sequential(conv_leaky(width, 2 * width, 3), nn.Conv2d(2 * width, outputs, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) -> (features (B, width, h, w), predictions (B, outputs, h, w))."""
        features = self.layers(x)
        return features, self.head(features)


class Yolo(nn.Module):
    """Image -> proposals; proposals -> detections with masks."""

    def __init__(self, config: YoloConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Darknet(config.darknet)
        channels, inputs = config.darknet.channels[::-1], config.darknet.channels[-1]
        self.sets, self.laterals = nn.ModuleList(), nn.ModuleList()
        for level, anchors in enumerate(config.anchors):
            width = channels[level] // 2
            self.sets.append(ConvSet(inputs, width, 5 * len(anchors)))
            self.laterals.append(conv_leaky(width, width // 2, 1))
            inputs = width // 2 + channels[level + 1]
        masks = config.mask_channels
        self.fine = nn.Sequential(conv_leaky(inputs, masks, 1), conv_leaky(masks, masks, 3))
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [nn.Conv2d(masks, masks, 3, padding=1), nn.ReLU()]
        self.mask_head = nn.Sequential(*layers, nn.Conv2d(masks, 1, 1))
        for convs in self.sets:
            nn.init.zeros_(convs.head[-1].bias)
            nn.init.constant_(convs.head[-1].bias[::5], config.objectness_bias)

    def forward(self, image: Tensor) -> Proposals:
        """(B, 3, H, W) in [0, 1] -> all proposals."""
        maps = self.backbone(image)[::-1]
        x, logits, raw, boxes = maps[0], [], [], []
        for level, (convs, lateral) in enumerate(zip(self.sets, self.laterals)):
            features, predictions = convs(x)
            x = torch.cat([F.interpolate(lateral(features), scale_factor=2.0), maps[level + 1]], 1)
            cells = predictions.unflatten(1, (-1, 5))  # (B, A, 5, h, w)
            logits.append(cells[:, :, 0].flatten(1))
            raw.append(cells[:, :, 1:].permute(0, 1, 3, 4, 2))
            boxes.append(self._decoded(raw[-1], level).flatten(1, 3))
        return Proposals(torch.cat(logits, 1), torch.cat([one.flatten(1, 3) for one in raw], 1),
                         torch.cat(boxes, 1), self.fine(x))

    def anchors(self, level: int) -> Tensor:
        """(A, 2) px (w, h) of a level."""
        return torch.tensor(self.config.anchors[level]) * (self.config.size[0] / _ANCHOR_SIZE)

    def detect(self, proposals: Proposals, top_k: int = 0, nms_iou: float | None = None
               ) -> Detections:
        """The best proposals and their masks; the configuration's numbers unless others are given.

        The choice carries no gradient, what is chosen does; crops are of boxes that stand still.
        """
        top_k = min(top_k or self.config.top_k, proposals.logits.shape[1])
        iou = self.config.nms_iou if nms_iou is None else nms_iou
        pool = min(4 * top_k, proposals.logits.shape[1]) if iou else top_k
        ranks, order = proposals.logits.detach().topk(pool, 1)
        if iou:
            corners = corners_of(proposals.boxes.detach().gather(1, order[..., None].expand(
                -1, -1, 4)))
            kept = suppress(corners, iou)
            first = ranks.masked_fill(~kept, -torch.inf).topk(top_k, 1)
            order, spare = order.gather(1, first.indices), first.values.isneginf()
        else:
            spare = torch.zeros_like(order, dtype=torch.bool)
        logits = proposals.logits.gather(1, order).masked_fill(spare, -torch.inf)
        boxes = proposals.boxes.gather(1, order[..., None].expand(-1, -1, 4))
        return Detections(logits, boxes, self.mask_logits(proposals.features, boxes.detach()))

    def mask_logits(self, features: Tensor, boxes: Tensor) -> Tensor:
        """(B, K, R, R) of boxes (B, K, 4) px."""
        crops = crop(features, boxes, self.config.mask_side, MASK_STRIDE)
        return self.mask_head(crops).view(*boxes.shape[:2], *crops.shape[2:])

    def _decoded(self, raw: Tensor, level: int) -> Tensor:
        """Boxes (B, A, h, w, 4) px of what the cells say (B, A, h, w, 4)."""
        rows, columns = (torch.arange(n, device=raw.device) for n in raw.shape[2:4])
        cell = torch.stack(torch.broadcast_tensors(columns[None, :], rows[:, None]), -1)
        centre = (raw[..., :2].sigmoid() + cell) * STRIDES[level]
        anchors = self.anchors(level).to(raw)[:, None, None]
        return torch.cat([centre, anchors * raw[..., 2:].clamp(max=_LARGEST).exp()], -1)
