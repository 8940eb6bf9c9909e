"""The trunk of Pi3 (Wang et al. 2025, pi^3; github.com/yyfz/Pi3): frames in, geometric tokens out.

DINOv2 ViT-L/14 with registers (Oquab et al. 2023, Darcet et al. 2023) encodes each frame alone;
36 blocks then look alternately within frames and across all of them. Pi3's heads are left out: a
GMOS takes the last block's tokens. Keys are Pi3's, so that its checkpoint loads. Our code is ours;
Pi3's published weights are CC BY-NC 4.0: no commercial use.

Shapes: B batch, T frames, H W input px, h w = H / patch, W / patch, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mos_perception.errors import ConfigError
from training.nets.rope2d import grid_positions, rope_table, rotate

ROPE_BASE = 100.0
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Pi3Config:
    """The defaults are the published network's, at the size that 16:9 videos get."""

    size: tuple[int, int] = (378, 672)
    """(height, width) of the frames, px; multiples of `patch`."""
    patch: int = 14
    """Side of a token's patch, px."""
    width: int = 1024
    """Channels of a token."""
    heads: int = 16
    """Of every attention."""
    encoder_depth: int = 24
    """Blocks of the encoder, DINOv2's."""
    decoder_depth: int = 36
    """Blocks of the decoder, in turn within a frame and over all."""
    trained_grid: int = 37
    """Patches per side that the encoder's position embedding was trained for."""
    encoder_registers: int = 4
    """Extra tokens per frame in the encoder, as DINOv2 has them."""
    registers: int = 5
    """Extra tokens per frame in the decoder, at position (0, 0)."""

    def __post_init__(self) -> None:
        """Raises ConfigError for sizes that do not divide."""
        if min(self.size) < self.patch or any(side % self.patch for side in self.size):
            raise ConfigError(f'size is {self.size}: both must be multiples of {self.patch} px')
        if self.width % (4 * self.heads):
            raise ConfigError(f'width {self.width} with {self.heads} heads: a head needs a '
                              'multiple of 4 channels')

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        return self.size[0] // self.patch, self.size[1] // self.patch


class _Attention(nn.Module):
    def __init__(self, config: Pi3Config, normalised: bool) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)
        norms = ([nn.LayerNorm(config.width // config.heads) for _ in range(2)]
                 if normalised else [nn.Identity(), nn.Identity()])
        self.q_norm, self.k_norm = norms

    def forward(self, tokens: Tensor, table: Tensor | None) -> Tensor:
        packed = self.qkv(tokens).unflatten(-1, (3, self.heads, -1))
        query, key, value = packed.permute(2, 0, 3, 1, 4)
        query, key = self.q_norm(query), self.k_norm(key)
        if table is not None:
            query, key = rotate(query, table), rotate(key, table)
        found = functional.scaled_dot_product_attention(query, key, value)
        return self.proj(found.transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(tokens)))


class _LayerScale(nn.Module):
    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), initial))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * self.gamma


class _Block(nn.Module):
    """A pre-norm transformer block; of the decoder: with normalised queries and keys, and RoPE."""

    def __init__(self, config: Pi3Config, decoder: bool) -> None:
        super().__init__()
        scale = 0.01 if decoder else 1.0
        self.norm1 = nn.LayerNorm(config.width, eps=1e-6)
        self.attn = _Attention(config, decoder)
        self.ls1 = _LayerScale(config.width, scale)
        self.norm2 = nn.LayerNorm(config.width, eps=1e-6)
        self.mlp = _Mlp(config.width)
        self.ls2 = _LayerScale(config.width, scale)

    def forward(self, tokens: Tensor, table: Tensor | None = None) -> Tensor:
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens), table))
        return tokens + self.ls2(self.mlp(self.norm2(tokens)))


class _PatchEmbed(nn.Module):
    def __init__(self, config: Pi3Config) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.width, config.patch, config.patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class DinoV2(nn.Module):
    """DINOv2 with registers at one fixed size."""

    def __init__(self, config: Pi3Config) -> None:
        super().__init__()
        self.config = config
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.trained_grid**2 + 1, config.width))
        self.register_tokens = nn.Parameter(torch.zeros(1, config.encoder_registers, config.width))
        self.patch_embed = _PatchEmbed(config)
        self.blocks = nn.ModuleList(_Block(config, False) for _ in range(config.encoder_depth))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.register_buffer('fixed_positions', None, persistent=False)

    def position_table(self) -> Tensor:
        """(1, 1 + h * w, D): the trained embedding at this size, bicubic with anti-aliasing."""
        side = self.config.trained_grid
        patches = self.pos_embed[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
        patches = functional.interpolate(
            patches, self.config.grid, mode='bicubic', antialias=True)
        return torch.cat([self.pos_embed[:, :1], patches.flatten(2).transpose(1, 2)], 1)

    def fix_positions(self) -> None:
        """Make the table a constant, as an exported graph needs; the weights are final then."""
        self.fixed_positions = self.position_table().detach()

    def forward(self, images: Tensor) -> Tensor:
        """(B, h * w, D) normalised patch tokens from (B, 3, H, W) ImageNet-normalised RGB."""
        fixed = self.fixed_positions
        positions = self.position_table() if fixed is None else fixed
        batch = len(images)
        tokens = torch.cat([self.cls_token.expand(batch, -1, -1), self.patch_embed(images)], 1)
        tokens = tokens + positions
        registers = self.register_tokens.expand(batch, -1, -1)
        tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 1 + self.config.encoder_registers:])


class Pi3Trunk(nn.Module):
    """Encoder and decoder; see the module's docstring."""

    def __init__(self, config: Pi3Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = DinoV2(config)
        self.decoder = nn.ModuleList(_Block(config, True) for _ in range(config.decoder_depth))
        self.register_token = nn.Parameter(torch.empty(1, 1, config.registers, config.width))
        nn.init.normal_(self.register_token, std=1e-6)
        self.register_buffer('image_mean', torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer('image_std', torch.tensor(STD).view(1, 3, 1, 1))
        positions = torch.cat([torch.zeros(config.registers, 2).long(),
                               grid_positions(*config.grid) + 1])
        table = rope_table(positions, config.width // config.heads, ROPE_BASE)
        self.register_buffer('rope', table, persistent=False)

    def frame_tokens(self, images: Tensor) -> Tensor:
        """(B, h * w, D) from (B, 3, H, W) RGB in [0, 1]: what one frame's windows share."""
        return self.encoder((images - self.image_mean) / self.image_std)

    def decode(self, tokens: Tensor) -> Tensor:
        """(B, T, h, w, D) last block's tokens from (B, T, h * w, D) frame tokens."""
        batch, frames = tokens.shape[:2]
        registers = self.register_token.expand(batch, frames, -1, -1)
        hidden = torch.cat([registers, tokens], 2)
        table = self.rope
        across = table.repeat(1, frames, 1)
        for index, block in enumerate(self.decoder):
            if index % 2 == 0:
                hidden = block(hidden.flatten(0, 1), table).unflatten(0, (batch, frames))
            else:
                hidden = block(hidden.flatten(1, 2), across).unflatten(1, (frames, -1))
        return hidden[:, :, self.config.registers:].unflatten(2, self.config.grid)

    def forward(self, window: Tensor) -> Tensor:
        """(B, T, h, w, D) from (B, T, 3, H, W) RGB in [0, 1]."""
        batch = len(window)
        return self.decode(self.frame_tokens(window.flatten(0, 1)).unflatten(0, (batch, -1)))
