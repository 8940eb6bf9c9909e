"""Objects by motion alone: the first teacher."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mos_perception.errors import ConfigError, DatasetError
from training.cold_start import LEAST_PX, Finder, cache, hypotheses, label, main, parts, score
from training.datasets.frame_pairs import PairSet, pack_pairs
from training.evaluate_mosis import COLUMNS, evaluate_runs, load_network
from training.nets.gmos_nano import MOVABLE, GmosNanoConfig
from training.scenes.moving_shapes import THESIS
from training.train_video import Run
from training.train_video import main as train

SIZE = (96, 96)


def frames(objects, camera=(0, 0), seed=0):
    """Three frames: squares (x, y, side, dx, dy) before a wall that the camera shifts."""
    rng = np.random.default_rng(seed)
    wall = cv2.GaussianBlur(rng.integers(0, 255, (200, 200, 3), np.uint8), (0, 0), 1.5)
    skins = [cv2.GaussianBlur(rng.integers(0, 255, (item[2], item[2], 3), np.uint8), (0, 0), 1)
             for item in objects]
    found = []
    for t in (-1, 0, 1):
        top, left = 50 + t * camera[1], 50 + t * camera[0]
        image = wall[top:top + SIZE[0], left:left + SIZE[1]].copy()
        for (x, y, side, dx, dy), skin in zip(objects, skins):
            image[y + t * dy:y + t * dy + side, x + t * dx:x + t * dx + side] = skin
        found.append(image)
    return found


def square(x, y, side, *_):
    mask = np.zeros(SIZE, bool)
    mask[y:y + side, x:x + side] = True
    return mask


@pytest.mark.parametrize('camera', [(0, 0), (2, -1)])
def test_a_moving_square_is_found_to_its_edges(camera):
    given_square = (30, 40, 24, 3, 0)
    found = Finder(SIZE).find(*frames([given_square], camera))
    truth = square(*given_square)
    assert len(found) == 1 and found[0].gain > 5
    assert (found[0].mask & truth).sum() > 0.85 * (found[0].mask | truth).sum()


def test_two_that_touch_and_move_apart_are_two():
    items = [(20, 30, 22, -2, 0), (42, 30, 22, 2, 0)]
    found = Finder(SIZE).find(*frames(items))
    assert len(found) == 2 and not (found[0].mask & found[1].mask).any()
    for item in items:
        truth = square(*item)
        assert max((part.mask & truth).sum() / (part.mask | truth).sum() for part in found) > 0.7


@pytest.mark.parametrize('camera', [(0, 0), (2, 1)])
def test_a_static_scene_has_nothing(camera):
    assert Finder(SIZE).find(*frames([], camera)) == []


def test_a_square_that_goes_with_the_wall_is_nothing():
    assert Finder(SIZE).find(*frames([(30, 40, 24, -2, 0)], camera=(2, 0))) == []


def test_hypotheses_by_hand():
    """One part, two velocities; noise of few pixels is none."""
    before, after = np.zeros((40, 60, 2), np.float32), np.zeros((40, 60, 2), np.float32)
    after[10:30, 10:30], after[10:30, 30:44] = (3, 0), (0, -2)
    after[2:4, 2:4] = (5, 5)
    before[:] = -after
    found = hypotheses(before, after)
    velocities = sorted(tuple(np.round(velocity, 3).tolist()) for velocity, _ in found)
    assert velocities == [(0, -2), (3, 0)]
    assert sorted(int(seen.sum()) for _, seen in found) == [280, 400]


@given(arrays(np.float32, (3, 16, 20), elements=st.floats(0, 50, width=32)))
def test_parts_are_disjoint_large_and_gain(errors):
    found = parts(errors)
    assert sum((part.mask.astype(int) for part in found), np.zeros((16, 20), int)).max() <= 1
    assert all(part.mask.sum() > LEAST_PX and part.gain > 1 and 0.5 < part.score < 1
               for part in found)


def test_labels_are_numbered_by_size():
    small, large = square(0, 0, 4), square(10, 10, 8)
    found = label([small, large], SIZE)
    assert found[0, 0] == 2 and found[12, 12] == 1 and found.sum() == 64 + 2 * 16


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pairs')
    pack_pairs(THESIS.__class__(**{**THESIS.__dict__, 'frames': 4}), 6, folder)
    return folder


def test_its_labels_are_worth_something_and_train_a_network(pairs, tmp_path, capsys):
    values = score(PairSet(pairs))
    assert values[1] > 0.25  # AP50
    assert main(['--data', str(pairs), '--out', str(tmp_path / 'cold'), '--score']) == 0
    assert 'AP50' in capsys.readouterr().out
    images, labels = (np.load(tmp_path / 'cold' / f'cold0000.{part}.npy')
                      for part in ('image', 'label'))
    assert images.shape == (12, 3, 256, 256) and labels.shape == (12, 256, 256) and labels.max()
    run = tmp_path / 'cold_0'
    train(['--data', str(tmp_path / 'cold'), '--run', str(run), '--minutes', '0.001', '--batch',
           '2', '--movable'])
    results = evaluate_runs([run], pairs, None)
    assert list(results) == ['cold'] and set(results['cold'][0]) == set(COLUMNS)


def test_the_truth_can_be_cached_instead_and_shards_stay(pairs, tmp_path):
    cache(PairSet(pairs), tmp_path, truth=True)
    path = tmp_path / 'cold0000.label.npy'
    labels, written = np.load(path), path.stat().st_mtime_ns
    ids = np.load(pairs / 'ids.npy')
    np.testing.assert_array_equal(labels[0, ::2, ::2] > 0, ids[0, 1] > 0)
    cache(PairSet(pairs), tmp_path, truth=True)
    assert path.stat().st_mtime_ns == written


def test_what_is_no_set_is_refused(tmp_path, capsys):
    with pytest.raises(DatasetError, match='no set of frame pairs'):
        PairSet(tmp_path)
    (tmp_path / 'set.json').write_text('{"about": "another"}')
    assert main(['--data', str(tmp_path), '--score']) == 1
    assert 'training.datasets.frame_pairs' in capsys.readouterr().err


def test_a_run_on_evidence_is_no_row(tmp_path):
    assert MOVABLE.gaps == 0
    config = GmosNanoConfig(stem=4, widths=(4, 6, 8, 8, 8), appearance=(4, 4, 4), width=8)
    torch.manual_seed(0)
    Run(tmp_path, config, 1e-3, None).save()
    with pytest.raises(ConfigError, match='on motion evidence'):
        load_network(tmp_path)
