"""Shared fixtures: where the real recordings are."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every CI run; new ones on a developer's machine, where a find can be looked
# at.
# No deadline: on a loaded machine any example may take long.
settings.register_profile('local', deadline=None)
settings.register_profile('ci', derandomize=True, deadline=None)
settings.load_profile('ci' if os.environ.get('CI') else 'local')

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='session')
def tiny_gmos(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes the graphs of a tiny 'gmos' or 'gmos_s' once; gives the path of the head."""
    pytest.importorskip('torch', reason='torch makes the graphs')
    from tiny_gmos import write_tiny_gmos
    return functools.cache(lambda name: write_tiny_gmos(tmp_path_factory.mktemp(name), name))


@pytest.fixture(scope='session')
def data_dir() -> Path:
    """The folder of real recordings (`MOS_TEST_DATA`, else ../shared/data); skips without one."""
    folder = Path(os.environ.get('MOS_TEST_DATA', ROOT.parent / 'shared' / 'data'))
    if not folder.is_dir():
        pytest.skip(f'no real recordings at {folder}: set MOS_TEST_DATA')
    return folder
