"""DIMOS (CVPR 2026) written from its equations (dimos.md 1.3-1.5): frames + events -> moving instances."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.nets.backbone import Encoder, EventMaskEncoder
from training.nets.fusion import Interaction, ModalityFusion
from training.nets.heads import QueryHeads
from training.nets.pixel_decoder import FlowHead, PixelDecoder
from training.nets.query_decoder import QueryDecoder


@dataclass(frozen=True)
class DimosConfig:
    """Widths and depths. The defaults are `nano`; 2 * hidden is the width of the interaction's output."""

    size: tuple[int, int] = (120, 160)
    event_channels: int = 10
    stem: int = 16
    channels: tuple[int, int, int] = (16, 32, 64)
    blocks: tuple[int, int, int] = (1, 2, 2)
    hidden: int = 24
    heads: tuple[int, int, int] = (1, 2, 4)
    expansion: float = 2.67
    groups: int = 8
    with_coordinates: bool = True
    queries: int = 10
    width: int = 64
    attention_heads: int = 4
    feed_forward: int = 128
    layers: int = 3
    dropout: float = 0.0


class Dimos(nn.Module):
    """Four unshared encoders, fusion per scale and type, interaction, pixel decoder, query decoder, heads."""

    def __init__(self, config: DimosConfig) -> None:
        super().__init__()
        self.config = config
        self.image_appearance, self.image_motion = (Encoder(3, config.stem, config.channels, config.blocks)
                                                    for _ in range(2))
        self.event_appearance, self.event_motion = (
            Encoder(config.event_channels, config.stem, config.channels, config.blocks) for _ in range(2))
        self.event_mask = EventMaskEncoder(max(config.hidden // 2, 1), config.hidden)
        self.fuse_appearance, self.fuse_motion = (nn.ModuleList(map(ModalityFusion, config.channels)) for _ in range(2))
        self.interactions = nn.ModuleList(Interaction(channels, config.hidden, heads, config.expansion)
                                          for channels, heads in zip(config.channels, config.heads))
        fused = 2 * config.hidden
        self.pixel_decoder = PixelDecoder(fused, fused, config.groups, config.with_coordinates)
        self.memory = nn.Identity() if fused == config.width else nn.Conv2d(fused, config.width, 1)
        self.query_decoder = QueryDecoder(config.queries, config.width, config.attention_heads, config.feed_forward,
                                          config.layers, config.dropout)
        self.heads = QueryHeads(config.width, fused)
        self.flow = FlowHead(config.hidden, config.hidden, config.groups)
        self.dense = nn.Conv2d(fused, 1, 1)

    def encode(self, image: Tensor, voxel: Tensor) -> list[Tensor]:
        """Image (B, 3, H, W), voxel (B, C, H, W), both normalised -> (B, 2 hidden, h, w) at 1/4, 1/8, 1/16."""
        appearance = [fuse(*pair) for fuse, *pair in
                      zip(self.fuse_appearance, self.image_appearance(image), self.event_appearance(voxel))]
        motion = [fuse(*pair) for fuse, *pair in
                  zip(self.fuse_motion, self.image_motion(image), self.event_motion(voxel))]
        masks = self.event_mask(voxel, [m.shape[2:] for m in appearance])
        return [mix(*maps) for mix, *maps in zip(self.interactions, appearance, motion, masks)]

    def forward(self, image: Tensor, voxel: Tensor) -> dict[str, Tensor]:
        """All decoder layers' outputs, for training.

        `class_logits` (L, B, Q, 3), `mask_logits` (L, B, Q, H/4, W/4), `boxes` (L, B, Q, 4) px, `embeddings`
        (B, Q, d), `flow` (B, 2, H/2, W/2) in px of the input to the previous frame, `dense` (B, H/4, W/4)
        logits of "some mover here".
        """
        size = image.shape[2:]
        maps = self.encode(image, voxel)
        features = self.pixel_decoder(maps)
        queries = self.query_decoder(self.memory(maps[2]))
        classes, masks, boxes = self.heads(queries, features, size)
        half = (-(-size[0] // 2), -(-size[1] // 2))
        flow = 2 * self.flow([m[:, self.config.hidden:] for m in maps], half)
        return {'class_logits': classes, 'mask_logits': masks, 'boxes': boxes, 'embeddings': queries[-1],
                'flow': flow, 'dense': self.dense(features)[:, 0]}

    def infer(self, image: Tensor, voxel: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The last layer only, no flow: class logits, mask logits, boxes, embeddings (what is exported)."""
        maps = self.encode(image, voxel)
        queries = self.query_decoder(self.memory(maps[2]))[-1]
        return *self.heads(queries, self.pixel_decoder(maps), image.shape[2:]), queries


class Inference(nn.Module):
    """`Dimos.infer` as a module, for export."""

    def __init__(self, network: Dimos) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, voxel: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(1, 3, H, W), (1, C, H, W) -> class logits, mask logits, boxes, embeddings."""
        return self.network.infer(image, voxel)


@torch.no_grad()
def count_macs(network: Dimos) -> int:
    """Multiply-accumulates of the convolutions and linear layers of one inference (attention products left out)."""
    total, handles = [], []

    def conv(module: nn.Conv2d, _: tuple, out: Tensor) -> None:
        total.append(module.weight[0].numel() * out[0].numel())

    def linear(module: nn.Linear, _: tuple, out: Tensor) -> None:
        total.append(module.in_features * out[0].numel())

    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            handles.append(module.register_forward_hook(conv if isinstance(module, nn.Conv2d) else linear))
    training = network.training
    network.eval()
    height, width = network.config.size
    network.infer(torch.zeros(1, 3, height, width), torch.zeros(1, network.config.event_channels, height, width))
    network.train(training)
    for handle in handles:
        handle.remove()
    return sum(total)
