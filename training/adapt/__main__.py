"""`python -m training.adapt BAG... --out FILE`: what `mos adapt` runs."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import torch
from rich.console import Console
from rich.progress import Progress

from mos_perception.commands.run import config_from
from mos_perception.errors import MosError
from training.adapt.adapt import Outcome, Settings, adapt


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    default = Settings()
    parser = argparse.ArgumentParser(
        prog='mos adapt', description='A model learned on from recordings without labels.')
    parser.add_argument('bag', type=Path, nargs='+')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--model')
    parser.add_argument('--movable-model')
    parser.add_argument('--image-topic')
    parser.add_argument('--events-topic')
    parser.add_argument('--set', action='append', default=[])
    parser.add_argument('--steps', type=int, default=default.steps)
    parser.add_argument('--most-seconds', type=float, default=default.most_s)
    given = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    try:
        with Progress(console=Console(stderr=True)) as progress:
            config = config_from(given)
            if given.movable_model:
                config = replace(config, movable_model=given.movable_model)
            done = adapt(given.bag, given.out, config,
                         Settings(given.steps, most_s=given.most_seconds), given.image_topic,
                         given.events_topic, progress)
        _tell(done)
    except MosError as error:
        print(f'mos adapt: {error}', file=sys.stderr)
        return 1
    except OSError as error:
        print(f'mos adapt: {error}: no model was written; once it is mended, the same command goes '
              'on where it stopped', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('mos adapt: stopped; the same command goes on', file=sys.stderr)
        return 130
    return 0


def _tell(done: Outcome) -> None:
    print(f'on {done.before.frames} frames held out, before -> after:')
    for name in ('agreement', 'consistency', 'false_alarms'):
        old, new = (getattr(one, name) for one in (done.before, done.after))
        print(f'  {name} {"-" if old is None else f"{old:.3f}"} -> '
              f'{"-" if new is None else f"{new:.3f}"}')
    print(f'{done.seconds / 60:.1f} minutes')
    for path in done.files:
        print(f'wrote {path}')


if __name__ == '__main__':
    sys.exit(main())
