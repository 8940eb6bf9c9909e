"""The tracker and refiner of a published DVIS checkpoint as graphs.

`mos import dvis --checkpoint F [--queries N] [--frames T] [--out DIR]`

Takes the keys of `tracker.` and, where they are, `refiner.`; those of the segmenter in the same
file are left out, anything else is refused. They work on the queries of *their* Mask2Former, which
is not imported: the node's own trackers do not run them. Graphs of fixed shapes, C = 256:

    dvis_tracker_first  queries -> slots, classes, masks               the first frame of a video
    dvis_tracker        initial, queries, reference -> the same        every later one
    dvis_refiner        slots, queries of T frames -> the same         the whole clip
`classes` are logits, `masks` embeddings to be multiplied with the segmenter's mask features.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from mos_perception.engine.card import ImageSpec
from mos_perception.errors import EngineError
from training.checkpoints import keep, read_state, take
from training.command import command
from training.nets.dvis import DvisConfig, ReferringTracker, TemporalRefiner
from training.static_graphs import Graph, card_of_import, import_parser, move_in, write_graph

LICENCE = ("DVIS' weights: see the terms of github.com/zhang-tao-whu/DVIS (its code is MIT but for "
           "parts from MinVIS, which are non-commercial) and of the data sets they were trained on")
# of the segmenter and of the training alone
_LEFT_OUT = ('backbone.', 'sem_seg_head.', 'criterion.', 'pixel_mean', 'pixel_std')
_PARTS = {'tracker': ReferringTracker, 'refiner': TemporalRefiner}
# (pattern, replacement), each applied in order to a published key without its part's name
_RULES = (
    (r'^transformer_cross_attention_layers\.(\d+)\.', r'blocks.\1.cross_attention.'),
    (r'^transformer_(?:obj_)?self_attention_layers\.(\d+)\.', r'blocks.\1.self_attention.'),
    (r'^transformer_time_self_attention_layers\.(\d+)\.', r'blocks.\1.long.'),
    (r'\.(?:multihead_attn|self_attn)\.', '.attention.'),
    (r'^conv_short_aggregate_layers\.(\d+)\.', r'blocks.\1.short.'),
    (r'^conv_norms\.(\d+)\.', r'blocks.\1.short_norm.'),
    (r'^transformer_ffn_layers\.(\d+)\.linear1\.', r'blocks.\1.feed_forward.layers.0.'),
    (r'^transformer_ffn_layers\.(\d+)\.linear2\.', r'blocks.\1.feed_forward.layers.2.'),
    (r'^transformer_ffn_layers\.(\d+)\.', r'blocks.\1.feed_forward.'),
    (r'^decoder_norm\.', 'heads.norm.'), (r'^class_embed\.', 'heads.classes.'),
    (r'^mask_embed\.layers\.(\d)\.', lambda m: f'heads.masks.{2 * int(m[1])}.'),
    (r'^activation_proj\.', 'weight.'))


class First(nn.Module):
    """The tracker in a video's first frame: there is nothing to refer to."""

    def __init__(self, tracker: ReferringTracker) -> None:
        super().__init__()
        self.tracker = tracker

    def forward(self, queries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(1, Q, C) -> slots (1, Q, C), classes (1, Q, K + 1), masks (1, Q, D)."""
        slots = self.tracker(queries, queries, None)[-1]
        return slots, *self.tracker.read(slots)


class Answer(nn.Module):
    """The last block's slots and what they say."""

    def __init__(self, network: ReferringTracker | TemporalRefiner) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As the network's `forward` and `read`."""
        slots = self.network(*inputs)[-1]
        return slots, *self.network.read(slots)


def our_key(key: str) -> str:
    """The name in `training.nets.dvis` of a published key without its part's name; unknown ones
    stay as they are.
    """
    for pattern, replacement in _RULES:
        key = re.sub(pattern, replacement, key)
    return key


def load_dvis(path: Path, config: DvisConfig) -> dict[str, ReferringTracker | TemporalRefiner]:
    """`tracker` and, where the checkpoint has one, `refiner`, in evaluation mode. The number of
    classes is the checkpoint's. Raises MosError: no tracker, keys or shapes that do not fit.
    """
    state = read_state(path)
    parts = {part: {our_key(key.removeprefix(f'{part}.')): value for key, value in state.items()
                    if key.startswith(f'{part}.')} for part in _PARTS}
    strange = sorted(key for key in state if not key.startswith((*_LEFT_OUT, 'tracker.',
                                                                 'refiner.')))
    if not parts['tracker']:
        raise EngineError(f'{path} has no key that begins with "tracker.": it is no DVIS online or '
                          f'offline checkpoint but perhaps the segmenter alone; it begins with '
                          f'{", ".join(sorted({key.split(".")[0] for key in state})[:10])}')
    if strange:
        raise EngineError(f'{path} has keys of no DVIS: {", ".join(strange[:20])}: is it the '
                          'checkpoint of another model?')
    found = {}
    for part, kind in _PARTS.items():
        if parts[part]:
            rows = parts[part].get('heads.classes.weight')
            own = config if rows is None or rows.ndim != 2 else replace(config,
                                                                        classes=len(rows) - 1)
            found[part] = kind(own).eval()
            take(found[part], parts[part], f'{path} ({part})')
    return found


def graphs(networks: dict[str, ReferringTracker | TemporalRefiner], queries: int,
           frames: int) -> dict[str, Graph]:
    """What is exported, by name, with inputs that look like data."""
    rng, plain = torch.Generator().manual_seed(0), ImageSpec((0.0,) * 3, (1.0,) * 3)
    tracker = networks['tracker']
    width = tracker.config.width
    outputs = ('slots', 'classes', 'masks')
    one = {name: torch.randn(1, queries, width, generator=rng)
           for name in ('initial', 'queries', 'reference')}
    found = {
        'dvis_tracker_first': Graph(First(tracker), {'queries': one['queries']}, outputs, plain,
                                    'dvis'),
        'dvis_tracker': Graph(Answer(tracker), one, outputs, plain, 'dvis')}
    if 'refiner' in networks:
        clip = {name: torch.randn(1, frames, queries, width, generator=rng)
                for name in ('slots', 'queries')}
        found['dvis_refiner'] = Graph(Answer(networks['refiner']), clip, outputs, plain, 'dvis')
    return found


def import_dvis(checkpoint: Path, config: DvisConfig, queries: int, frames: int,
                out: Path) -> list[Path]:
    """Read, check, convert and export; nothing is put into `out` before all of it is written and
    holds against torch. Returns the paths. Raises MosError.
    """
    networks = load_dvis(checkpoint, config)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix='.import') as folder:
        staged = Path(folder)
        for part, network in networks.items():
            keep(network, staged / f'dvis_{part}.safetensors',
                 {'licence': LICENCE, 'source': checkpoint.name})
        for name, graph in graphs(networks, queries, frames).items():
            path = staged / f'{name}.onnx'
            card_of_import(graph, path, write_graph(graph, path), LICENCE, 'mos import dvis',
                           [checkpoint.name])
        return move_in(staged, out)


@command('mos import dvis')
def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = import_parser('dvis', "DVIS' tracker and refiner as graphs.")
    parser.add_argument('--queries', type=int, default=100,
                        help="the segmenter's: 100 of ResNet-50, 200 of Swin-L")
    parser.add_argument('--frames', type=int, default=21, help='of a clip, for the refiner')
    given = parser.parse_args(arguments)
    print(*import_dvis(given.checkpoint, DvisConfig(), given.queries, given.frames, given.out),
          sep='\n')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
