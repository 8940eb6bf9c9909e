"""DIMOS (CVPR 2026) and EvInsMOS (IJCV 2025): frames + events -> moving instances."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.nets.backbone import Encoder, EventMaskEncoder
from training.nets.dimos_config import DimosConfig
from training.nets.fusion import Interaction, ModalityFusion
from training.nets.heads import QueryHeads
from training.nets.pixel_decoder import FlowHead, PixelDecoder
from training.nets.query_decoder import QueryDecoder
from training.nets.resnet import make_backbone


class Dimos(nn.Module):
    """Unshared encoders, fusion per scale and type, interaction, two decoders, heads."""

    def __init__(self, config: DimosConfig) -> None:
        super().__init__()
        self.config = config
        self._add_encoders()
        channels = self.channels
        if config.disentangled:
            self.fuse_appearance, self.fuse_motion = (
                nn.ModuleList(ModalityFusion(count, config.fusion_width) for count in channels)
                for _ in range(2))
            channels = [config.fusion_width or count for count in channels]
        self.interactions = nn.ModuleList(
            Interaction(count, config.hidden, heads, config.expansion)
            for count, heads in zip(channels, config.heads))
        fused = 2 * config.hidden
        self.pixel_decoder = PixelDecoder(fused, fused, config.groups, config.with_coordinates)
        same = fused == config.width
        self.memory = nn.Identity() if same else nn.Conv2d(fused, config.width, 1)
        self.query_decoder = QueryDecoder(config.queries, config.width, config.attention_heads,
                                          config.feed_forward, config.layers, config.dropout,
                                          config.as_released)
        self.heads = QueryHeads(config.width, fused, config.as_released)
        self.flow = FlowHead(config.hidden, config.hidden, min(config.groups, 8),
                             config.as_released)
        # the foreground head; checkpoints hold its weights as `dense`
        self.dense = nn.Conv2d(fused, 1, 1)
        if config.as_released:
            self._freeze()

    def _add_encoders(self) -> None:
        config = self.config
        self.image_appearance = self._encoder(3)
        if config.disentangled:
            self.image_motion = self._encoder(3 + config.evidence_channels)
            self.event_appearance = self._encoder(config.event_channels)
        self.event_motion = self._encoder(config.event_channels)
        plain = config.backbone == 'plain'
        self.channels = tuple(config.channels if plain else self.image_appearance.channels)
        self.event_mask = EventMaskEncoder(max(config.hidden // 2, 1), config.hidden,
                                           config.first_stride)

    def _encoder(self, inputs: int) -> nn.Module:
        config = self.config
        if config.backbone == 'plain':
            return Encoder(inputs, config.stem, config.channels, config.blocks,
                           config.first_stride)
        return make_backbone(config.backbone, inputs)

    def _image_norms(self) -> list[nn.BatchNorm2d]:
        encoders = [self.image_appearance]
        if self.config.disentangled:
            encoders.append(self.image_motion)
        modules = (module for encoder in encoders for module in encoder.modules())
        return [module for module in modules if isinstance(module, nn.BatchNorm2d)]

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

    def branches(self, image: Tensor, voxel: Tensor,
                 evidence: Tensor | None = None) -> dict[str, list[Tensor]]:
        """Each encoder's three maps (B, C, h, w), by the encoder's name."""
        if not self.config.disentangled:
            return {
                'image_appearance': self.image_appearance(image),
                'event_motion': self.event_motion(voxel),
            }
        moving = image if evidence is None else torch.cat([image, evidence], 1)
        return {
            'image_appearance': self.image_appearance(image),
            'event_appearance': self.event_appearance(voxel),
            'image_motion': self.image_motion(moving),
            'event_motion': self.event_motion(voxel),
        }

    def encode(self, branches: dict[str, list[Tensor]], voxel: Tensor) -> list[Tensor]:
        """The encoders' maps and the voxel (B, C, H, W) -> (B, 2 hidden, h, w) at their scales."""
        appearance, motion = branches['image_appearance'], branches['event_motion']
        if self.config.disentangled:
            appearance = [fuse(*pair) for fuse, *pair in zip(
                self.fuse_appearance, appearance, branches['event_appearance'])]
            motion = [fuse(*pair) for fuse, *pair in zip(
                self.fuse_motion, branches['image_motion'], motion)]
        masks = self.event_mask(voxel, [m.shape[2:] for m in appearance])
        return [mix(*maps) for mix, *maps in zip(self.interactions, appearance, motion, masks)]

    def forward(self, image: Tensor, voxel: Tensor,
                evidence: Tensor | None = None) -> dict[str, Tensor]:
        """All decoder layers' outputs, for training.

        Of image (B, 3, H, W) and voxel (B, C, H, W), both normalised, and, where the configuration
        has some, motion evidence (B, E, H, W): `class_logits` (L, B, Q, 3);
        `mask_logits` (L, B, Q, h, w) at the finest map's size (H/4, W/4 as in the paper); `boxes`
        (L, B, Q, 4) px; `embeddings` (B, Q, d); `flow` (B, 2, H/2, W/2) in px of the input to the
        previous frame; `foreground` (B, h, w) logits of "something moves here"; and each of
        `branches` by its name and scale, as 'image_motion.2'.
        """
        size = image.shape[2:]
        branches = self.branches(image, voxel, evidence)
        maps = self.encode(branches, voxel)
        features = self.pixel_decoder(maps)
        queries = self.query_decoder(self.memory(maps[2]))
        classes, masks, boxes = self.heads(queries, features, size)
        half = (-(-size[0] // 2), -(-size[1] // 2))
        motion_halves = [m[:, self.config.hidden:] for m in maps]
        outputs = {
            'class_logits': classes,
            'mask_logits': masks,
            'boxes': boxes,
            'embeddings': queries[-1],
            'flow': 2 * self.flow(motion_halves, half),
            'foreground': self.dense(features)[:, 0],
        }
        for name, scales in branches.items():
            outputs |= {f'{name}.{scale}': m for scale, m in enumerate(scales)}
        return outputs

    def infer(self, image: Tensor, voxel: Tensor,
              evidence: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The last layer only, no flow: class logits, mask logits, boxes, embeddings.

        This is what is exported.
        """
        maps = self.encode(self.branches(image, voxel, evidence), voxel)
        queries = self.query_decoder(self.memory(maps[2]))[-1]
        return *self.heads(queries, self.pixel_decoder(maps), image.shape[2:]), queries


class Inference(nn.Module):
    """`Dimos.infer` as a module, for export."""

    def __init__(self, network: Dimos) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(1, 3, H, W), (1, C, H, W) -> class logits, mask logits, boxes, embeddings."""
        return self.network.infer(*inputs)
