"""A command of `training/`, in a process of its own: it needs torch, we do not."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mos_perception.errors import EngineError, MissingLibraryError

SOURCE = Path(__file__).resolve().parents[2]  # training/ lies there in a source checkout
_NEEDS = {'torch': 'pip install torch',
          'onnxscript': 'pip install -r requirements/test.txt',
          'safetensors': 'pip install -r requirements/test.txt'}
_INTERRUPTED = (130, -2)  # exit codes after Ctrl-C


def options_of(args: argparse.Namespace, names: Sequence[str]) -> list[str]:
    """The arguments `names` as a command line has them; None: left to the command's default."""
    found = []
    for name in names:
        if (given := getattr(args, name)) is not None:
            values = given if isinstance(given, (list, tuple)) else [given]
            found += [f'--{name.replace("_", "-")}', *map(str, values)]
    return found


def run_training(what: str, module: str, arguments: Sequence[str], failure: str,
                 needs: dict[str, str] | None = None) -> None:
    """`python -m MODULE ARGUMENTS` of the checkout that this package is of, from any folder; it
    speaks for itself. `needs`: further libraries and how to get them.

    Raises MissingLibraryError that names what is not installed, EngineError (`failure`) where the
    process failed, KeyboardInterrupt where it was stopped.
    """
    missing = [f'{name}: {remedy}' for name, remedy in {**_NEEDS, **(needs or {})}.items()
               if importlib.util.find_spec(name) is None]
    if not (SOURCE / 'training').is_dir():
        missing.insert(0, 'training: install from a source checkout, pip install --editable .')
    if missing:
        raise MissingLibraryError(f'{what} needs what is not here: {"; ".join(missing)}')
    paths = [str(SOURCE), *filter(None, [os.environ.get('PYTHONPATH')])]
    code = subprocess.run([sys.executable, '-m', module, *arguments], check=False,
                          env=os.environ | {'PYTHONPATH': os.pathsep.join(paths)}).returncode
    if code in _INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        raise EngineError(f'{failure}: see above')
