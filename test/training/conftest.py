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


@pytest.fixture
def killed_and_resumed(tmp_path, monkeypatch):
    """(folder of a run of four steps that was killed after two and resumed, the weights of one that
    was not): proven to be equal.
    """
    from training.loop import fit
    from training.state import load, start

    def run(recipe, data):
        whole, halved = tmp_path / 'whole', tmp_path / 'halved'
        whole.mkdir()
        halved.mkdir()
        wanted = fit(start(recipe), data, recipe, whole, steps=4).network.state_dict()

        def killed(step, draw=data.draw):
            if step == 2:
                raise KeyboardInterrupt
            return draw(step)
        monkeypatch.setattr(data, 'draw', killed)
        with pytest.raises(KeyboardInterrupt):
            fit(start(recipe), data, recipe, halved, steps=4, save_minutes=0)
        monkeypatch.undo()
        state = load(halved, recipe)
        assert state.step == 2
        found = fit(state, data, recipe, halved, steps=4).network.state_dict()
        assert all(torch.equal(value, wanted[key]) for key, value in found.items())
        return halved, wanted
    return run
