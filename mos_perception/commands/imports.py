"""`mos import`: published weights as models."""

from __future__ import annotations

import argparse

from mos_perception.commands.training_process import options_of, run_training

_OPTIONS = {'gmos': ('checkpoint', 'pi3', 'sam2', 'size', 'out', 'image_size'),
            'sam2': ('checkpoint', 'size', 'out'), 'dimos': ('checkpoint', 'data', 'out'),
            'dvis': ('checkpoint', 'queries', 'frames', 'out')}
_TRANSFORMERS = {'transformers': 'pip install -r requirements/gmos.txt'}


def import_command(args: argparse.Namespace) -> None:
    """`mos import gmos | sam2 | dimos | dvis`: see `training/import_*.py`.

    Raises as `run_training`.
    """
    run_training('mos import', f'training.import_{args.what}',
                 options_of(args, _OPTIONS[args.what]), f'{args.checkpoint} was not imported',
                 _TRANSFORMERS if args.what in ('gmos', 'sam2') else None)
