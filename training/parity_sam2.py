"""SAM 2.1 through `transformers` and our memory graphs against the official code.

`python -m training.parity_sam2 --official FOLDER [--out goldens.json]`

FOLDER is a clone of github.com/Jyxarthur/gmos, which has facebookresearch/sam2 in core/sam2 and
needs hydra-core; its code is run as it is, never copied. A small network of random weights is given
an object's mask and tracks it for three frames, in the official way and in ours; at the published
sizes keys and shapes are compared.
"""

from __future__ import annotations

import importlib
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mos_perception.errors import EngineError
from training.checkpoints import take
from training.nets.sam2 import SIZES, AppearanceEncoder, from_official, make_sam2, sam2_config
from training.nets.sam2_memory import MaskFromMemory, MaskPrompt, MemoryEncoder
from training.parity import (
    differences_of,
    digest,
    keep_goldens,
    parser_of,
    seeded,
    spelled,
    summary,
    use_official,
    weight,
    without_memory,
)

if TYPE_CHECKING:
    from transformers import Sam2VideoConfig, Sam2VideoModel

SIDE, FRAMES, WIDTH = 256, 4, 128


def tiny_config() -> Sam2VideoConfig:
    """SAM 2.1 with 1 + 1 + 2 + 1 blocks of 16 .. 128 channels at 256 px."""
    import transformers

    backbone = transformers.Sam2HieraDetConfig(
        image_size=[SIDE, SIDE], hidden_size=16, num_attention_heads=1,
        blocks_per_stage=[1, 1, 2, 1], embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8], window_size_per_stage=[8, 4, 4, 4],
        global_attention_blocks=[3])
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[128, 64, 32, 16],
        backbone_feature_sizes=[[64, 64], [32, 32], [16, 16]], fpn_hidden_size=WIDTH)
    return transformers.Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={'hidden_size': WIDTH, 'image_size': SIDE},
        mask_decoder_config={'hidden_size': WIDTH},
        image_size=SIDE, memory_attention_hidden_size=WIDTH, memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=64, memory_attention_rope_feat_sizes=[16, 16],
        memory_encoder_hidden_size=WIDTH, mask_downsampler_embed_dim=WIDTH,
        memory_fuser_embed_dim=WIDTH, memory_fuser_intermediate_dim=4 * WIDTH)


def official_state(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Weights under the official keys; the object is taken to be there."""
    state = {key: weight(tuple(shape), 0, key) for key, shape in shapes.items()}
    state['sam_mask_decoder.pred_obj_score_head.layers.2.bias'] += 5
    return state


def frames() -> Tensor:
    """(FRAMES, 3, SIDE, SIDE), alike, normalised."""
    return seeded((1, 3, SIDE, SIDE), 7, 'still') + 0.3 * seeded((FRAMES, 3, SIDE, SIDE), 7, 'each')


def prompt() -> Tensor:
    """(1, 1, SIDE, SIDE): a box."""
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., 64:160, 96:200] = 1
    return mask


def ours(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A prompted and tracked object by our graphs, and the first frame's features."""
    sam2 = make_sam2(tiny_config())
    take(sam2, from_official(state), 'official weights')
    return track(sam2, frames(), prompt())


@torch.no_grad()
def track(sam2: Sam2VideoModel, images: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Features of the first image; score and pointer on each, mask and IoU on each later one."""
    encode, remember = AppearanceEncoder(sam2), MemoryEncoder(sam2)
    recall = MaskFromMemory(sam2)
    levels = encode(images[:1])
    found = dict(zip(('appearance', 'middle', 'fine'), levels))
    pointer, score = MaskPrompt(sam2)(*levels, mask)
    found |= {'object_score_0': score, 'pointer_0': pointer}
    memories = [remember(levels[0], 20 * mask - 10, score)]
    pointers = [pointer]
    for index in range(1, len(images)):
        levels = encode(images[index:index + 1])
        slots = torch.zeros(7, *memories[0].shape[1:])
        known = torch.zeros(16, sam2.hidden_dim)
        slots[0], known[0] = memories[0][0], pointers[0][0]
        age = torch.zeros(16)
        age[0] = index
        for back in range(1, index):
            slots[back], known[back] = memories[-back][0], pointers[-back][0]
            age[back] = back
        used = torch.arange(16) < index
        logits, iou, score, pointer = recall(
            *levels, slots, used[:7].float(), known, age, used.float())
        found |= {f'mask_logits_{index}': logits, f'iou_{index}': iou,
                  f'object_score_{index}': score, f'pointer_{index}': pointer}
        high = nn.functional.interpolate(logits, (SIDE, SIDE), mode='bilinear')
        memories.append(remember(levels[0], high, score))
        pointers.append(pointer)
    return found


def official_network() -> nn.Module:
    """The official classes at the size of `tiny_config`."""
    def part(name: str) -> Any:
        return importlib.import_module(f'sam2.modeling.{name}')

    sine = partial(part('position_encoding').PositionEmbeddingSine, normalize=True)
    encoder = part('backbones.image_encoder').ImageEncoder(
        part('backbones.hieradet').Hiera(
            16, 1, stages=(1, 1, 2, 1), global_att_blocks=(3,),
            window_pos_embed_bkg_spatial_size=(7, 7), window_spec=(8, 4, 4, 4)),
        part('backbones.image_encoder').FpnNeck(
            sine(WIDTH), WIDTH, [128, 64, 32, 16], fpn_top_down_levels=[2, 3],
            fpn_interp_model='nearest'), scalp=1)
    attention = partial(
        part('sam.transformer').RoPEAttention, embedding_dim=WIDTH, num_heads=1,
        downsample_rate=1, feat_sizes=(16, 16))
    layer = part('memory_attention').MemoryAttentionLayer(
        'relu', attention(rope_k_repeat=True, kv_in_dim=64), WIDTH, 64, 0.1, False, True, False,
        attention())
    memory = part('memory_encoder')
    remember = memory.MemoryEncoder(
        64, memory.MaskDownSampler(WIDTH, 3, 2, 1), memory.Fuser(memory.CXBlock(WIDTH), 2),
        sine(64), WIDTH)
    return part('sam2_base').SAM2Base(
        encoder, part('memory_attention').MemoryAttention(WIDTH, True, layer, 2), remember,
        image_size=SIDE, sigmoid_scale_for_mem_enc=20.0, sigmoid_bias_for_mem_enc=-10.0,
        use_mask_input_as_output_without_sam=True, directly_add_no_mem_embed=True,
        use_high_res_features_in_sam=True, multimask_output_in_sam=True, multimask_min_pt_num=0,
        multimask_output_for_tracking=True, use_multimask_token_for_obj_ptr=True,
        iou_prediction_use_sigmoid=True, use_obj_ptrs_in_encoder=True,
        proj_tpos_enc_in_obj_ptrs=True, use_signed_tpos_enc_to_obj_ptrs=True,
        only_obj_ptrs_in_the_past_for_eval=True, pred_obj_scores=True, pred_obj_scores_mlp=True,
        fixed_no_obj_ptr=True, use_mlp_for_obj_ptr_proj=True, no_obj_embed_spatial=True).eval()


def official_digests() -> dict[str, dict[str, Any]]:
    """Of the official networks at their published sizes, under the library's keys."""
    hydra = importlib.import_module('hydra')
    instantiate = importlib.import_module('hydra.utils').instantiate
    importlib.import_module('sam2')  # tells hydra where the configurations are
    found = {}
    for size, name in zip(SIZES, ('t', 's', 'b+', 'l'), strict=True):
        config = hydra.compose(config_name=f'configs/sam2.1/sam2.1_hiera_{name}.yaml')
        with without_memory():
            network = instantiate(config.model, _recursive_=True)
        found[size] = digest(from_official(network.state_dict()))
    return found


@torch.no_grad()
def official(network: nn.Module) -> dict[str, Tensor]:
    """As `ours`."""
    found: dict[str, Tensor] = {}
    outputs: dict[str, dict] = {'cond_frame_outputs': {}, 'non_cond_frame_outputs': {}}
    for index, image in enumerate(frames()):
        _, features, places, sizes = network._prepare_backbone_features(
            network.forward_image(image[None]))
        if index == 0:
            names = ('fine', 'middle', 'appearance')
            for name, level, size in zip(names, features, sizes):
                found[name] = level.permute(1, 2, 0).unflatten(2, size)
            found['appearance'] = found['appearance'] + network.no_mem_embed.reshape(1, -1, 1, 1)
        result = network.track_step(
            index, index == 0, features, places, sizes, None, prompt() if index == 0 else None,
            outputs, 1000)
        outputs['non_cond_frame_outputs' if index else 'cond_frame_outputs'][index] = result
        found |= {f'object_score_{index}': result['object_score_logits'],
                  f'pointer_{index}': result['obj_ptr']}
        if index:
            found |= {f'mask_logits_{index}': result['pred_masks'],
                      f'iou_{index}': result['object_ious']}
    return found


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    given = parser_of('Hold SAM 2.1 against the official code.').parse_args(arguments)
    use_official(given.official)
    network = official_network()
    shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
    state = official_state(shapes)
    network.load_state_dict(state)
    wanted, found = official(network), ours(state)
    print(spelled(differences_of('SAM 2.1', found, wanted)))
    sizes = official_digests()
    for size, wanted_keys in sizes.items():
        with without_memory():
            network = make_sam2(sam2_config(size))
        if digest(network.state_dict()) != wanted_keys:
            raise EngineError(f'keys or shapes of SAM 2.1 {size} are not the official ones: '
                              'is transformers another version?')
        print(f'{size}: {wanted_keys["keys"]} keys and their shapes are equal')
    keep_goldens(given.out, {'sizes': sizes, 'keys': shapes, 'outputs': {
        key: summary(value) for key, value in wanted.items()}})


if __name__ == '__main__':
    main()
