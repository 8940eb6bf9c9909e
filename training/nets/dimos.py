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
from training.nets.resnet import make_backbone


@dataclass(frozen=True)
class DimosConfig:
    """Widths and depths. The defaults are `nano`; 2 * hidden is the width of the interaction's output.

    `backbone`: 'plain' (ours: `stem`, `channels`, `blocks`) or one of `resnet.make_backbone`. `disentangled`: four
    encoders (DIMOS); False: one of images and one of events that meet in the interaction alone (EvInsMOS).
    `first_stride` of the plain backbone: 2, maps at 1/4, 1/8, 1/16 of the input as in the paper; 1, twice as fine.
    `fusion_width`: 0 = as released, else see `ModalityFusion`. `as_released`: boxes in raw px, the wider flow head,
    attention temperatures that stay 1, norms of the image encoders that never change.
    """

    size: tuple[int, int] = (120, 160)
    event_channels: int = 10
    backbone: str = 'plain'
    disentangled: bool = True
    fusion_width: int = 0
    first_stride: int = 2
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
    as_released: bool = False


# the released networks (dimos.md 1.3-1.5, 2): MouseSIS' 10 queries, at SEVD's 384x512
RELEASED = DimosConfig(size=(384, 512), backbone='resnet50', hidden=128, expansion=2.66, groups=32,
                       with_coordinates=False, width=256, attention_heads=8, feed_forward=2048, layers=6,
                       dropout=0.1, as_released=True)


class Dimos(nn.Module):
    """Four unshared encoders, fusion per scale and type, interaction, pixel decoder, query decoder, heads."""

    def __init__(self, config: DimosConfig) -> None:
        super().__init__()
        self.config = config
        names = ('image_appearance', 'image_motion', 'event_appearance', 'event_motion')
        for name in names if config.disentangled else names[::3]:
            setattr(self, name, self._encoder(3 if name.startswith('image') else config.event_channels))
        channels = config.channels if config.backbone == 'plain' else self.image_appearance.channels
        self.channels = tuple(channels)
        self.event_mask = EventMaskEncoder(max(config.hidden // 2, 1), config.hidden, config.first_stride)
        if config.disentangled:
            self.fuse_appearance, self.fuse_motion = (
                nn.ModuleList(ModalityFusion(count, config.fusion_width) for count in channels) for _ in range(2))
            channels = [config.fusion_width or count for count in channels]
        self.interactions = nn.ModuleList(Interaction(count, config.hidden, heads, config.expansion)
                                          for count, heads in zip(channels, config.heads))
        fused = 2 * config.hidden
        self.pixel_decoder = PixelDecoder(fused, fused, config.groups, config.with_coordinates)
        self.memory = nn.Identity() if fused == config.width else nn.Conv2d(fused, config.width, 1)
        self.query_decoder = QueryDecoder(config.queries, config.width, config.attention_heads, config.feed_forward,
                                          config.layers, config.dropout)
        self.heads = QueryHeads(config.width, fused, config.as_released)
        self.flow = FlowHead(config.hidden, config.hidden, min(config.groups, 8), config.as_released)
        self.dense = nn.Conv2d(fused, 1, 1)
        if config.as_released:
            self._freeze()

    def _encoder(self, inputs: int) -> nn.Module:
        config = self.config
        if config.backbone == 'plain':
            return Encoder(inputs, config.stem, config.channels, config.blocks, config.first_stride)
        return make_backbone(config.backbone, inputs)

    def _image_norms(self) -> list[nn.BatchNorm2d]:
        encoders = [self.image_appearance] + ([self.image_motion] if self.config.disentangled else [])
        return [module for encoder in encoders for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]

    def _freeze(self) -> None:
        for norm in self._image_norms():
            norm.requires_grad_(False)
        for interaction in self.interactions:
            for block in (interaction.to_appearance, interaction.to_motion):
                block.attention.temperature.requires_grad_(False)

    def train(self, mode: bool = True) -> Dimos:
        """As always, but the released image encoders keep their running means."""
        super().train(mode)
        if self.config.as_released:
            for norm in self._image_norms():
                norm.eval()
        return self

    def branches(self, image: Tensor, voxel: Tensor) -> dict[str, list[Tensor]]:
        """Each encoder's three maps (B, C, h, w), by the encoder's name."""
        if not self.config.disentangled:
            return {'image_appearance': self.image_appearance(image), 'event_motion': self.event_motion(voxel)}
        return {'image_appearance': self.image_appearance(image), 'event_appearance': self.event_appearance(voxel),
                'image_motion': self.image_motion(image), 'event_motion': self.event_motion(voxel)}

    def encode(self, branches: dict[str, list[Tensor]], voxel: Tensor) -> list[Tensor]:
        """The encoders' maps and the voxel (B, C, H, W) -> (B, 2 hidden, h, w) at the maps' scales."""
        if self.config.disentangled:
            appearance = [fuse(*pair) for fuse, *pair in
                          zip(self.fuse_appearance, branches['image_appearance'], branches['event_appearance'])]
            motion = [fuse(*pair) for fuse, *pair in
                      zip(self.fuse_motion, branches['image_motion'], branches['event_motion'])]
        else:
            appearance, motion = branches['image_appearance'], branches['event_motion']
        masks = self.event_mask(voxel, [m.shape[2:] for m in appearance])
        return [mix(*maps) for mix, *maps in zip(self.interactions, appearance, motion, masks)]

    def forward(self, image: Tensor, voxel: Tensor) -> dict[str, Tensor]:
        """All decoder layers' outputs, for training, of image (B, 3, H, W) and voxel (B, C, H, W), both normalised.

        `class_logits` (L, B, Q, 3), `mask_logits` (L, B, Q, h, w) at the finest map's size (H/4, W/4 as in the paper),
        `boxes` (L, B, Q, 4) px, `embeddings` (B, Q, d), `flow` (B, 2, H/2, W/2) in px of the input to the previous
        frame, `dense` (B, h, w) logits of "some mover here"; and each of `branches` by its name and scale, as
        'image_motion.2'.
        """
        size = image.shape[2:]
        branches = self.branches(image, voxel)
        maps = self.encode(branches, voxel)
        features = self.pixel_decoder(maps)
        queries = self.query_decoder(self.memory(maps[2]))
        classes, masks, boxes = self.heads(queries, features, size)
        half = (-(-size[0] // 2), -(-size[1] // 2))
        flow = 2 * self.flow([m[:, self.config.hidden:] for m in maps], half)
        named = {f'{name}.{scale}': m for name, three in branches.items() for scale, m in enumerate(three)}
        return {'class_logits': classes, 'mask_logits': masks, 'boxes': boxes, 'embeddings': queries[-1],
                'flow': flow, 'dense': self.dense(features)[:, 0], **named}

    def infer(self, image: Tensor, voxel: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The last layer only, no flow: class logits, mask logits, boxes, embeddings (what is exported)."""
        maps = self.encode(self.branches(image, voxel), voxel)
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
def count_macs(network: Dimos, kinds: tuple[type[nn.Module], ...] = (nn.Conv2d, nn.Linear)) -> int:
    """Multiply-accumulates of one inference's layers of these kinds (attention products left out).

    Published "FLOPs" of DIMOS are those of the convolutions alone (dimos.md 0). Works on the meta device.
    """
    total, handles = [], []

    def count(module: nn.Module, _: tuple, out: Tensor) -> None:
        per_output = module.weight[0].numel() if isinstance(module, nn.Conv2d) else module.in_features
        total.append(per_output * out[0].numel())

    for module in network.modules():
        if isinstance(module, kinds):
            handles.append(module.register_forward_hook(count))
    training, device = network.training, next(network.parameters()).device
    network.eval()
    height, width = network.config.size
    network.infer(torch.zeros(1, 3, height, width, device=device),
                  torch.zeros(1, network.config.event_channels, height, width, device=device))
    network.train(training)
    for handle in handles:
        handle.remove()
    return sum(total)
