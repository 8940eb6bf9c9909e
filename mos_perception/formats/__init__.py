"""Data sets on disk to and from one value, `sequence.Sequence`. NumPy, OpenCV and h5py only: it runs on a robot.

Each module below offers
    find(path) -> list[str]                  names of the sequences under `path`, [] where this is another format
    read(path, name='') -> Sequence          one of them; raises DatasetError
    write(sequence, path, **options) -> Path adds one to the data set at `path`; raises DatasetError
Nothing is imported until it is asked for.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

FORMATS = ('bag', 'mousesis', 'sevd', 'evimo', 'evimo2', 'dimos', 'ytvis', 'davis')  # the order of guessing


def module(name: str) -> ModuleType:
    """The module of a format. Raises DatasetError for an unknown name."""
    from mos_perception.errors import DatasetError
    if name not in FORMATS:
        raise DatasetError(f'data set format {name!r} is unknown: use one of {", ".join(FORMATS)}')
    return importlib.import_module(f'mos_perception.formats.{"rosbag" if name == "bag" else name}')


def detect(path: str | Path) -> str:
    """The format of what lies at `path`. Raises DatasetError where none fits."""
    from mos_perception.errors import DatasetError
    for name in FORMATS:
        if module(name).find(path):
            return name
    raise DatasetError(f'{path} holds none of the known data set layouts ({", ".join(FORMATS)}): '
                       'name one with --from, or see docs/formats.md for what each expects')
