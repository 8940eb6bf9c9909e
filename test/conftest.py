"""Shared fixtures: where the real recordings are."""

import os
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
def data_dir() -> Path:
    """The folder of real recordings (`MOS_TEST_DATA`, else ../shared/data); skips without one."""
    folder = Path(os.environ.get('MOS_TEST_DATA', ROOT.parent / 'shared' / 'data'))
    if not folder.is_dir():
        pytest.skip(f'no real recordings at {folder}: set MOS_TEST_DATA')
    return folder
