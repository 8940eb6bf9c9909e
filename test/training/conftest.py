"""A small packed set for the tests of training."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from squares import RECIPE, square_clip  # noqa: E402


@pytest.fixture(scope='module')
def packed(tmp_path_factory):
    """Four clips of squares, open for reading, with `squares.RECIPE`."""
    from training.datasets.packed import PackedSet, pack
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp('set')
    assert pack((square_clip(seed) for seed in range(4)), 4, folder, RECIPE, 'squares') == 4
    return PackedSet(folder, RECIPE)
