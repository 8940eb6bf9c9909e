"""Train one recipe on a packed set, or on scenes that are rendered meanwhile.

`python -m training.train --recipe dimos_nano --data runs/set --out runs/dimos_nano --minutes 60`
`python -m training.train --online train,mid=2 --workers 2 --cache-gb 4 --out runs/x --minutes 60`
`torchrun --nproc-per-node 2 -m training.train ...`
    one process per GPU: `batch` is each one's, gradients are averaged
`python -m training.train --recipe dimos_nano --smoke`
    render, train, export and score a little: does all of it run?

`--resume` with --steps continues as if never stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections import ChainMap
from dataclasses import replace
from pathlib import Path

import torch

from mos_perception.errors import ConfigError
from training.command import command
from training.datasets.frame_pairs import PairSet
from training.datasets.gmos_features import GmosSet
from training.datasets.online import OnlineSet
from training.datasets.packed import PackedSet
from training.datasets.source import Source
from training.distributed import init_distributed, rank_and_world_size
from training.loop import fit
from training.recipes import RECIPES, Training
from training.recipes_gmos import GMOS_RECIPES, GmosRecipe
from training.recipes_mosis import MOSIS_RECIPES, MosisRecipe
from training.smoke import smoke
from training.state import METADATA, State, load, start_from

_RECIPES = ChainMap(RECIPES, MOSIS_RECIPES, GMOS_RECIPES)


def open_data(args: argparse.Namespace, recipe: Training) -> Source:
    """The data set that the command line asks for."""
    if isinstance(recipe, MosisRecipe):
        if not args.data:
            raise ConfigError(f'{recipe.name} learns from pairs of frames: give --data with a '
                              'folder that training.datasets.frame_pairs made')
        return PairSet(args.data, recipe)
    if isinstance(recipe, GmosRecipe):
        if not args.data:
            raise ConfigError(f'{recipe.name} learns from cached features: give --data with a '
                              'folder that training.datasets.gmos_features made')
        return GmosSet(args.data, recipe)
    if args.data:
        return PackedSet(args.data, recipe)
    return OnlineSet(args.online, recipe, workers=args.workers, device=args.render_device,
                     cache_gb=args.cache_gb, reuse=args.reuse)


def open_state(args: argparse.Namespace, recipe: Training, data: Source,
               device: torch.device) -> State:
    """The state that the command line asks for: resumed, begun with another's network, or fresh."""
    if args.resume:
        if (args.out / METADATA).exists():
            return load(args.out, recipe, data.about, device)
        # stopped before the first checkpoint
        print(f'note: no checkpoint in {args.out} yet, starting anew', file=sys.stderr)
    return start_from(args.start_from, recipe, device)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option = parser.add_argument
    option('--recipe', choices=sorted(_RECIPES), default='dimos_nano')
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument('--smoke', action='store_true',
                      help='all stages in a minute or two, in a folder that is removed')
    data.add_argument('--data', type=Path,
                      help='folder of a packed set (training.datasets.packed; for pairs of frames '
                           'training.datasets.frame_pairs; for GMOS training.datasets.'
                           'gmos_features)')
    data.add_argument('--online', metavar='PRESET[=WEIGHT],...',
                      help='scenes rendered while training')
    option('--workers', type=int, default=1, help='processes that render (--online)')
    option('--render-device', default='cpu', help='cpu or cuda (--online)')
    option('--cache-gb', type=float, default=0.0,
           help='memory for clips to be drawn again (--online)')
    option('--reuse', type=int, default=0,
           help='samples of each clip (--online): 1, or 8 with a cache')
    option('--out', type=Path, help='folder of the run: checkpoint, metrics.jsonl')
    option('--minutes', type=float, default=0.0, help='training time, across resumes')
    option('--steps', type=int, default=0)
    option('--save-minutes', type=float, default=5.0)
    option('--threads', type=int, default=0, help='0 = one per core')
    option('--resume', action='store_true')
    option('--start-from', type=Path, nargs='+', default=[], metavar='RUN',
           help='folders of runs: begin with their networks, whole or as parts')
    return parser


@command('training')
def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    recipe = _RECIPES[args.recipe]
    if args.smoke:
        return smoke(recipe)
    if not (args.minutes or args.steps) or not args.out:
        parser.error('give --out, and --minutes or --steps')
    if not args.resume and (args.out / METADATA).exists():
        parser.error(f'{args.out} holds a run already: add --resume to go on with it, or give '
                     'another --out')
    args.out.mkdir(parents=True, exist_ok=True)
    device = init_distributed()
    rank, _ = rank_and_world_size()
    words = ['python -m training.train', *(sys.argv[1:] if arguments is None else arguments)]
    with open_data(args, replace(recipe, seed=recipe.seed + rank)) as data:
        state = open_state(args, recipe, data, device)
        fit(state, data, recipe, args.out, steps=args.steps, minutes=args.minutes,
            save_minutes=args.save_minutes, command=' '.join(words))
    return 0


if __name__ == '__main__':
    sys.exit(main())
