"""Training of GMOS and GMOS-S: features on disk, pictures in which nothing moves, and
runs that learn a batch by heart, resume and share their work.
"""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mos_perception.datatypes import Events
from mos_perception.errors import ConfigError, DatasetError
from training.datasets import gmos_features
from training.datasets.gmos_features import (
    MAPS,
    GmosSet,
    cache,
    quantised,
    random_encoders,
    transition_s,
    views,
)
from training.datasets.still_window import still_window
from training.import_gmos import load_head
from training.loop import train_step
from training.losses.gmos import overlap
from training.nets.gmos_whole import encode, make_head
from training.optimizer import one_cycle
from training.recipes_gmos import GMOS_RECIPES, GmosWeights
from training.scenes.clip import Clip
from training.scenes.shards import save_clips
from training.smoke import smoke
from training.state import load, start
from training.train import main as train

torch.set_num_threads(1)
SIZE, FRAMES, STOP = (72, 128), 15, 9
TWINS = ('gmos_tiny', 'gmos_s_tiny')


def tiny(name):
    """A shipped twin on a grid half as fine; every sample a true window, as it is."""
    recipe = GMOS_RECIPES[name]
    return replace(recipe, net=replace(recipe.net, grid=8, queries=recipe.net.queries and 6),
                   geometry=replace(recipe.geometry, size=(56, 98), trained_grid=4),
                   stills=0.0, flip=0.0)


def clip(seed, movers=1):
    """Squares that move right until frame STOP, another that rests, on noise; 24 Hz."""
    rng = np.random.default_rng(seed)
    ground = cv2.resize(rng.integers(60, 160, (9, 16, 3), np.uint8), SIZE[::-1])
    frames, ids = np.tile(ground, (FRAMES, 1, 1, 1)), np.zeros((FRAMES, *SIZE), np.uint16)
    tops = 4 + 34 * np.arange(movers) + rng.integers(0, 8, movers)
    shift = 3 * np.minimum(np.arange(FRAMES), STOP)
    for n in range(FRAMES):
        frames[n, 40:66, 96:122], ids[n, 40:66, 96:122] = (20, 20, 160), movers + 1
        for mover, top in enumerate(tops):
            where = np.s_[n, top:top + 24, 10 + shift[n]:42 + shift[n]]
            frames[where], ids[where] = (230, 230 - 90 * mover, 40), mover + 1
    moving = np.zeros((FRAMES, movers + 2), bool)
    moving[1:STOP + 1, 1:-1] = True
    moving[0] = moving[1]
    stamps = np.arange(FRAMES) * 41_666_667
    return Clip(frames, stamps, Events.empty(), ids, moving, seed, 'squares')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Features of random windows of clips with one mover and with two."""
    path, recipe = tmp_path_factory.mktemp('features'), tiny('gmos_tiny')
    clips = [(f'clip{n}', clip(n, 1 + n % 2)) for n in range(6)]
    assert cache(clips, 2, recipe, random_encoders(recipe), path, 'random encoders') == 12
    return path


def rows(data, movers):
    """The samples in which so many objects move."""
    return [n for n in range(len(data)) if int(data.batch([n]).labels.max()) == movers]


@pytest.mark.parametrize('name, parameters', [('gmos', 9_911_941), ('gmos_s', 4_743_939)])
def test_recipes_train_the_published_networks(name, parameters):
    with torch.device('meta'):
        network = make_head(GMOS_RECIPES[name].net)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert not GMOS_RECIPES[name].random_encoders


class Draws:
    """Random numbers that are known."""

    def __init__(self, at, *uniform):
        self.at, self.uniform = at, list(uniform)

    def integers(self, end):
        return self.at

    def random(self):
        return self.uniform.pop(0)


@pytest.mark.parametrize('at, seen', [(7, (1, 4, 7, 10, 13)), (1, (0, 0, 1, 4, 7)),
                                      (13, (7, 10, 13, 14, 14))])
def test_windows_are_those_of_the_runtime(at, seen):
    """120 ms at 24 Hz are 3 frames; at the ends the outermost are seen again."""
    recipe, video = tiny('gmos_tiny'), clip(0)
    images, label, certain = views(video, recipe, Draws(at, 1.0, 1.0))
    assert all(np.array_equal(image, video.frames[n]) for image, n in zip(images, seen))
    assert label.shape == (32, 32) and label.max() == (1 if at < STOP + 1 else 0)
    mirrored = views(video, replace(recipe, flip=1.0), Draws(at, 1.0, 0.5))
    assert np.array_equal(mirrored[0][3], images[3][:, ::-1])
    assert np.array_equal(mirrored[1], label[:, ::-1])


def test_certainty_is_low_near_a_stop():
    video = clip(0)
    period = 41_666_667e-9
    # the mover's flags change after frame STOP
    away = transition_s(video, 6)
    assert away[1] == pytest.approx(3 * period) and np.isinf(away[[0, 2]]).all()
    _, _, certain = views(video, tiny('gmos_tiny'), Draws(6, 1.0, 1.0))
    assert certain[0] == pytest.approx(1 - np.exp(-(3 * period / 0.24) ** 2), rel=1e-5)
    assert (certain[1:] == 1).all()


def test_features_keep_what_the_encoders_gave(folder):
    recipe, video = tiny('gmos_tiny'), clip(3, 2)
    values = torch.randn(5, 6, 7) * torch.tensor([1e-3, 1, 30, 0, 5])[:, None, None]
    steps, scale = quantised(values)
    assert steps.dtype == torch.int8
    error = (steps * scale[:, None, None] - values).abs().flatten(1).amax(1)
    assert (error <= values.abs().flatten(1).amax(1) / 254 + 1e-9).all()
    assert steps.abs().flatten(1).amax(1).tolist() == [127, 127, 127, 0, 127]
    # a window by the encoders themselves
    data = GmosSet(folder, recipe)
    row = [path.name for path in sorted(folder.glob('*.safetensors'))].index('clip3-1.safetensors')
    images, label, certain = views(video, recipe, np.random.default_rng([1, 3]))
    seen = {}

    def watched(geometry, appearance, window, square):
        seen.update(zip(MAPS, encode(geometry, appearance, window, square)))
        return tuple(seen.values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gmos_features, 'encode', watched)
        gmos_features.sample(video, recipe, random_encoders(recipe), np.random.default_rng([1, 3]))
    batch = data.batch([row])
    for name, got in zip(MAPS, batch.features()):
        assert (got - seen[name]).abs().max() <= seen[name].abs().max() / 254 * 1.001, name
    assert np.array_equal(batch.labels[0], label) and np.array_equal(batch.certain[0], certain)
    size = sum(path.stat().st_size for path in folder.glob('*.safetensors')) / len(data)
    assert size < 0.6 * sum(2 * value.numel() for value in seen.values())


def test_random_encoders_see_motion():
    """The middle frame's tokens depend on the frames around it."""
    recipe, video = tiny('gmos_tiny'), clip(0)
    still = replace(video, frames=np.tile(video.frames[6], (FRAMES, 1, 1, 1)))
    found = [gmos_features.sample(one, recipe, random_encoders(recipe), Draws(6, 1.0, 1.0))
             for one in (video, still)]
    steps = [one['geometry'].float() * one['geometry.scale'][:, None, None] for one in found]
    assert (steps[0] - steps[1]).abs().max() > 0.05 * steps[1].abs().max()
    assert torch.equal(found[0]['appearance'], found[1]['appearance'])


@pytest.mark.parametrize('seed', range(8))
def test_a_still_picture_moves_as_a_turning_camera_sees_it(seed):
    """Views tell where in the picture they look: each must be K R K'^-1, and inside."""
    height, width = 144, 256
    y, x = np.mgrid[:height, :width]
    picture = np.stack([x, y, np.zeros_like(x)], 2).astype(np.float32)
    found = still_window(picture, np.random.default_rng(seed))
    assert len(found) == 5
    focal = width / 2 / np.tan(np.radians(25))
    inner, outer = (np.array([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1]])
                    for f in (focal, 1.2 * focal))
    turns = []
    for view in found:
        # columns beyond the border would all show its value
        assert np.diff(view[..., 0], axis=1).min() > 0.3
        assert np.diff(view[..., 1], axis=0).min() > 0.3
        places = np.stack([x, y], 2).reshape(-1, 2).astype(float)
        seen = view[..., :2].reshape(-1, 2).astype(float)
        turn = np.linalg.inv(inner) @ cv2.findHomography(places, seen)[0] @ outer
        turn /= np.cbrt(np.linalg.det(turn))
        assert np.abs(turn @ turn.T - np.eye(3)).max() < 0.01
        turns.append(np.degrees(cv2.Rodrigues(turn)[0][:, 0]))
    assert np.abs(turns[2]).max() < 0.1 and np.abs(turns[0]).max() > 0.3
    assert np.abs(turns).max(0)[2] < 2.1


def test_nothing_moves_in_a_still_sample():
    images, label, certain = views(clip(0), replace(tiny('gmos_tiny'), stills=1.0),
                                   np.random.default_rng(0))
    assert not label.any() and (certain == 1).all()
    assert all(np.abs(image.astype(int) - images[2]).mean() > 1 for image in images[:2])


def test_confidence_is_lower_where_labels_contradict_each_other(folder):
    """The same features twice, once with a label and once without: nothing can learn both."""
    recipe = tiny('gmos_s_tiny')
    data = GmosSet(folder, recipe)
    one = rows(data, 1)
    batch = data.batch([one[0], one[0], one[1], one[2]])
    batch.labels[1] = 0
    state = start(recipe)
    for step in range(300):
        train_step(state, batch, recipe, one_cycle(step / 300, 3e-3, 0.1), step / 300)
    with torch.no_grad():
        confidence = state.network.eval()(*batch.features())['foreground_quality'][:, 1]
    assert confidence[2:].min() > confidence[:2].max() + 0.5


@pytest.mark.parametrize('name', TWINS)
def test_a_batch_can_be_learnt_by_heart(folder, name):
    recipe = tiny(name)
    data = GmosSet(folder, recipe)
    batch = data.batch([*rows(data, 1)[:1], *rows(data, 2)[:2], *rows(data, 0)[:1]])
    state, steps = start(recipe), 250
    for step in range(steps):
        train_step(state, batch, recipe, one_cycle(step / steps, 3e-3, 0.1), step / steps)
    with torch.no_grad():
        outputs = state.network.eval()(*batch.features())
    if name == 'gmos_s_tiny':
        found = overlap(outputs['foreground_logits'][:, 0], (batch.labels > 0).float())
        assert found.min() > 0.8
        assert (outputs['foreground_quality'][:, 0] - found).abs().max() < 0.15
        return
    for logits, motion, quality, label in zip(
            *(outputs[key] for key in ('mask_logits', 'motion_logits', 'quality')), batch.labels):
        moves = motion.sigmoid() > 0.5
        assert int(moves.sum()) == int(label.max())
        for n in range(1, int(label.max()) + 1):
            found = overlap(logits[moves], (label == n).float().expand_as(logits[moves]))
            assert found.max() > 0.8
            assert abs(float(quality[moves, 0][found.argmax()] - found.max())) < 0.15


@pytest.mark.parametrize('name', TWINS)
def test_a_killed_run_resumes_bit_for_bit(folder, tmp_path, killed_and_resumed, name):
    recipe = replace(tiny(name), batch=2)
    data = GmosSet(folder, recipe)
    halved, wanted = killed_and_resumed(recipe, data)
    with pytest.raises(ConfigError, match='another recipe'):
        load(halved, replace(recipe, weights=GmosWeights(confidence=0.0)))
    # what `mos import gmos --checkpoint RUN` takes
    head = load_head(halved, recipe.net)
    assert all(torch.equal(value, wanted[key]) for key, value in head.state_dict().items())
    assert json.loads((halved / 'checkpoint.json').read_text())['data'] == data.about
    with pytest.raises(ConfigError, match='give a checkpoint or the folder of a run'):
        load_head(tmp_path, recipe.net)


def test_smoke_runs_every_stage(capsys):
    assert smoke(tiny('gmos_tiny')) == 0
    assert 'encoded 2 windows, trained, resumed to step 2' in capsys.readouterr().out


def test_two_processes_take_the_same_steps(tmp_path):
    """The whole of the command line: render, encode, torchrun."""
    (tmp_path / 'clips').mkdir()
    save_clips(tmp_path / 'clips' / 'squares.npz', [clip(n, 2) for n in range(3)])
    arguments = ['--recipe', 'gmos_s_tiny', '--clips', str(tmp_path / 'clips'), '--out',
                 str(tmp_path / 'features')]
    assert gmos_features.main(arguments) == 0
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / 'features').glob('*.s*')}
    assert len(stamps) == 3 and gmos_features.main([*arguments, '--passes', '2']) == 0
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert len(GmosSet(tmp_path / 'features', GMOS_RECIPES['gmos_tiny'])) == 6
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    command = [sys.executable, '-m', 'training.train', '--recipe', 'gmos_tiny', '--data',
               str(tmp_path / 'features'), '--out', str(tmp_path / 'run'), '--steps', '2',
               '--threads', '1']
    here = Path(__file__).resolve().parents[2]
    runs = []
    for rank in range(2):
        world = {'RANK': str(rank), 'WORLD_SIZE': '2', 'LOCAL_RANK': str(rank),
                 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port)}
        runs.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                     text=True, cwd=here, env={**os.environ, **world}))
    for run in runs:
        errors = run.communicate(timeout=300)[1]
        assert run.returncode == 0, errors[-2000:]
    assert load(tmp_path / 'run', GMOS_RECIPES['gmos_tiny']).step == 2


def test_what_cannot_be_used_is_refused(folder, tmp_path, capsys):
    recipe = tiny('gmos_tiny')
    with pytest.raises(DatasetError, match='holds no features'):
        GmosSet(tmp_path, recipe)
    with pytest.raises(ConfigError, match='make them anew'):
        GmosSet(folder, GMOS_RECIPES['gmos_tiny'])
    with pytest.raises(ConfigError, match='give another --out'):
        cache([], 1, recipe, random_encoders(recipe), folder, 'other encoders')
    square = replace(clip(0), frames=np.zeros((FRAMES, 72, 72, 3), np.uint8))
    with pytest.raises(ConfigError, match=r'squares is \(72, 72\), gmos_tiny sees \(56, 98\)'):
        cache([('clip', square)], 1, recipe, random_encoders(recipe), tmp_path / 'new', 'random')
    assert train(['--recipe', 'gmos', '--online', 'easy', '--steps', '1', '--out',
                  str(tmp_path / 'run')]) == 1
    assert 'learns from cached features: give --data' in capsys.readouterr().err
    assert gmos_features.main(['--clips', str(tmp_path), '--out', str(tmp_path / 'out')]) == 1
    assert 'with --pi3 and --sam2' in capsys.readouterr().err
    assert gmos_features.main(['--recipe', 'gmos_tiny', '--clips', str(tmp_path), '--out',
                               str(tmp_path / 'out')]) == 1
    assert 'training.scenes.cache' in capsys.readouterr().err
