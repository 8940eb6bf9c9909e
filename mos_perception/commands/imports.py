"""`mos import`: published weights as models, in a process of their own: it needs torch, we do not.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys

from mos_perception.errors import EngineError, MissingLibraryError

_NEEDS = {'training': 'a source checkout (run it there)', 'torch': 'pip install torch',
          'onnxscript': 'pip install -r requirements/test.txt',
          'transformers': 'pip install -r requirements/gmos.txt'}


_OPTIONS = {'gmos': ('checkpoint', 'pi3', 'sam2', 'size', 'out', 'image_size'),
            'sam2': ('checkpoint', 'size', 'out'), 'dimos': ('checkpoint', 'data', 'out'),
            'dvis': ('checkpoint', 'queries', 'frames', 'out')}


def import_command(args: argparse.Namespace) -> None:
    """`mos import gmos | sam2 | dimos | dvis`: see `training/import_*.py`.

    Raises MissingLibraryError that names what is not installed, EngineError where it failed.
    """
    missing = [f'{name}: {remedy}' for name, remedy in _NEEDS.items()
               if importlib.util.find_spec(name) is None
               and (name != 'transformers' or args.what in ('gmos', 'sam2'))]
    if missing:
        raise MissingLibraryError(f'mos import needs what is not here: {"; ".join(missing)}')
    command = [sys.executable, '-m', f'training.import_{args.what}']
    for name in _OPTIONS[args.what]:
        given = getattr(args, name)
        values = given if isinstance(given, (list, tuple)) else [given]
        command += [f'--{name.replace("_", "-")}', *map(str, values)]
    if subprocess.run(command, check=False).returncode:
        raise EngineError(f'{args.checkpoint} was not imported: see above')
