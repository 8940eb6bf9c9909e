"""What GMOS and GMOS-S share: projectors, their fusion on one grid, attention, mask up-scaling.

Sizes and key names of Xie et al. 2026 (github.com/Jyxarthur/gmos); the attention has the layout of
Segment Anything (Kirillov et al. 2023). Shapes: B batch, Q queries, g grid side, C width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.nets.gmos_nano import MAX_CONFIDENCE
from training.nets.rope2d import grid_positions, rope_table, rotate

ROPE_BASE = 100 * 36 / 64


@dataclass(frozen=True)
class GmosConfig:
    """The defaults are the published networks'."""

    width: int = 256
    """Channels of tokens and queries."""
    heads: int = 8
    """Of every attention."""
    feed_forward: int = 2048
    """Width of the layers' feed-forward part."""
    encoder_depth: int = 3
    """Layers over the fused tokens."""
    decoder_depth: int = 3
    """Layers of the queries."""
    queries: int = 100
    """Object queries."""
    geometry_width: int = 1024
    """Channels of the geometry encoder's tokens."""
    appearance_width: int = 256
    """Channels of the appearance encoder's 1/16 level."""
    grid: int = 64
    """Side of the fused grid: the appearance encoder's at 1/16 of its input."""


class Mlp(nn.Module):
    """Linear layers with `activation` between them."""

    def __init__(self, inputs: int, hidden: int, outputs: int, depth: int,
                 activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        sizes = [inputs, *[hidden] * (depth - 1), outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        self.activation = activation()

    def forward(self, values: Tensor) -> Tensor:
        """(..., outputs) from (..., inputs)."""
        for layer in self.layers[:-1]:
            values = self.activation(layer(values))
        return self.layers[-1](values)


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, values: Tensor) -> Tensor:
        """Same shape."""
        centred = values - values.mean(1, keepdim=True)
        scaled = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
        return self.weight[:, None, None] * scaled + self.bias[:, None, None]


class Attention(nn.Module):
    """Multi-head attention of SAM, at `1 / downsample` of the width, with RoPE where a table is
    given.
    """

    def __init__(self, width: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        self.heads = heads
        inner = width // downsample
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(width, inner)
        self.v_proj = nn.Linear(width, inner)
        self.out_proj = nn.Linear(inner, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor,
                query_table: Tensor | None = None, key_table: Tensor | None = None) -> Tensor:
        """(B, N, C) from (B, N, C) queries over (B, M, C) keys and values."""
        query, key, value = (
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, tokens in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value)))
        if query_table is not None:
            query = rotate(query, query_table)
        if key_table is not None:
            key = rotate(key, key_table)
        found = functional.scaled_dot_product_attention(query, key, value)
        return self.out_proj(found.transpose(1, 2).flatten(2))


class TokenProjector(nn.Module):
    """Linear, GELU, dropout, layer norm."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.drop = nn.Dropout(0.2)
        nn.init.trunc_normal_(self.proj.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., width) from (..., inputs)."""
        return self.norm(self.drop(functional.gelu(self.proj(tokens))))


class _EncoderLayer(nn.Module):
    def __init__(self, config: GmosConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config.width, config.heads)
        self.norm1 = nn.LayerNorm(config.width)
        self.mlp = Mlp(config.width, config.feed_forward, config.width, 2, nn.GELU)
        self.norm2 = nn.LayerNorm(config.width)

    def forward(self, tokens: Tensor, table: Tensor) -> Tensor:
        tokens = self.norm1(tokens + self.self_attn(tokens, tokens, tokens, table, table))
        return self.norm2(tokens + self.mlp(tokens))


class _Encoder(nn.Module):
    """Post-norm self-attention over the grid."""

    def __init__(self, config: GmosConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_EncoderLayer(config) for _ in range(config.encoder_depth))

    def forward(self, tokens: Tensor, table: Tensor) -> Tensor:
        for layer in self.layers:
            tokens = layer(tokens, table)
        return tokens


class FusedEncoder(nn.Module):
    """Base of GMOS and GMOS-S: both encoders' features on one grid, then self-attention."""

    def __init__(self, config: GmosConfig) -> None:
        super().__init__()
        self.config = config
        self.pi3_projector = TokenProjector(config.geometry_width, config.width)
        self.sam_projector = TokenProjector(config.appearance_width, config.width)
        self.merge_projector = TokenProjector(2 * config.width, config.width)
        self.trans_encoder = _Encoder(config)
        self.conf_head = Mlp(config.width, config.width, 1, 3)
        self.iou_head = Mlp(config.width, config.width, 1, 3)
        positions = grid_positions(config.grid, config.grid)
        table = rope_table(positions, config.width // config.heads, ROPE_BASE)
        self.register_buffer('rope', table, persistent=False)

    def fused(self, geometry: Tensor, appearance: Tensor) -> Tensor:
        """(B, g * g, C) tokens from (B, h, w, G) geometry and (B, A, g, g) appearance.

        Geometry is squeezed to the square grid, as the appearance encoder's image is.
        """
        grid = (self.config.grid, self.config.grid)
        geometry = self.pi3_projector(geometry).permute(0, 3, 1, 2)
        geometry = functional.interpolate(geometry, grid, mode='bilinear', align_corners=False)
        appearance = self.sam_projector(appearance.flatten(2).transpose(1, 2))
        tokens = torch.cat([geometry.flatten(2).transpose(1, 2), appearance], 2)
        return self.trans_encoder(self.merge_projector(tokens), self.rope)

    def quality(self, tokens: Tensor) -> Tensor:
        """(..., 2): predicted IoU, not bounded as published, and confidence in [1, 5]."""
        confidence = 1 + (MAX_CONFIDENCE - 1) * self.conf_head(tokens).sigmoid()
        return torch.cat([self.iou_head(tokens), confidence], -1)

    def image(self, tokens: Tensor) -> Tensor:
        """(B, C, g, g) of (B, g * g, C)."""
        return tokens.transpose(1, 2).unflatten(2, (self.config.grid, self.config.grid))


def make_upscaling(width: int) -> nn.Sequential:
    """SAM's two up-scalings by 2, to a quarter and an eighth of the width."""
    return nn.Sequential(
        nn.ConvTranspose2d(width, width // 4, 2, 2), LayerNorm2d(width // 4), nn.GELU(),
        nn.ConvTranspose2d(width // 4, width // 8, 2, 2), nn.GELU())


def upscale(layers: nn.Sequential, image: Tensor, fine: Tensor, middle: Tensor) -> Tensor:
    """(B, C / 8, 4g, 4g) of (B, C, g, g), with the appearance encoder's `fine` (B, C / 8, 4g, 4g)
    and `middle` (B, C / 4, 2g, 2g) levels added on the way.
    """
    first, norm, active, second, last = layers
    image = active(norm(first(image) + middle))
    return last(second(image) + fine)
