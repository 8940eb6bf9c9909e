"""Widths and depths of DIMOS and EvInsMOS."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DimosConfig:
    """The defaults are `dimos_nano`'s."""

    size: tuple[int, int] = (120, 160)
    """(height, width) of the input, px."""
    event_channels: int = 10
    """Planes of the voxel grid."""
    evidence_channels: int = 0
    """Planes of motion evidence that the image's motion encoder sees too; 0 = as released, none."""
    backbone: str = 'plain'
    """'plain' (ours: `stem`, `channels`, `blocks`) or a name of `resnet.make_backbone`."""
    disentangled: bool = True
    """Four encoders (DIMOS); False: one of images and one of events (EvInsMOS).

    These meet in the interaction alone.
    """
    fusion_width: int = 0
    """Channels that each modality is projected to before both are fused; 0 = as released, not."""
    first_stride: int = 2
    """Of the plain backbone: 2, maps at 1/4, 1/8, 1/16 as in the paper; 1, twice as fine."""
    stem: int = 16
    """Channels of the plain backbone's first convolution."""
    channels: tuple[int, int, int] = (16, 32, 64)
    """Channels of the plain backbone's three stages."""
    blocks: tuple[int, int, int] = (1, 2, 2)
    """Residual blocks of the plain backbone's three stages."""
    hidden: int = 24
    """Channels of each type in the interaction; what comes out of it has twice as many."""
    heads: tuple[int, int, int] = (1, 2, 4)
    """Heads of the interaction's attention, per scale."""
    expansion: float = 2.67
    """Width of the interaction's feed-forward part over `hidden`."""
    groups: int = 8
    """Of the pixel decoder's group norms."""
    with_coordinates: bool = True
    """The pixel decoder sees where in the image it is. Ours."""
    queries: int = 10
    """Object queries, the background's among them."""
    width: int = 64
    """Channels of the queries."""
    attention_heads: int = 4
    """Of the query decoder."""
    feed_forward: int = 128
    """Width of the query decoder's feed-forward part."""
    layers: int = 3
    """Of the query decoder."""
    dropout: float = 0.0
    """In the query decoder."""
    as_released: bool = False
    """Boxes in raw px, the wider flow head, mmdet's positions, attention temperatures that stay 1.

    And norms of the image encoders that never change.
    """

    @property
    def inputs(self) -> dict[str, int]:
        """Planes of each input, by its name in the exported graph, in order."""
        planes = {'image': 3, 'voxel': self.event_channels}
        return planes | ({'evidence': self.evidence_channels} if self.evidence_channels else {})


# the released networks: MouseSIS' 10 queries, at SEVD's 384x512
RELEASED = DimosConfig(
    size=(384, 512),
    backbone='resnet50',
    hidden=128,
    expansion=2.66,
    groups=32,
    with_coordinates=False,
    width=256,
    attention_heads=8,
    feed_forward=2048,
    layers=6,
    dropout=0.1,
    as_released=True,
)
