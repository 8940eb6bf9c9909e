"""`mos adapt`: a model learned on from the user's recordings."""

from __future__ import annotations

import argparse

from mos_perception.commands.training_process import options_of, run_training

_OPTIONS = ('out', 'model', 'movable_model', 'image_topic', 'events_topic', 'steps', 'most_seconds')


def adapt_command(args: argparse.Namespace) -> None:
    """See `training/adapt/`. Raises as `run_training`: EngineError where no model came of it."""
    arguments = [*map(str, args.bag), *options_of(args, _OPTIONS)]
    for setting in args.set:
        arguments += ['--set', setting]
    run_training('mos adapt', 'training.adapt', arguments, f'{args.out} was not made')
