"""SAM 2.1's video memory as graphs of fixed shapes: one object on one frame.

The memory has fixed slots: `memory` 0 is the conditioning frame's, `memory` k that of k frames ago
(up to 6); `pointers` are 16 with their age in frames. A slot that is not in use has `valid` 0 and
is masked out of the attention. Modules of `transformers` do the arithmetic.

Shapes: g grid side, C 256 channels, M 64 memory channels, S the image's side px.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from transformers import Sam2VideoModel

_MASKED = 3e4  # more than any logit, and float16 holds it


def _positions(encoding: nn.Module, channels: int, side: int) -> Tensor:
    """(side * side, channels) sine embedding."""
    table = encoding(torch.Size((1, channels, side, side)), torch.device('cpu'), torch.float32)
    return table[0].flatten(1).T.contiguous()


class _Memory(nn.Module):
    def __init__(self, sam2: Sam2VideoModel) -> None:
        super().__init__()
        self.sam2 = sam2
        self.side = sam2.backbone_feature_sizes[-1][0]

    def raw(self, appearance: Tensor) -> Tensor:
        """The lowest level without the "no memory" embedding that GMOS' features carry."""
        return appearance - self.sam2.no_memory_embedding.reshape(1, -1, 1, 1)


class MemoryEncoder(_Memory):
    """A frame and an object's mask on it, to remember."""

    def forward(self, appearance: Tensor, mask_logits: Tensor, object_score: Tensor) -> Tensor:
        """(1, g * g, M) from (1, C, g, g), (1, 1, S, S) and (1, 1) logits."""
        config = self.sam2.config
        mask = mask_logits.sigmoid() * config.sigmoid_scale_for_mem_enc
        found, _ = self.sam2.memory_encoder(
            self.raw(appearance), mask + config.sigmoid_bias_for_mem_enc)
        hidden = (object_score <= 0).float()[..., None, None]
        absent = self.sam2.occlusion_spatial_embedding_parameter[..., None, None]
        return (found + hidden * absent).flatten(2).transpose(1, 2)


class MaskPrompt(_Memory):
    """The pointer of an object that is given by its mask."""

    def forward(self, appearance: Tensor, middle: Tensor, fine: Tensor,
                mask: Tensor) -> tuple[Tensor, Tensor]:
        """`pointer` (1, C) and `object_score` (1, 1) from the frame's levels and a (1, 1, S, S)
        mask of 0 and 1.
        """
        # not the library's own step: its pointer is that of the best of three masks, while the
        # official code takes the single mask's
        found = self.sam2._single_frame_forward(
            input_masks=self.sam2.mask_downsample(mask),
            image_embeddings=[fine, middle, self.raw(appearance)], multimask_output=False)
        there = mask.amax((1, 2, 3))[:, None].sign()
        pointer = there * found.object_pointer.reshape(1, -1)
        pointer = pointer + (1 - there) * self.sam2.no_object_pointer
        return pointer, 20 * there - 10


class MaskFromMemory(_Memory):
    """Where a remembered object is: memory attention, then SAM's mask decoder."""

    def __init__(self, sam2: Sam2VideoModel) -> None:
        super().__init__(sam2)
        channels, width = sam2.hidden_dim, sam2.mem_dim
        neck = sam2.vision_encoder.neck.position_encoding
        self.register_buffer('places', _positions(neck, channels, self.side), persistent=False)
        memory = _positions(sam2.memory_encoder.position_encoding, width, self.side)
        # slot 0 has the last temporal embedding, slot k the one of k frames ago
        temporal = sam2.memory_temporal_positional_encoding.detach().reshape(-1, 1, width)
        self.register_buffer('memory_places', (memory + temporal.roll(1, 0)).flatten(0, 1),
                             persistent=False)
        attention = sam2.memory_attention
        cosines, sines = attention.rotary_emb(memory, attention.position_ids)
        self.register_buffer('cosines', cosines.detach(), persistent=False)
        self.register_buffer('sines', sines.detach(), persistent=False)
        half = channels // 2
        period = 10000 ** (2 * (torch.arange(half) // 2) / half)
        self.register_buffer('period', period, persistent=False)

    def _pointer_places(self, age: Tensor) -> Tensor:
        """(16, M) of ages in frames."""
        slots = self.sam2.config.max_object_pointers_in_encoder
        angles = (age / (slots - 1))[:, None] / self.period
        sines = torch.cat([angles.sin(), angles.cos()], 1)
        return self.sam2.temporal_positional_encoding_projection_layer(sines)

    def _recall(self, layer: nn.Module, tokens: Tensor, keys: Tensor, values: Tensor,
                bias: Tensor, pointers: int) -> Tensor:
        """Cross-attention of a memory attention layer with a mask, which the library's lacks."""
        from transformers.models.sam2_video.modeling_sam2_video import apply_rotary_pos_emb_2d

        query = layer.q_proj(tokens)[None]
        key, value = layer.k_proj(keys)[None, None], layer.v_proj(values)[None, None]
        query, key = apply_rotary_pos_emb_2d(
            query, key, self.cosines, self.sines, pointers, layer.rope_k_repeat)
        found = functional.scaled_dot_product_attention(query, key, value, bias)
        return layer.o_proj(found[0])

    def forward(self, appearance: Tensor, middle: Tensor, fine: Tensor, memory: Tensor,
                memory_valid: Tensor, pointers: Tensor, pointer_age: Tensor,
                pointer_valid: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`mask_logits` (1, 1, 4g, 4g), `iou` (1, 1), `object_score` (1, 1), `pointer` (1, C).

        From the frame's levels, `memory` (7, g * g, M), `memory_valid` (7,), `pointers` (16, C),
        `pointer_age` (16,) and `pointer_valid` (16,).
        """
        splits = self.sam2.hidden_dim // self.sam2.mem_dim
        values = torch.cat([memory.flatten(0, 1), pointers.reshape(-1, self.sam2.mem_dim)])
        places = self._pointer_places(pointer_age).repeat_interleave(splits, 0)
        keys = values + torch.cat([self.memory_places, places])
        valid = torch.cat([memory_valid.repeat_interleave(self.side**2),
                           pointer_valid.repeat_interleave(splits)])
        bias = (valid - 1)[None] * _MASKED  # attention takes no mask of one dimension
        tokens = self.raw(appearance).flatten(2).transpose(1, 2) + 0.1 * self.places
        for layer in self.sam2.memory_attention.layers:
            normed = layer.layer_norm1(tokens)[:, None]
            seen, _ = layer.self_attn(query=normed, key=normed, value=normed,
                                      position_embeddings=(self.cosines, self.sines))
            tokens = tokens + seen[:, 0]
            tokens = tokens + self._recall(layer.cross_attn_image, layer.layer_norm2(tokens),
                                           keys, values, bias, splits * len(pointers))
            tokens = tokens + layer.linear2(layer.activation(
                layer.linear1(layer.layer_norm3(tokens))))
        tokens = self.sam2.memory_attention.layer_norm(tokens)
        image = tokens.transpose(1, 2).unflatten(2, (self.side, self.side))
        found = self.sam2._single_frame_forward(
            image_embeddings=[fine, middle, image], multimask_output=True)
        return (found.pred_masks, found.iou_scores.amax(-1), found.object_score_logits[..., 0],
                found.object_pointer.reshape(1, -1))
