"""SAM 2.1 (Ravi et al. 2024) through `transformers`: image encoder, video memory, official keys.

`transformers` is an extra of training and export (requirements/gmos.txt); the runtime has none of
it. SAM 2.1's code and weights are Apache-2.0.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mos_perception.errors import ConfigError, MissingLibraryError

if TYPE_CHECKING:
    from transformers import Sam2VideoConfig, Sam2VideoModel

_LEVELS = ((256, 256), (128, 128), (64, 64))
# of Hiera: width, first heads, blocks, global blocks, background grid, windows
SIZES: dict[str, dict[str, Any]] = {
    'tiny': {'hidden_size': 96, 'num_attention_heads': 1, 'blocks_per_stage': [1, 2, 7, 2],
             'global_attention_blocks': [5, 7, 9], 'bkg': [7, 7], 'windows': [8, 4, 14, 7]},
    'small': {'hidden_size': 96, 'num_attention_heads': 1, 'blocks_per_stage': [1, 2, 11, 2],
              'global_attention_blocks': [7, 10, 13], 'bkg': [7, 7], 'windows': [8, 4, 14, 7]},
    'base_plus': {'hidden_size': 112, 'num_attention_heads': 2, 'blocks_per_stage': [2, 3, 16, 3],
                  'global_attention_blocks': [12, 16, 20], 'bkg': [14, 14],
                  'windows': [8, 4, 14, 7]},
    'large': {'hidden_size': 144, 'num_attention_heads': 2, 'blocks_per_stage': [2, 6, 36, 4],
              'global_attention_blocks': [23, 33, 43], 'bkg': [7, 7], 'windows': [8, 4, 16, 8]},
}


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingLibraryError(
            'SAM 2.1 needs transformers, which is not installed: '
            'pip install -r requirements/gmos.txt') from error
    return transformers


def sam2_config(size: str) -> Sam2VideoConfig:
    """The published network of a size of `SIZES`. Raises ConfigError, MissingLibraryError."""
    if size not in SIZES:
        raise ConfigError(f'SAM2 size is {size!r}: must be one of {", ".join(SIZES)}')
    given = SIZES[size]
    widths = [given['hidden_size'] * 2**stage for stage in range(4)]
    library = _transformers()
    backbone = library.Sam2HieraDetConfig(
        hidden_size=given['hidden_size'],
        num_attention_heads=given['num_attention_heads'],
        blocks_per_stage=given['blocks_per_stage'],
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[given['num_attention_heads'] * 2**n for n in range(4)],
        window_size_per_stage=given['windows'],
        global_attention_blocks=given['global_attention_blocks'],
        window_positional_embedding_background_size=given['bkg'])
    vision = library.Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=widths[::-1],
        backbone_feature_sizes=[list(level) for level in _LEVELS])
    return library.Sam2VideoConfig(vision_config=vision)


def make_sam2(config: Sam2VideoConfig) -> Sam2VideoModel:
    """The network with random weights, in evaluation mode. Raises MissingLibraryError."""
    return _transformers().Sam2VideoModel(config).eval()


class AppearanceEncoder(nn.Module):
    """The image encoder as GMOS uses it."""

    def __init__(self, sam2: Sam2VideoModel) -> None:
        super().__init__()
        self.sam2 = sam2

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`appearance` (B, 256, g, g) with SAM 2's "no memory" embedding added, `middle` (B, 64,
        2g, 2g) and `fine` (B, 32, 4g, 4g), from (B, 3, 16g, 16g) ImageNet-normalised RGB: the whole
        frame squeezed to a square.
        """
        levels = self.sam2.vision_encoder(image).fpn_hidden_states
        decoder = self.sam2.mask_decoder
        lowest = levels[2] + self.sam2.no_memory_embedding.reshape(1, -1, 1, 1)
        return lowest, decoder.conv_s1(levels[1]), decoder.conv_s0(levels[0])


# (pattern, replacement), each applied in order to an official key
_RULES = (
    (r'^image_encoder\.neck\.convs\.(\d+)\.conv\.', r'vision_encoder.neck.convs.\1.'),
    (r'^image_encoder\.trunk\.patch_embed\.proj\.',
     'vision_encoder.backbone.patch_embed.projection.'),
    (r'^image_encoder\.trunk\.', 'vision_encoder.backbone.'),
    (r'^sam_mask_decoder\.output_upscaling\.0\.', 'mask_decoder.upscale_conv1.'),
    (r'^sam_mask_decoder\.output_upscaling\.1\.', 'mask_decoder.upscale_layer_norm.'),
    (r'^sam_mask_decoder\.output_upscaling\.3\.', 'mask_decoder.upscale_conv2.'),
    (r'^sam_mask_decoder\.', 'mask_decoder.'),
    (r'^sam_prompt_encoder\.mask_downscaling\.0\.', 'prompt_encoder.mask_embed.conv1.'),
    (r'^sam_prompt_encoder\.mask_downscaling\.1\.', 'prompt_encoder.mask_embed.layer_norm1.'),
    (r'^sam_prompt_encoder\.mask_downscaling\.3\.', 'prompt_encoder.mask_embed.conv2.'),
    (r'^sam_prompt_encoder\.mask_downscaling\.4\.', 'prompt_encoder.mask_embed.layer_norm2.'),
    (r'^sam_prompt_encoder\.mask_downscaling\.6\.', 'prompt_encoder.mask_embed.conv3.'),
    (r'^sam_prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix',
     'prompt_encoder.shared_embedding.positional_embedding'),
    (r'^sam_prompt_encoder\.', 'prompt_encoder.'),
    (r'^memory_encoder\.mask_downsampler\.encoder\.12\.',
     'memory_encoder.mask_downsampler.final_conv.'),
    (r'^memory_encoder\.fuser\.', 'memory_encoder.memory_fuser.'),
    (r'^memory_encoder\.out_proj\.', 'memory_encoder.projection.'),
    (r'^memory_encoder\.pix_feat_proj\.', 'memory_encoder.feature_projection.'),
    (r'\.dwconv\.', '.depthwise_conv.'),
    (r'\.pwconv(\d)\.', r'.pointwise_conv\1.'),
    (r'^(memory_encoder\.memory_fuser\.layers\.\d+)\.gamma$', r'\1.scale'),
    (r'^(memory_encoder\.memory_fuser\.layers\.\d+)\.norm\.', r'\1.layer_norm.'),
    (r'^memory_attention\.norm\.', 'memory_attention.layer_norm.'),
    (r'\.norm_final_attn\.', '.layer_norm_final_attn.'),
    (r'\.norm(\d)\.', r'.layer_norm\1.'),
    (r'\.out_proj\.', '.o_proj.'),
    (r'^maskmem_tpos_enc$', 'memory_temporal_positional_encoding'),
    (r'^no_mem_embed$', 'no_memory_embedding'),
    (r'^no_mem_pos_enc$', 'no_memory_positional_encoding'),
    (r'^no_obj_embed_spatial$', 'occlusion_spatial_embedding_parameter'),
    (r'^no_obj_ptr$', 'no_object_pointer'),
    (r'^obj_ptr_tpos_proj\.', 'temporal_positional_encoding_projection_layer.'),
    (r'^obj_ptr_proj\.', 'object_pointer_proj.'),
)
_MLP = re.compile(r'^(.*(?:mlp|iou_prediction_head|pred_obj_score_head|object_pointer_proj'
                  r'|output_hypernetworks_mlps\.\d+))\.layers\.(\d)\.(.*)$')
_MASK_LAYER = re.compile(r'^memory_encoder\.mask_downsampler\.encoder\.(\d+)\.(.*)$')


def library_key(key: str) -> str:
    """The name in `transformers` of an official checkpoint's key."""
    if (found := _MASK_LAYER.match(key)) and found[1] != '12':
        index, kind = divmod(int(found[1]), 3)
        part = ('conv', 'layer_norm')[kind]
        return f'memory_encoder.mask_downsampler.layers.{index}.{part}.{found[2]}'
    for pattern, replacement in _RULES:
        key = re.sub(pattern, replacement, key)
    if found := _MLP.match(key):
        last = 1 if found[1].endswith('.mlp') else 2
        index = int(found[2])
        layer = 'proj_in' if index == 0 else 'proj_out' if index == last else f'layers.{index - 1}'
        return f'{found[1]}.{layer}.{found[3]}'
    return key


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """An official SAM 2.1 state dict under the library's keys; unknown keys stay as they are."""
    points = [key for key in state if key.startswith('sam_prompt_encoder.point_embeddings.')]
    found = {library_key(key): value for key, value in state.items() if key not in points}
    if points:
        found['prompt_encoder.point_embed.weight'] = torch.cat(
            [state[key] for key in sorted(points)])
    shared = found.get('prompt_encoder.shared_embedding.positional_embedding')
    if shared is not None:
        found['shared_image_embedding.positional_embedding'] = shared
    return found
