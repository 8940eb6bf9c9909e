"""Checkpoints: runs go on bit for bit, begin with another's network, refuse what is not theirs."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from squares import FULL, NET, RECIPE, RELEASED, square_clip

from mos_perception.errors import ConfigError
from training.datasets.packed import pack
from training.loop import fit
from training.recipes import RECIPES
from training.state import load, save, start, start_from
from training.train import main


def steps_saved(folder: Path) -> int:
    """The step of the checkpoint in a folder, 0 if there is none yet."""
    path = folder / 'checkpoint.json'
    return json.loads(path.read_text())['step'] if path.exists() else 0


def test_a_run_is_not_overwritten(packed, tmp_path, capsys):
    fit(start(RECIPE), packed, RECIPE, tmp_path, steps=1)
    before = (tmp_path / 'checkpoint.json').read_text()
    with pytest.raises(SystemExit):
        main(['--recipe', 'dimos_nano', '--online', 'easy', '--out', str(tmp_path), '--steps', '1'])
    assert '--resume' in capsys.readouterr().err
    assert (tmp_path / 'checkpoint.json').read_text() == before


class Killed(Exception):
    """Stands for the process being killed."""


@pytest.mark.parametrize('recipe', [RECIPE, FULL, RELEASED], ids=lambda recipe: recipe.name)
def test_a_killed_run_resumes_bit_for_bit(packed, tmp_path, monkeypatch, recipe):
    monkeypatch.setattr(packed, 'recipe', recipe)
    whole, halved = tmp_path / 'whole', tmp_path / 'halved'
    whole.mkdir()
    halved.mkdir()
    wanted = fit(start(recipe), packed, recipe, whole, steps=6).network.state_dict()
    real = packed.batch

    def batch(samples, rng, augment):
        if steps_saved(halved) == 3:
            raise Killed
        return real(samples, rng, augment)
    monkeypatch.setattr(packed, 'batch', batch)
    with pytest.raises(Killed):
        fit(start(recipe), packed, recipe, halved, steps=6, save_minutes=0)
    monkeypatch.setattr(packed, 'batch', real)
    state = load(halved, recipe)
    assert state.step == 3
    resumed = fit(state, packed, recipe, halved, steps=6).network.state_dict()
    for name, value in resumed.items():
        assert torch.equal(value, wanted[name]), name


def test_a_run_starts_from_the_network_of_another(packed, tmp_path):
    other = fit(start(RECIPE), packed, RECIPE, tmp_path, steps=1)
    finer = replace(RECIPE, name='finer', net=replace(NET, first_stride=1))
    begun = start_from([tmp_path], finer)
    weights = other.network.state_dict()
    assert begun.step == 0 and not begun.optimizer.state
    assert begun.origin == 'the network of tiny after 1 steps on squares ()'
    save(begun, finer, tmp_path, {'data': 'more', 'command': 'x'})
    assert load(tmp_path, finer).origin == begun.origin
    assert start_from([tmp_path], finer).origin.endswith(f'(x) which began with {begun.origin}')
    for name, value in begun.network.state_dict().items():
        assert torch.equal(value, weights[name]), name
    with pytest.raises(ConfigError, match='not shaped as that of wider'):
        start_from([tmp_path], replace(RECIPE, name='wider', net=replace(NET, stem=12)))
    with pytest.raises(ConfigError, match='no checkpoint'):
        start_from([tmp_path / 'none'], RECIPE)


def test_a_checkpoint_of_another_recipe_is_refused(packed, tmp_path):
    fit(start(RECIPE), packed, RECIPE, tmp_path, steps=1)
    with pytest.raises(ConfigError, match='another recipe'):
        load(tmp_path, replace(RECIPE, learning_rate=1.0))
    assert [p.name for p in tmp_path.glob('step_*')] == ['step_0000001.safetensors']


def test_a_checkpoint_from_before_a_field_existed_goes_on(packed, tmp_path):
    state = fit(start(RECIPE), packed, RECIPE, tmp_path, steps=1)
    path = tmp_path / 'checkpoint.json'
    metadata = json.loads(path.read_text())
    recipe = metadata['recipe']
    del recipe['alignment'], recipe['frames'], recipe['net']['as_released']
    del recipe['weights']['census']
    path.write_text(json.dumps(metadata))
    assert load(tmp_path, RECIPE).step == state.step == 1
    recipe['a_field_that_is_gone'] = 1
    path.write_text(json.dumps(metadata))
    for wanted in (RECIPE, FULL):
        with pytest.raises(ConfigError, match='another recipe'):
            load(tmp_path, wanted)


def test_parameters_keep_their_order():
    """Adam's moments are stored by place: runs from before this test depend on this order."""
    network = start(RECIPES['dimos_nano']).network
    parts = [name.split('.')[0] for name, _ in network.named_parameters()]
    assert list(dict.fromkeys(parts)) == [
        'image_appearance', 'image_motion', 'event_appearance', 'event_motion', 'event_mask',
        'fuse_appearance', 'fuse_motion', 'interactions', 'pixel_decoder', 'memory',
        'query_decoder', 'heads', 'flow', 'dense']


def test_resume_of_a_run_stopped_before_its_first_checkpoint_starts_it(tmp_path, monkeypatch,
                                                                       capsys):
    monkeypatch.setitem(RECIPES, 'tiny', RECIPE)
    pack([square_clip(0)], 1, tmp_path / 'set', RECIPE)
    arguments = ['--recipe', 'tiny', '--data', str(tmp_path / 'set'), '--steps', '1', '--resume',
                 '--out', str(tmp_path / 'run'), '--threads', '1']
    assert main(arguments) == 0
    assert 'starting anew' in capsys.readouterr().err
    assert load(tmp_path / 'run', RECIPE).step == 1


SCRIPT = """
import sys, torch
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from squares import RECIPE
from training.datasets.packed import PackedSet
from training.state import load, start
from training.loop import fit
folder = Path(sys.argv[1])
torch.set_num_threads(1)
state = load(folder, RECIPE) if (folder / 'checkpoint.json').exists() else start(RECIPE)
print('from', state.step, flush=True)
with PackedSet(folder / 'set', RECIPE) as data:
    fit(state, data, RECIPE, folder, steps=10**6, save_minutes=0.002)
"""


def test_killing_a_run_at_any_moment_loses_one_interval_at_most(tmp_path):
    """kill -9 three times, wherever it is: it goes on from the last checkpoint that was there."""
    pack((square_clip(seed) for seed in range(2)), 2, tmp_path / 'set', RECIPE, 'squares')
    (tmp_path / 'run.py').write_text(SCRIPT)
    here, seen = Path(__file__).resolve(), 0
    command = [sys.executable, str(tmp_path / 'run.py'), str(tmp_path), str(here.parent),
               str(here.parents[2])]
    for turn in range(3):
        run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = run.stdout.readline()
        assert line, f'ended with {run.wait()}'
        assert int(line.split()[1]) >= seen
        while run.poll() is None and steps_saved(tmp_path) <= seen:
            time.sleep(0.01)
        time.sleep(0.013 * turn)
        seen = steps_saved(tmp_path)
        run.kill()
        run.wait()
        run.stdout.close()
    assert load(tmp_path, RECIPE).step >= seen > 0
