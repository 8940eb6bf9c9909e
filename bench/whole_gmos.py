"""One forward pass of GMOS at its published sizes, from pixels, with random weights: seconds and
memory of each part.

    python -m bench.whole_gmos --size large --json out/whole_gmos.json

Five frames of 378 x 672 px through Pi3's trunk, the target frame of 1024 x 1024 px through SAM
2.1's image encoder (needs requirements/gmos.txt), both into the head. Each part is made, run and
let go before the next, as the six graphs of the node are of their own.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bench.report import Report, parsed
from mos_perception.errors import MosError
from training.nets.gmos import GmosProposer
from training.nets.gmos_fusion import GmosConfig
from training.nets.gmos_s import GmosS
from training.nets.gmos_whole import TARGET
from training.nets.pi3 import Pi3Config, Pi3Trunk
from training.nets.sam2 import SIZES, AppearanceEncoder, make_sam2, sam2_config

Network = TypeVar('Network', bound=nn.Module)
FRAMES = 5
HEADS = {'gmos': GmosProposer, 'gmos_s': GmosS}


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when all outputs are finite."""
    parser = argparse.ArgumentParser(prog='bench.whole_gmos')
    parser.add_argument('--size', choices=SIZES, default='large', help='of SAM 2.1')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--json', type=Path, metavar='PATH', help='write the results there')
    args = parsed(parser, arguments)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    report = Report('whole_gmos', f'GMOS at its published sizes, SAM 2.1 {args.size}, '
                                  f'{args.threads} threads', ('torch', 'transformers'))
    try:
        finite = forward(args.size, report)
    except MosError as error:
        print(f'bench.whole_gmos: {error}', file=sys.stderr)
        return 1
    report.row('resident memory, most', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
               'MB')
    report.note(f'all outputs are {"finite" if finite else "NOT finite"}; the weights are random')
    report.finish(args)
    return int(not finite)


@torch.no_grad()
def forward(size: str, report: Report) -> bool:
    """Run every part once, its row into the report; whether all outputs are finite."""
    geometry, appearance = _geometry(report), _appearance(size, report)
    finite = True
    for name, kind in HEADS.items():
        head = _made(report, f'head {name}', kind(GmosConfig()))
        found = _timed(report, f'head {name}, one frame', head, geometry, *appearance)
        finite &= all(bool(torch.isfinite(value).all()) for value in found.values())
    return finite


def _geometry(report: Report) -> Tensor:
    """(1, h, w, G) tokens of the target frame, as the node gets them: frame by frame, then all."""
    trunk = _made(report, 'Pi3 trunk', Pi3Trunk(Pi3Config()))
    frames = torch.rand(FRAMES, 1, 3, *trunk.config.size)
    first = _timed(report, 'tokens of one frame', trunk.frame_tokens, frames[0])
    rest = [trunk.frame_tokens(frame) for frame in frames[1:]]
    return _timed(report, 'geometry of a window of five', trunk.decode,
                  torch.cat([first, *rest])[None])[:, TARGET]


def _appearance(size: str, report: Report) -> tuple[Tensor, Tensor, Tensor]:
    side = 16 * GmosConfig().grid
    network = AppearanceEncoder(make_sam2(sam2_config(size)))
    encoder = _made(report, 'SAM 2.1 image encoder', network)
    return _timed(report, 'appearance of the target frame', encoder, torch.randn(1, 3, side, side))


def _made(report: Report, what: str, network: Network) -> Network:
    """The network as it is used, its parameters counted."""
    report.row(f'{what}, parameters', sum(one.numel() for one in network.parameters()) / 1e6, 'M')
    return network.eval()


def _timed(report: Report, what: str, run: Callable[..., Any], *given: Tensor) -> Any:
    start = time.perf_counter()
    found = run(*given)
    report.row(what, time.perf_counter() - start, 's')
    return found


if __name__ == '__main__':
    sys.exit(main())
