"""Data sets on disk to and from one value, `sequence.Sequence`. No torch: it runs on a robot.

The module of each format offers
    find(path) -> list[str]                  ids of the sequences under `path`; [] where this is
                                             another format
    read(path, name='') -> Sequence          one of them, the first unless named; DatasetError
    write(sequence, path, **options) -> Path adds one to the data set at `path`; DatasetError
    inspect(path, report) -> None            adds all that is wrong at `path` to a
                                             `findings.Report`, file by file, so that one fault
                                             does not hide the next
Nothing is imported until it is asked for.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from mos_perception.errors import DatasetError

_MODULES = {'bag': 'rosbag', 'mousesis': 'mousesis', 'sevd': 'sevd', 'evimo': 'evimo',
            'evimo2': 'evimo2', 'dimos': 'dimos_samples', 'ytvis': 'ytvis', 'davis': 'davis',
            'gmos2k': 'gmos2k', 'moca': 'moca', 'fbms': 'fbms', 'segtrack': 'segtrack'}
FORMATS = tuple(_MODULES)  # the order of guessing


def module(name: str) -> ModuleType:
    """The module of a format. Raises DatasetError for an unknown name."""
    if name not in _MODULES:
        raise DatasetError(f'data set format {name!r} is unknown: use one of {", ".join(FORMATS)}')
    return importlib.import_module(f'mos_perception.formats.{_MODULES[name]}')


def detect(path: str | Path) -> str:
    """The format of what lies at `path`. Raises DatasetError where none fits."""
    for name in FORMATS:
        if module(name).find(path):
            return name
    raise DatasetError(
        f'{path} holds none of the known data set layouts ({", ".join(FORMATS)}): '
        'name one with --from, or see docs/formats.md for what each expects')
