"""SAM 2.1 as graphs: image encoder and video memory, for the propagator.

`mos import sam2 --checkpoint F [--size large] [--out DIR]`

Checks every key and shape, keeps the tensors as safetensors, writes ONNX graphs of fixed shapes
with cards that say where the weights are from:

    appearance                                      a frame's features (once per frame)
    memory_encoder | mask_prompt | mask_from_memory  one object on one frame
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mos_perception.engine.card import ImageSpec
from training.checkpoints import keep, read_state, take
from training.command import command
from training.nets.pi3 import MEAN, STD
from training.nets.sam2 import SIZES, AppearanceEncoder, from_official, make_sam2, sam2_config
from training.nets.sam2_memory import MaskFromMemory, MaskPrompt, MemoryEncoder
from training.static_graphs import Graph, card_of_import, import_parser, move_in, write_graph

if TYPE_CHECKING:
    from transformers import Sam2VideoConfig, Sam2VideoModel

LICENCE = "SAM 2.1's weights are Apache-2.0"
LEVELS = ('appearance', 'middle', 'fine')


def load_sam2(path: Path, config: Sam2VideoConfig) -> Sam2VideoModel:
    """SAM 2.1 from an official checkpoint. Raises MosError."""
    network = make_sam2(config)
    take(network, from_official(read_state(path)), str(path))
    return network


def example_levels(sam2: Sam2VideoModel, rng: torch.Generator) -> dict[str, Tensor]:
    """What `AppearanceEncoder` gives, made of noise."""
    grid, width = sam2.backbone_feature_sizes[-1][0], sam2.hidden_dim
    shapes = ((width, grid), (width // 4, 2 * grid), (width // 8, 4 * grid))
    return {name: torch.randn(1, channels, side, side, generator=rng)
            for name, (channels, side) in zip(LEVELS, shapes)}


def appearance_graph(sam2: Sam2VideoModel, rng: torch.Generator) -> Graph:
    """The image encoder."""
    side = 16 * sam2.backbone_feature_sizes[-1][0]
    return Graph(AppearanceEncoder(sam2), {'image': torch.randn(1, 3, side, side, generator=rng)},
                 LEVELS, ImageSpec(MEAN, STD))


def memory_graphs(sam2: Sam2VideoModel, levels: dict[str, Tensor],
                  rng: torch.Generator) -> dict[str, Graph]:
    """The video memory, by name, with inputs that look like data."""
    plain, grid = ImageSpec((0.0,) * 3, (1.0,) * 3), levels['appearance'].shape[-1]
    side = 16 * grid
    mask = (torch.randn(1, 1, side // 8, side // 8, generator=rng) > 0).float()
    mask = mask.repeat_interleave(8, 2).repeat_interleave(8, 3)
    slots, channels = sam2.config.max_object_pointers_in_encoder, sam2.mem_dim
    memory = {'memory': torch.randn(sam2.num_maskmem, grid * grid, channels, generator=rng),
              'memory_valid': (torch.arange(sam2.num_maskmem) < 3).float(),
              'pointers': torch.randn(slots, sam2.hidden_dim, generator=rng),
              'pointer_age': torch.arange(slots).float(),
              'pointer_valid': (torch.arange(slots) < 5).float()}
    return {
        'memory_encoder': Graph(
            MemoryEncoder(sam2), {'appearance': levels['appearance'], 'mask_logits': 20 * mask - 10,
                                  'object_score': torch.ones(1, 1)}, ('memory',), plain),
        'mask_prompt': Graph(MaskPrompt(sam2), levels | {'mask': mask},
                             ('pointer', 'object_score'), plain),
        'mask_from_memory': Graph(MaskFromMemory(sam2), levels | memory,
                                  ('mask_logits', 'iou', 'object_score', 'pointer'), plain)}


def import_sam2(checkpoint: Path, config: Sam2VideoConfig, out: Path) -> list[Path]:
    """Read, check, convert and export. Nothing is put into `out` before all of it is written and
    holds against torch. Returns the paths. Raises MosError.
    """
    sam2 = load_sam2(checkpoint, config)
    rng = torch.Generator().manual_seed(0)
    found = {'appearance': appearance_graph(sam2, rng),
             **memory_graphs(sam2, example_levels(sam2, rng), rng)}
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix='.import') as folder:
        staged = Path(folder)
        keep(sam2, staged / 'sam2.safetensors', {'licence': LICENCE, 'source': checkpoint.name})
        for part, graph in found.items():
            path = staged / f'sam2_{part}.onnx'
            card_of_import(graph, path, write_graph(graph, path), LICENCE, 'mos import sam2',
                           [checkpoint.name])
        return move_in(staged, out)


@command('mos import sam2')
def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = import_parser('sam2', 'Published weights as graphs for the runtime.',
                           'sam2.1_hiera_*.pt')
    parser.add_argument('--size', choices=SIZES, default='large')
    given = parser.parse_args(arguments)
    print(*import_sam2(given.checkpoint, sam2_config(given.size), given.out), sep='\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
