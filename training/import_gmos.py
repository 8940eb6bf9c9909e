"""The published GMOS or GMOS-S with Pi3's trunk and SAM 2.1, as graphs that the runtime can load.

`mos import gmos --checkpoint F --pi3 F --sam2 F [--size large] [--image-size H W] [--out DIR]`

Checks every key and shape, keeps the tensors as safetensors, writes ONNX graphs of fixed shapes
with cards that say where the weights are from and under which licence:

    tokens         a frame's tokens (once per frame)         geometry   five frames' -> the middle's
    appearance     a frame's image features (once per frame) head       objects, or GMOS-S' mask
    memory_encoder | mask_prompt | mask_from_memory          SAM 2.1's video memory, one object
"""

from __future__ import annotations

import logging
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mos_perception.engine.card import ImageSpec
from mos_perception.motion.history import FrameWindow
from training.checkpoints import keep, read_state, take
from training.command import command
from training.import_sam2 import LICENCE as SAM2_LICENCE
from training.import_sam2 import appearance_graph, example_levels, load_sam2, memory_graphs
from training.nets.gmos import GmosProposer
from training.nets.gmos_fusion import GmosConfig
from training.nets.gmos_s import GmosS
from training.nets.gmos_whole import GEOMETRY_LICENCES, TARGET, WholeGmos
from training.nets.pi3 import MEAN, STD, Pi3Config, Pi3Trunk
from training.nets.sam2 import SIZES, AppearanceEncoder, sam2_config
from training.state import read_metadata, tensors_of
from training.static_graphs import Graph, card_of_import, import_parser, move_in, write_graph

if TYPE_CHECKING:
    from transformers import Sam2VideoConfig, Sam2VideoModel

PI3_LICENCE = f"Pi3's published weights: {GEOMETRY_LICENCES['pi3']}"
GMOS_LICENCE = "GMOS' weights: see the terms of github.com/Jyxarthur/gmos (its code is Apache-2.0)"
OWN_LICENCE = 'the head was trained with training.train: its licence is up to whoever did'
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
    """The proposer, or GMOS-S where the checkpoint has its head; `path` of a checkpoint or of the
    folder of a run of `training.train`. Raises MosError.
    """
    if path.is_dir():
        metadata = read_metadata(path, 'give a checkpoint or the folder of a run')
        state = tensors_of(load_file(path / metadata['weights']), 'net')
    else:
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


def load_whole(files: dict[str, Path], networks: Networks) -> WholeGmos:
    """All three checkpoints as one network, in evaluation mode. Raises MosError."""
    head = load_head(files['gmos'], networks.gmos)
    trunk = load_pi3(files['pi3'], networks.pi3)
    sam2 = load_sam2(files['sam2'], networks.sam2)
    return WholeGmos(trunk, AppearanceEncoder(sam2), head).eval()


def network_graphs(head: GmosProposer | GmosS, trunk: Pi3Trunk,
                   levels: dict[str, Tensor]) -> dict[str, Graph]:
    """`tokens`, `geometry` and `head`, with inputs that look like data; `levels` are those of the
    appearance encoder.
    """
    rng, plain = torch.Generator().manual_seed(0), ImageSpec((0.0,) * 3, (1.0,) * 3)
    rows, columns = trunk.config.grid
    outputs: tuple[str, ...] = ('mask_logits', 'motion_logits', 'quality', 'embeddings')
    if isinstance(head, GmosS):
        outputs = ('foreground_logits', 'foreground_quality')
    image = torch.randn(1, 3, *trunk.config.size, generator=rng)
    tokens = torch.randn(1, FRAMES, rows * columns, trunk.config.width, generator=rng)
    geometry = torch.randn(1, rows, columns, head.config.geometry_width, generator=rng)
    return {
        'tokens': Graph(_Tokens(trunk), {'image': image}, ('tokens',), ImageSpec(MEAN, STD)),
        'geometry': Graph(_Geometry(trunk), {'tokens': tokens}, ('geometry',), plain),
        'head': Graph(_Head(head), {'geometry': geometry} | levels, outputs, plain,
                      frames=FrameWindow())}


def graphs(head: GmosProposer | GmosS, trunk: Pi3Trunk, sam2: Sam2VideoModel) -> dict[str, Graph]:
    """What is exported, by name, with inputs that look like data."""
    rng = torch.Generator().manual_seed(0)
    levels = example_levels(sam2, rng)
    found = network_graphs(head, trunk, levels) | {'appearance': appearance_graph(sam2, rng)}
    return found if isinstance(head, GmosS) else found | memory_graphs(sam2, levels, rng)


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
    licences = _LICENCES | ({'gmos': OWN_LICENCE} if files['gmos'].is_dir() else {})
    name = 'gmos_s' if isinstance(head, GmosS) else 'gmos'
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix='.import') as folder:
        staged = Path(folder)
        for part, network in (('gmos', head), ('pi3', trunk), ('sam2', sam2)):
            keep(network, staged / f'{name if part == "gmos" else part}.safetensors',
                 {'licence': licences[part], 'source': files[part].name})
        for part, graph in graphs(head, trunk, sam2).items():
            path = staged / f'{name}_{part}.onnx'
            sources = _SOURCES.get(part, ('sam2',))
            card_of_import(graph, path, write_graph(graph, path),
                           '; '.join(licences[key] for key in sources), 'mos import gmos',
                           [files[key].name for key in sources])
        return move_in(staged, out)


@command('mos import gmos')
def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = import_parser('gmos', 'Published weights as graphs for the runtime.',
                           'of GMOS or GMOS-S, or the folder of a run of training.train')
    parser.add_argument('--pi3', type=Path, required=True, help='model.safetensors of Pi3')
    parser.add_argument('--sam2', type=Path, required=True, help='sam2.1_hiera_*.pt')
    parser.add_argument('--size', choices=SIZES, default='large',
                        help="SAM 2.1's; the published GMOS was trained with large")
    parser.add_argument('--image-size', type=int, nargs=2, default=Pi3Config.size,
                        metavar=('H', 'W'), help="Pi3's input in px, multiples of 14")
    given = parser.parse_args(arguments)
    networks = Networks(GmosConfig(), Pi3Config(size=tuple(given.image_size)),
                        sam2_config(given.size))
    files = {'gmos': given.checkpoint, 'pi3': given.pi3, 'sam2': given.sam2}
    print(*import_gmos(files, networks, given.out), sep='\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
