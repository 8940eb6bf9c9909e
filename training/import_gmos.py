"""The published GMOS or GMOS-S with Pi3's trunk and SAM 2.1, as graphs that the runtime can load.

`mos import gmos --checkpoint F --pi3 F --sam2 F [--size large] [--image-size H W] [--out DIR]`

Checks every key and shape, keeps the tensors as safetensors, writes ONNX graphs of fixed shapes
with cards that say where the weights are from and under which licence:

    tokens         a frame's tokens (once per frame)         geometry   five frames' -> the middle's
    appearance     a frame's image features (once per frame) head       objects, or GMOS-S' mask
    memory_encoder | mask_prompt | mask_from_memory          SAM 2.1's video memory, one object
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mos_perception.engine.card import ImageSpec
from mos_perception.errors import MosError
from training.checkpoints import keep, read_state, take
from training.nets.gmos import GmosProposer
from training.nets.gmos_fusion import GmosConfig
from training.nets.gmos_s import GmosS
from training.nets.gmos_whole import GEOMETRY_LICENCES, TARGET, WholeGmos
from training.nets.pi3 import MEAN, STD, Pi3Config, Pi3Trunk
from training.nets.sam2 import SIZES, AppearanceEncoder, from_official, make_sam2, sam2_config
from training.nets.sam2_memory import MaskFromMemory, MaskPrompt, MemoryEncoder
from training.static_graphs import Graph, move_in, write_card, write_graph

if TYPE_CHECKING:
    from transformers import Sam2VideoConfig, Sam2VideoModel

PI3_LICENCE = f"Pi3's published weights: {GEOMETRY_LICENCES['pi3']}"
SAM2_LICENCE = "SAM 2.1's weights are Apache-2.0"
GMOS_LICENCE = "GMOS' weights: see the terms of github.com/Jyxarthur/gmos (its code is Apache-2.0)"
FRAMES = 5
# parts of Pi3 and Pi3X that a GMOS does not use
_PI3_HEADS = (
    'point_decoder.', 'point_head.', 'conf_decoder.', 'conf_head.', 'camera_decoder.',
    'camera_head.', 'metric_decoder.', 'metric_head.', 'metric_token')
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Networks:
    """The sizes that the checkpoints must have."""

    gmos: GmosConfig
    pi3: Pi3Config
    sam2: Sam2VideoConfig


class _Tokens(nn.Module):
    def __init__(self, trunk: Pi3Trunk) -> None:
        super().__init__()
        self.encoder = trunk.encoder

    def forward(self, image: Tensor) -> Tensor:
        return self.encoder(image)


class _Geometry(nn.Module):
    def __init__(self, trunk: Pi3Trunk) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, tokens: Tensor) -> Tensor:
        return self.trunk.decode(tokens)[:, TARGET]


class _Head(nn.Module):
    def __init__(self, head: GmosProposer | GmosS) -> None:
        super().__init__()
        self.head = head

    def forward(self, geometry: Tensor, appearance: Tensor, middle: Tensor,
                fine: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.head(geometry, appearance, middle, fine).values())


def load_head(path: Path, config: GmosConfig) -> GmosProposer | GmosS:
    """The proposer, or GMOS-S where the checkpoint has its head. Raises MosError."""
    state = read_state(path)
    network = (GmosS if 'fg_out.weight' in state else GmosProposer)(config).eval()
    take(network, state, str(path))
    return network


def load_pi3(path: Path, config: Pi3Config) -> Pi3Trunk:
    """The trunk of a Pi3 checkpoint, its heads left out. Raises MosError."""
    state = {key: value for key, value in read_state(path).items()
             if not key.startswith(_PI3_HEADS)}
    network = Pi3Trunk(config).eval()
    take(network, state, str(path))
    network.encoder.fix_positions()
    return network


def load_sam2(path: Path, config: Sam2VideoConfig) -> Sam2VideoModel:
    """SAM 2.1 from an official checkpoint. Raises MosError."""
    network = make_sam2(config)
    take(network, from_official(read_state(path)), str(path))
    return network


def load_whole(files: dict[str, Path], networks: Networks) -> WholeGmos:
    """All three checkpoints as one network, in evaluation mode. Raises MosError."""
    head = load_head(files['gmos'], networks.gmos)
    trunk = load_pi3(files['pi3'], networks.pi3)
    sam2 = load_sam2(files['sam2'], networks.sam2)
    return WholeGmos(trunk, AppearanceEncoder(sam2), head).eval()


def graphs(head: GmosProposer | GmosS, trunk: Pi3Trunk, sam2: Sam2VideoModel) -> dict[str, Graph]:
    """What is exported, by name, with inputs that look like data."""
    config, rng = head.config, torch.Generator().manual_seed(0)
    grid, width, patches = config.grid, config.width, trunk.config.grid
    normalised, plain = ImageSpec(MEAN, STD), ImageSpec((0.0,) * 3, (1.0,) * 3)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    levels = {'appearance': random(1, config.appearance_width, grid, grid),
              'middle': random(1, width // 4, 2 * grid, 2 * grid),
              'fine': random(1, width // 8, 4 * grid, 4 * grid)}
    side = 16 * grid
    found = {
        'tokens': Graph(_Tokens(trunk), {'image': random(1, 3, *trunk.config.size)}, ('tokens',),
                        normalised),
        'geometry': Graph(
            _Geometry(trunk),
            {'tokens': random(1, FRAMES, patches[0] * patches[1], trunk.config.width)},
            ('geometry',), plain),
        'appearance': Graph(AppearanceEncoder(sam2), {'image': random(1, 3, side, side)},
                            tuple(levels), normalised)}
    geometry = {'geometry': random(1, *patches, config.geometry_width)}
    if isinstance(head, GmosS):
        outputs = ('foreground_logits', 'foreground_quality')
        return found | {'head': Graph(_Head(head), geometry | levels, outputs, plain)}
    outputs = ('mask_logits', 'motion_logits', 'quality', 'embeddings')
    mask = (random(1, 1, side // 8, side // 8) > 0).float().repeat_interleave(8, 2)
    mask = mask.repeat_interleave(8, 3)
    slots, channels = sam2.config.max_object_pointers_in_encoder, sam2.mem_dim
    used = (torch.arange(slots) < 5).float()
    memory = {'memory': random(sam2.num_maskmem, grid * grid, channels),
              'memory_valid': (torch.arange(sam2.num_maskmem) < 3).float(),
              'pointers': random(slots, sam2.hidden_dim),
              'pointer_age': torch.arange(slots).float(), 'pointer_valid': used}
    return found | {
        'head': Graph(_Head(head), geometry | levels, outputs, plain),
        'memory_encoder': Graph(
            MemoryEncoder(sam2), {'appearance': levels['appearance'], 'mask_logits': 20 * mask - 10,
                                  'object_score': torch.ones(1, 1)}, ('memory',), plain),
        'mask_prompt': Graph(MaskPrompt(sam2), levels | {'mask': mask},
                             ('pointer', 'object_score'), plain),
        'mask_from_memory': Graph(MaskFromMemory(sam2), levels | memory,
                                  ('mask_logits', 'iou', 'object_score', 'pointer'), plain)}


_SOURCES = {'tokens': ('pi3',), 'geometry': ('pi3',), 'head': ('gmos',)}
_LICENCES = {'pi3': PI3_LICENCE, 'sam2': SAM2_LICENCE, 'gmos': GMOS_LICENCE}


def import_gmos(files: dict[str, Path], networks: Networks, out: Path) -> list[Path]:
    """Read, check, convert and export; `files` has `gmos`, `pi3` and `sam2`.

    Nothing is put into `out` before all of it is written and holds against torch. Returns the
    paths. Raises MosError.
    """
    _log.warning('%s', PI3_LICENCE)
    whole = load_whole(files, networks)
    head, trunk, sam2 = whole.head, whole.geometry, whole.appearance.sam2
    name = 'gmos_s' if isinstance(head, GmosS) else 'gmos'
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix='.import') as folder:
        staged = Path(folder)
        for part, network in (('gmos', head), ('pi3', trunk), ('sam2', sam2)):
            keep(network, staged / f'{name if part == "gmos" else part}.safetensors',
                 {'licence': _LICENCES[part], 'source': files[part].name})
        for part, graph in graphs(head, trunk, sam2).items():
            path = staged / f'{name}_{part}.onnx'
            differences = write_graph(graph, path)
            sources = _SOURCES.get(part, ('sam2',))
            about: dict[str, Any] = {
                'command': 'mos import gmos', 'sources': [files[key].name for key in sources],
                'onnx_difference': differences}
            if 'image' in graph.inputs:
                about['image_size'] = list(graph.inputs['image'].shape[2:])
            write_card(graph, path, '; '.join(_LICENCES[key] for key in sources), about)
            print(f'{path.name}: ' + ', '.join(f'{key} {value:.1e}'
                                               for key, value in differences.items()), flush=True)
        return move_in(staged, out)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog='mos import gmos', description='Published weights as graphs for the runtime.')
    parser.add_argument('--checkpoint', type=Path, required=True, help='of GMOS or GMOS-S')
    parser.add_argument('--pi3', type=Path, required=True, help='model.safetensors of Pi3')
    parser.add_argument('--sam2', type=Path, required=True, help='sam2.1_hiera_*.pt')
    parser.add_argument('--size', choices=SIZES, default='large',
                        help="SAM 2.1's; the published GMOS was trained with large")
    parser.add_argument('--image-size', type=int, nargs=2, default=Pi3Config.size,
                        metavar=('H', 'W'), help="Pi3's input in px, multiples of 14")
    parser.add_argument('--out', type=Path, default=Path('models'))
    given = parser.parse_args(arguments)
    try:
        networks = Networks(GmosConfig(), Pi3Config(size=tuple(given.image_size)),
                            sam2_config(given.size))
        files = {'gmos': given.checkpoint, 'pi3': given.pi3, 'sam2': given.sam2}
        for path in import_gmos(files, networks, given.out):
            print(path)
    except (MosError, OSError) as error:
        print(f'mos import gmos: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
