"""The MoSIS thesis' table 2: train its rows with equal budgets and several seeds, one table.

`python -m training.compare_mosis --data runs/mosis2d/train --val runs/mosis2d/val --test
runs/mosis2d/test --out runs/mosis --minutes 60 --seeds 3` goes on where it was stopped and writes
table.md and sheet.jpg. `--recipes flow_nano` with a set of one moving square is its experiment 9.2.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from mos_perception.reports.visualize import write_image
from training.cold_start import labelled
from training.command import command
from training.datasets.frame_pairs import PairSet
from training.evaluate_mosis import as_markdown, evaluate_runs, sheet
from training.loop import fit
from training.recipes_mosis import MOSIS_RECIPES
from training.state import METADATA, load, start_from

ROWS = ('mosis_supervised_nano', 'mosis_nano', 'mosis_nano_inverted', 'mosis_nano_thesis',
        'amd_nano')


def train_rows(args: argparse.Namespace) -> list[Path]:
    """Train what is asked for as far as it is not yet; the folders of the runs."""
    folders = []
    # seed by seed: a comparison that is stopped early still has all rows
    for number in range(args.seeds):
        for name in args.recipes:
            recipe = MOSIS_RECIPES[name]
            recipe = replace(recipe, seed=recipe.seed + number,
                             learning_rate=args.learning_rate or recipe.learning_rate)
            folder = args.out / f'{name}_{number}'
            folder.mkdir(parents=True, exist_ok=True)
            data = PairSet(args.data, recipe)
            if args.labels is not None:
                data = labelled(data, args.labels)
            resume = (folder / METADATA).exists()
            state = (load(folder, recipe, data.about) if resume
                     else start_from(args.start_from, recipe))
            print(f'{name}, seed {number + 1} of {args.seeds}, from step {state.step}', flush=True)
            fit(state, data, recipe, folder, steps=args.steps, minutes=args.minutes,
                save_minutes=2, command='training.compare_mosis')
            folders.append(folder)
    return folders


@command('compare_mosis')
def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option = parser.add_argument
    option('--recipes', nargs='+', choices=sorted(MOSIS_RECIPES), default=ROWS)
    for name, use in (('data', 'to learn from'), ('val', 'to choose AMD\'s channel on'),
                      ('test', 'to score')):
        option(f'--{name}', type=Path, required=True, help=f'set of frame pairs {use}')
    option('--labels', type=Path, help='cache of training.label_rounds or cold_start of that data: '
           'its labels instead of the truth')
    option('--out', type=Path, required=True)
    option('--minutes', type=float, default=0.0, help='training time of each run')
    option('--steps', type=int, default=0, help='and, or instead, steps')
    option('--seeds', type=int, default=3)
    option('--learning-rate', type=float, default=0.0,
           help='highest of the cycle of all rows; 0 = as in each recipe')
    option('--start-from', type=Path, nargs='+', default=[], metavar='RUN',
           help='folders of runs that all begin with: whole, or a detector and a flow as parts')
    option('--threads', type=int, default=1)
    args = parser.parse_args(arguments)
    if not (args.minutes or args.steps):
        parser.error('give --minutes or --steps')
    torch.set_num_threads(args.threads)
    folders = train_rows(args)
    text = as_markdown(evaluate_runs(folders, args.test, args.val))
    pictures = sheet(folders, args.test, args.val)
    (args.out / 'table.md').write_text(text)
    if pictures.size:
        write_image(args.out / 'sheet.jpg', pictures)
    print(text)
    return 0


if __name__ == '__main__':
    sys.exit(main())
