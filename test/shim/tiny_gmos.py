"""GMOS and GMOS-S, tiny and of random weights, as the graphs that `mos import gmos` writes.

With `transformers` all graphs are the import's own, from checkpoints in the official form. Without
it, SAM 2.1 cannot be made: its image encoder is then a few convolutions of the same shapes, and
there is no video memory.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import torch
from torch import nn

from mos_perception.engine.card import ImageSpec
from training.nets.gmos import GmosProposer
from training.nets.gmos_fusion import GmosConfig
from training.nets.gmos_s import GmosS
from training.nets.gmos_whole import Convolutions
from training.nets.pi3 import MEAN, STD, Pi3Config, Pi3Trunk
from training.parity import fill

HAS_SAM2 = importlib.util.find_spec('transformers') is not None
WIDTH, GRID = 128, 16
GMOS = GmosConfig(width=WIDTH, heads=4, feed_forward=32, encoder_depth=1, decoder_depth=2,
                  queries=4, geometry_width=32, appearance_width=WIDTH, grid=GRID)
PI3 = Pi3Config(size=(42, 56), width=32, heads=2, encoder_depth=1, decoder_depth=2, trained_grid=4)
GOLDEN = Path(__file__).parents[1] / 'training' / 'goldens' / 'sam2.json'


def networks(name: str) -> tuple[nn.Module, Pi3Trunk]:
    """Head ('gmos' or 'gmos_s') and trunk. Every query moves and is sure of its mask."""
    head = (GmosS if name == 'gmos_s' else GmosProposer)(GMOS).eval()
    trunk = Pi3Trunk(PI3).eval()
    with torch.no_grad():
        fill(head, 0)
        fill(trunk, 0)
        if name == 'gmos':
            for part, bias in ((head.motion_head, 4.0), (head.iou_head, 0.95)):
                part.layers[-1].weight.mul_(0.01)
                part.layers[-1].bias.fill_(bias)
    trunk.encoder.fix_positions()
    return head, trunk


def write_tiny_gmos(folder: Path, name: str) -> Path:
    """All graphs with their cards into `folder`; the path of the head, which stands for them."""
    torch.set_num_threads(1)
    head, trunk = networks(name)
    if HAS_SAM2:
        _imported(folder, name, head, trunk)
    else:
        _written(folder, name, head, trunk)
    return folder / f'{name}_head.onnx'


def _imported(folder: Path, name: str, head: nn.Module, trunk: Pi3Trunk) -> None:
    from training import import_gmos, parity_sam2
    files = {part: folder / 'official' / f'{part}.pth' for part in ('gmos', 'pi3', 'sam2')}
    files['gmos'].parent.mkdir()
    torch.save({'model_state_dict': head.state_dict()}, files['gmos'])
    torch.save(trunk.state_dict(), files['pi3'])
    keys = json.loads(GOLDEN.read_text())['keys']
    torch.save({'model': parity_sam2.official_state(keys)}, files['sam2'])
    import_gmos.import_gmos(
        files, import_gmos.Networks(GMOS, PI3, parity_sam2.tiny_config()), folder)


def _written(folder: Path, name: str, head: nn.Module, trunk: Pi3Trunk) -> None:
    from training.import_gmos import network_graphs
    from training.static_graphs import Graph, card_of_import, write_graph
    encoder = Convolutions(GMOS)
    with torch.no_grad():
        fill(encoder, 0)
        image = torch.randn(1, 3, 16 * GRID, 16 * GRID, generator=torch.Generator().manual_seed(0))
        levels = dict(zip(('appearance', 'middle', 'fine'), encoder(image)))
    found = network_graphs(head, trunk, levels) | {
        'appearance': Graph(encoder, {'image': image}, tuple(levels), ImageSpec(MEAN, STD))}
    for part, graph in found.items():
        path = folder / f'{name}_{part}.onnx'
        card_of_import(graph, path, write_graph(graph, path), 'random weights', 'a test', [])
