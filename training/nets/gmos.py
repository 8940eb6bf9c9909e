"""The proposer of GMOS (Xie et al. 2026, github.com/Jyxarthur/gmos), with its published keys.

    geometry (B, h, w, G) | appearance (B, A, g, g) -> fusion -> two-way query decoder
        -> per query a mask, whether it moves, its predicted IoU, its confidence

Outputs are named as `gmos_nano`'s are. Shapes: B batch, Q queries, g grid side, C width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.nets.gmos_fusion import (
    ROPE_BASE,
    Attention,
    FusedEncoder,
    GmosConfig,
    Mlp,
    make_upscaling,
    upscale,
)
from training.nets.rope2d import grid_positions, rope_table


class _TwoWayLayer(nn.Module):
    """SAM's block: queries among themselves, queries to image, MLP, image to queries."""

    def __init__(self, config: GmosConfig, first: bool) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        self.first = first
        self.self_attn = Attention(width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = Attention(width, heads, 2)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, config.feed_forward, width, 2, nn.GELU)
        self.norm3 = nn.LayerNorm(width)
        self.cross_attn_image_to_token = Attention(width, heads, 2)
        self.norm4 = nn.LayerNorm(width)

    def forward(self, queries: Tensor, image: Tensor, places: Tensor,
                table: Tensor) -> tuple[Tensor, Tensor]:
        if self.first:  # no places and no residual: the queries are the places
            queries = self.self_attn(queries, queries, queries)
        else:
            placed = queries + places
            queries = queries + self.self_attn(placed, placed, queries)
        queries = self.norm1(queries)
        seen = self.cross_attn_token_to_image(queries + places, image, image, None, table)
        queries = self.norm2(queries + seen)
        queries = self.norm3(queries + self.mlp(queries))
        told = self.cross_attn_image_to_token(image, queries + places, queries, table)
        return queries, self.norm4(image + told)


class _TwoWayTransformer(nn.Module):
    def __init__(self, config: GmosConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _TwoWayLayer(config, index == 0) for index in range(config.decoder_depth))
        self.final_attn_token_to_image = Attention(config.width, config.heads, 2)
        self.norm_final_attn = nn.LayerNorm(config.width)

    def forward(self, image: Tensor, places: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        queries = places
        for layer in self.layers:
            queries, image = layer(queries, image, places, table)
        seen = self.final_attn_token_to_image(queries + places, image, image, None, table)
        return self.norm_final_attn(queries + seen), image


class _Upsampling(nn.Module):
    """One mask per query: a network of its embedding times the up-scaled image."""

    def __init__(self, config: GmosConfig) -> None:
        super().__init__()
        self.output_upscaling = make_upscaling(config.width)
        self.output_hypernetwork_mlp = Mlp(config.width, config.width, config.width // 8, 3)

    def forward(self, queries: Tensor, image: Tensor, fine: Tensor, middle: Tensor) -> Tensor:
        pixels = upscale(self.output_upscaling, image, fine, middle)
        masks = self.output_hypernetwork_mlp(queries) @ pixels.flatten(2)
        return masks.unflatten(2, pixels.shape[2:])


class GmosProposer(FusedEncoder):
    """Up to Q objects per frame."""

    def __init__(self, config: GmosConfig) -> None:
        super().__init__(config)
        self.obj_token = nn.Parameter(torch.empty(1, config.queries, config.width))
        nn.init.normal_(self.obj_token, std=1e-6)
        self.trans_decoder = _TwoWayTransformer(config)
        self.upsampling = _Upsampling(config)
        self.motion_head = Mlp(config.width, config.width, 1, 3)
        self.motion_bias = nn.Parameter(torch.tensor(1.0))
        self.motion_weight = nn.Parameter(torch.empty(1))
        nn.init.normal_(self.motion_weight, std=0.01)
        # the decoder's cross-attention works at half the width
        table = rope_table(grid_positions(config.grid, config.grid),
                           config.width // 2 // config.heads, ROPE_BASE)
        self.register_buffer('cross_rope', table, persistent=False)

    def forward(self, geometry: Tensor, appearance: Tensor, middle: Tensor,
                fine: Tensor) -> dict[str, Tensor]:
        """`mask_logits` (B, Q, 4g, 4g), `motion_logits` (B, Q), `quality` (B, Q, 2), `embeddings`
        (B, Q, C).

        From `geometry` (B, h, w, G) tokens of the target frame and the appearance encoder's levels:
        `appearance` (B, A, g, g), `middle` (B, C / 4, 2g, 2g), `fine` (B, C / 8, 4g, 4g).
        """
        tokens = self.fused(geometry, appearance)
        places = self.obj_token.expand(len(tokens), -1, -1)
        queries, tokens = self.trans_decoder(tokens, places, self.cross_rope)
        masks = self.upsampling(queries, self.image(tokens), fine, middle)
        motion = self.motion_head(queries)
        shift = self.motion_weight * (motion.sigmoid() - self.motion_bias)
        return {
            'mask_logits': masks + shift[..., None],
            'motion_logits': motion.squeeze(2),
            'quality': self.quality(queries),
            'embeddings': queries,
        }
