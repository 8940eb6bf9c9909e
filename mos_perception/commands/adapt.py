"""`mos adapt`: a model learned on from the user's recordings, in a process of its own: it needs
torch, we do not.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys

from mos_perception.errors import EngineError, MissingLibraryError

_NEEDS = {'training': 'a source checkout (run it there)', 'torch': 'pip install torch',
          'onnxscript': 'pip install -r requirements/test.txt',
          'safetensors': 'pip install -r requirements/test.txt'}
_OPTIONS = ('out', 'model', 'image_topic', 'events_topic', 'steps', 'most_seconds')


def adapt_command(args: argparse.Namespace) -> None:
    """See `training/adapt/`. Raises MissingLibraryError that names what is not installed,
    EngineError where no model came of it.
    """
    missing = [f'{name}: {remedy}' for name, remedy in _NEEDS.items()
               if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingLibraryError(f'mos adapt needs what is not here: {"; ".join(missing)}')
    command = [sys.executable, '-m', 'training.adapt', *map(str, args.bag)]
    for name in _OPTIONS:
        if (value := getattr(args, name)) is not None:
            command += [f'--{name.replace("_", "-")}', str(value)]
    for setting in args.set:
        command += ['--set', setting]
    code = subprocess.run(command, check=False).returncode
    if code in (130, -2):
        raise KeyboardInterrupt
    if code:
        raise EngineError(f'{args.out} was not made: see above')
