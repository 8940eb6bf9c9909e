"""DIMOS' released checkpoint as a model that the runtime loads.

`mos import dimos --checkpoint F [--data mousesis | sevd] [--out DIR]`

Checks every key and shape, keeps the tensors as safetensors, writes `dimos.onnx` with its card.
Only what inference needs is taken: discriminators, translators, contrast projectors and the flow
head are left out. Biases before batch norms are folded into these. Names are from networks/models
of Neuromorphic-Electronics-Photonics-Lab/DIMOS-Moving-Instance-Segmentation-CVPR2026.
"""

from __future__ import annotations

import re
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mos_perception.engine.card import WindowSpec, save_card
from mos_perception.errors import EngineError
from training.checkpoints import keep, read_state, take
from training.command import command
from training.export import card_of, difference
from training.nets.dimos import Dimos
from training.nets.dimos_config import RELEASED, DimosConfig
from training.onnx_files import write_onnx
from training.recipes import RECIPES, VoxelSettings
from training.static_graphs import TOLERANCE, import_parser, move_in

RELEASED_FLOOR = 1e-5  # the released divisor is the largest cell + this
LICENCE = "DIMOS' weights: see the terms of its repository"


@dataclass(frozen=True)
class Release:
    """What a checkpoint was trained on: network size (height, width), the frames' period."""

    size: tuple[int, int]
    period_ms: float


RELEASES = {'mousesis': Release((180, 320), 1000 / 30), 'sevd': Release((384, 512), 1000 / 30)}

# of the training alone
_LEFT_OUT = ('flow_decoder.', 'texture_discriminator.', 'motion_discriminator.',
             'event_to_image_', 'image_to_event_', 'texture_projector.', 'motion_projector.',
             'mask_decoder.loss_', 'ntxentloss.')
# (pattern, replacement), each applied in order to an official key
_RULES = (
    (r'^(im|ev)encoder_(tt|mt)\.',
     lambda m: f'{"image" if m[1] == "im" else "event"}_'
               f'{"appearance" if m[2] == "tt" else "motion"}.'),
    (r'^texture_fusion\.fusion_layers\.(\d)\.0\.', r'fuse_appearance.\1.mix.'),
    (r'^motion_fusion\.fusion_layers\.(\d)\.0\.', r'fuse_motion.\1.mix.'),
    (r'^evmask_encoder\.([01])\.', r'event_mask.layers.0.\1.'),
    (r'^evmask_encoder\.3\.', 'event_mask.layers.2.'),
    (r'^projector\.(\d)\.', r'interactions.\1.'),
    (r'^(interactions\.\d)\.conv1\.', r'\1.appearance.'),
    (r'^(interactions\.\d)\.conv2\.', r'\1.motion.'),
    (r'^(interactions\.\d)\.conv3\.', r'\1.out.'),
    (r'^(interactions\.\d\.(?:appearance|motion|out))\.([01])\.', r'\1.0.\2.'),
    (r'^(interactions\.\d\.(?:appearance|motion|out))\.3\.', r'\1.2.'),
    (r'\.att_texture\.', '.to_appearance.'), (r'\.att_motion\.', '.to_motion.'),
    (r'\.norm1([xy])\.body\.', r'.norm_\1.'), (r'\.norm2\.body\.', '.norm_out.'),
    (r'\.attn\.temperature$', '.attention.temperature'),
    (r'\.attn\.project_out\.', '.attention.project.'),
    (r'\.ffn\.project_in\.', '.feed_forward.up.'), (r'\.ffn\.dwconv\.', '.feed_forward.local.'),
    (r'\.ffn\.project_out\.', '.feed_forward.down.'),
    (r'^mask_decoder\.pixel_decoder\.last_feat_conv\.', 'pixel_decoder.top.'),
    (r'^mask_decoder\.pixel_decoder\.lateral_convs\.', 'pixel_decoder.laterals.'),
    (r'^mask_decoder\.pixel_decoder\.output_convs\.', 'pixel_decoder.smooth.'),
    (r'^mask_decoder\.pixel_decoder\.mask_feature\.', 'pixel_decoder.mask_features.'),
    (r'^(pixel_decoder\..*)\.conv\.', r'\1.0.'), (r'^(pixel_decoder\..*)\.gn\.', r'\1.1.'),
    (r'^mask_decoder\.transformer_decoder\.post_norm\.', 'query_decoder.norm.'),
    (r'^mask_decoder\.transformer_decoder\.', 'query_decoder.'),
    (r'\.(self|cross)_attn\.attn\.out_proj\.', r'.\1_attention.out.'),
    (r'\.ffn\.layers\.0\.0\.', '.feed_forward.0.'), (r'\.ffn\.layers\.1\.', '.feed_forward.3.'),
    (r'^mask_decoder\.query_embed\.weight$', 'query_decoder.query_positions'),
    (r'^mask_decoder\.cls_embed\.', 'heads.classify.'),
    (r'^mask_decoder\.mask_embed\.', 'heads.mask.'),
    (r'^mask_decoder\.bbox_embedding_layer\.', 'heads.box_embed.'),
    (r'^mask_decoder\.bbox_coord_head\.', 'heads.box.'),
)
_PACKED = re.compile(r'^(.*)\.(self|cross)_attn\.attn\.in_proj_(weight|bias)$')


def our_key(key: str) -> str:
    """The name in `Dimos` of a released checkpoint's key; unknown ones stay as they are."""
    for pattern, replacement in _RULES:
        key = re.sub(pattern, replacement, key)
    return key


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A released state dict under our keys, what only training needs left out."""
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith(_LEFT_OUT):
            continue
        key = our_key(key)
        if packed := _PACKED.match(key):
            for name, part in zip(('query', 'key', 'value'), value.chunk(3)):
                found[f'{packed[1]}.{packed[2]}_attention.{name}.{packed[3]}'] = part
        elif key.endswith('.attn.qkv_dwconv.weight'):
            place = key.removesuffix('attn.qkv_dwconv.weight') + 'attention.'
            query, *rest = value.chunk(3)
            found[f'{place}query.weight'] = query
            # of each channel the key's filter and the value's
            found[f'{place}key_value.weight'] = torch.stack(rest, 1).flatten(0, 1)
        else:
            found[key] = value.float() if key.endswith('num_batches_tracked') else value
    return _folded(found)


def _folded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the biases of convolutions in front of a batch norm, which its mean takes up."""
    for key in [key for key in state if key.endswith('.0.0.bias')]:
        mean = f'{key.removesuffix("0.bias")}1.running_mean'
        if mean in state:
            state[mean] = state[mean] - state.pop(key)
    return state


def load_dimos(path: Path, config: DimosConfig) -> Dimos:
    """The released network in evaluation mode; the number of queries is the checkpoint's.

    Its flow and foreground heads, which inference does not use, keep their random weights. Raises
    MosError.
    """
    state = from_official(read_state(path))
    queries = state.get('query_decoder.query_positions')
    if queries is not None and queries.ndim == 2:
        config = replace(config, queries=len(queries))
    network = Dimos(config).eval()
    own = {key: value.float() for key, value in network.state_dict().items()
           if key.startswith(('flow.', 'dense.'))}
    take(network, own | state, str(path))
    return network


def import_dimos(checkpoint: Path, release: Release, config: DimosConfig, out: Path) -> list[Path]:
    """Read, check, convert and export; nothing is put into `out` before all of it is written and
    holds against torch. Returns the paths. Raises MosError.
    """
    network = load_dimos(checkpoint, config)
    recipe = replace(RECIPES['dimos'], net=network.config,
                     voxel=VoxelSettings(resize='linear', norm_floor=RELEASED_FLOOR))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix='.import') as folder:
        path = Path(folder) / 'dimos.onnx'
        keep(network, path.with_suffix('.safetensors'),
             {'licence': LICENCE, 'source': checkpoint.name})
        write_onnx(network, path)
        differences = difference(network, path)
        if not max(differences.values()) <= TOLERANCE:
            raise EngineError(f'{path.name}: torch and ONNX Runtime differ by {differences}: must '
                              f'be <= {TOLERANCE}; do not use this file')
        about = {'command': 'mos import dimos', 'sources': [checkpoint.name],
                 'onnx_difference': differences}
        window = WindowSpec('after', round(release.period_ms, 6))
        save_card(card_of(network, recipe, path, about, window, LICENCE), path)
        return move_in(Path(folder), out)


@command('mos import dimos')
def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = import_parser('dimos', 'Released weights as a model for the runtime.')
    parser.add_argument('--data', choices=sorted(RELEASES), default='mousesis',
                        help='what it was trained on')
    given = parser.parse_args(arguments)
    release = RELEASES[given.data]
    config = replace(RELEASED, size=release.size)
    print(*import_dimos(given.checkpoint, release, config, given.out), sep='\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
