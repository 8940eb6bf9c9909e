"""Objects by motion alone: the first teacher."""

import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mos_perception.errors import ConfigError, DatasetError
from mos_perception.motion.camera_motion import camera_flow
from mos_perception.motion.flow import pixel_grid
from training.camera_alignment import align, cameras
from training.cold_start import by_truth, cache, label, labelled, main
from training.datasets.frame_pairs import PairSet, pack_pairs
from training.evaluate_mosis import COLUMNS, evaluate_runs, load_network
from training.min_cut import figure, instances_at_edges
from training.moving_objects import Video
from training.nets.gmos_nano import MOVABLE, GmosNanoConfig
from training.scenes.moving_shapes import THESIS
from training.train_video import Run
from training.train_video import main as train

SIZE = (96, 96)


def frames(objects, camera=(0, 0), seed=0, times=(-1, 0, 1)):
    """(T, H, W, 3): squares (x, y, side, dx, dy) before a wall that the camera shifts."""
    rng = np.random.default_rng(seed)
    wall = cv2.GaussianBlur(rng.integers(0, 255, (200, 200, 3), np.uint8), (0, 0), 1.5)
    skins = [cv2.GaussianBlur(rng.integers(0, 255, (item[2], item[2], 3), np.uint8), (0, 0), 1)
             for item in objects]
    found = []
    for t in times:
        top, left = 50 + t * camera[1], 50 + t * camera[0]
        image = wall[top:top + SIZE[0], left:left + SIZE[1]].copy()
        for (x, y, side, dx, dy), skin in zip(objects, skins):
            image[y + t * dy:y + t * dy + side, x + t * dx:x + t * dx + side] = skin
        found.append(image)
    return np.stack(found)


def square(x, y, side, *_):
    mask = np.zeros(SIZE, bool)
    mask[y:y + side, x:x + side] = True
    return mask


def iou(mask, other):
    return (mask & other).sum() / (mask | other).sum()


@pytest.mark.parametrize('camera', [(0, 0), (2, -1)])
@pytest.mark.parametrize('item', [(30, 40, 24, 3, 0), (60, 20, 9, -6, 5)])
def test_a_moving_square_is_found_to_its_edges(camera, item):
    found = Video(frames([item], camera)).find(1)
    assert len(found) == 1 and found[0].gain > 5
    assert iou(found[0].mask, square(*item)) > 0.9
    beside = np.array(item[3:]) + camera
    np.testing.assert_allclose(found[0].shifts[1], beside, atol=0.15)
    np.testing.assert_allclose(found[0].shifts[-1], -beside, atol=0.15)


def test_two_that_touch_and_move_apart_are_two():
    items = [(20, 30, 22, -2, 0), (42, 30, 22, 2, 0)]
    found = Video(frames(items)).find(1)
    assert len(found) == 2 and not (found[0].mask & found[1].mask).any()
    for item in items:
        assert max(iou(part.mask, square(*item)) for part in found) > 0.9


def test_the_one_that_passes_in_front_is_cut_out_of_the_other():
    behind, front = (24, 24, 40, 1, 0), (40, 40, 12, -3, 0)
    found = Video(frames([behind, front])).find(1)
    seen = square(*behind) & ~square(*front)
    assert [max(iou(part.mask, mask) for part in found) > 0.85
            for mask in (seen, square(*front))] == [True, True]


@pytest.mark.parametrize('place', [0, 2])
def test_the_ends_of_a_video_have_one_neighbour(place):
    item = (30, 40, 24, 3, 0)
    found = Video(frames([item])).find(place)
    moved = (30 + 3 * (place - 1), *item[1:])
    assert len(found) == 1 and iou(found[0].mask, square(*moved)) > 0.8
    assert list(found[0].shifts) == [1 if place == 0 else -1]


@pytest.mark.parametrize('camera', [(0, 0), (2, 1)])
def test_a_static_scene_has_nothing(camera):
    assert Video(frames([], camera)).find(1) == []


@pytest.mark.parametrize('seed', range(6))
def test_corners_that_a_fast_camera_shows_once_are_nothing(seed):
    assert Video(frames([], (8, 6), seed)).find(1) == []


def test_a_square_that_goes_with_the_wall_is_nothing():
    assert Video(frames([(30, 40, 24, -2, 0)], camera=(2, 0))).find(1) == []


def test_a_square_with_a_flat_middle_is_whole():
    """There every motion explains the same: its rim closes it."""
    images = frames([(30, 40, 24, 3, 0)])
    for t, image in enumerate(images):
        image[45:59, 32 + 3 * t:46 + 3 * t] = 40, 200, 90
    found = Video(images).find(1)
    assert len(found) == 1 and iou(found[0].mask, square(30, 40, 24)) > 0.9


@pytest.mark.parametrize('camera', [(0, 0), (5, -3)])
def test_the_camera_is_known_to_hundredths(camera):
    matrix, = cameras(frames([(30, 40, 24, 3, 0)], camera, times=(0, 1)))
    flow = camera_flow(matrix, pixel_grid(SIZE))
    assert np.abs(flow + np.float32(camera)).max() < 0.05


def test_before_one_colour_the_camera_rests():
    matrix, = cameras(np.full((2, *SIZE, 3), 90, np.uint8))
    np.testing.assert_allclose(matrix, np.eye(3), atol=1e-6)


def test_the_camera_turns_too():
    """A homography of which every entry counts, at a start two pixels off."""
    image = cv2.GaussianBlur(frames([])[0], (0, 0), 2).astype(np.float32)
    truth = np.array([[1.01, 0.02, 1.5], [-0.015, 0.99, -1], [1e-4, -5e-5, 1]])
    other = cv2.warpPerspective(image, truth, SIZE[::-1], flags=cv2.INTER_CUBIC)
    now, other = image.mean(2), other.mean(2)
    found = align(np.eye(3), now, other, 0.7, 20)
    grid = pixel_grid(SIZE)
    error = camera_flow(found, grid) - camera_flow(truth, grid)
    assert np.abs(error[8:-8, 8:-8]).max() < 0.1


def test_a_figure_by_hand():
    """Evidence on two pixels; the rest of the bright square follows, the dark ground does not."""
    image = np.zeros((20, 30, 3), np.float32)
    image[5:13, 10:20] = 200
    evidence = np.full((20, 30), -0.05)
    evidence[5, 10] = evidence[12, 19] = 4
    np.testing.assert_array_equal(figure(evidence, image, 3.0), image[..., 0] > 0)
    np.testing.assert_array_equal(figure(evidence, image, 0.0), evidence > 0)
    assert not figure(-np.ones((4, 4)), image[:4, :4], 3.0).any()
    assert figure(np.ones((4, 4)), image[:4, :4], 3.0).all()


def test_instances_end_where_the_picture_has_edges():
    """Two squares that touch, seen a pixel too small and too large; a third that is nowhere."""
    image = np.zeros((30, 40, 3), np.float32)
    image[8:20, 8:20], image[8:20, 20:32] = (200, 0, 0), (0, 0, 200)
    masks = np.zeros((3, 30, 40), bool)
    masks[0, 9:19, 9:19], masks[1, 7:21, 20:33], masks[2, 24:26, 4:6] = True, True, True
    odds = np.where(masks.any(0), 2.0, -2.0)
    odds[24:26, 4:6] = -1
    found = instances_at_edges(masks, odds, image)
    np.testing.assert_array_equal(found[0], image[..., 0] > 0)
    np.testing.assert_array_equal(found[1], image[..., 2] > 0)
    np.testing.assert_array_equal(found[2], masks[2])


@given(arrays(np.int8, (4, 4), elements=st.integers(-3, 3)), st.integers(0, 2 ** 16 - 1))
def test_no_figure_costs_less(evidence, chosen):
    """Against any other figure, on a picture of one colour."""
    def cost(mask):
        total = -float(evidence[mask].sum())
        for dy, dx, length in ((0, 1, 1), (1, 0, 1), (1, 1, 0.71), (1, -1, 0.71)):
            here = mask[:4 - dy, max(0, -dx):4 - max(0, dx)]
            there = mask[dy:, max(0, dx):4 + min(0, dx)]
            total += length * np.count_nonzero(here != there)
        return total

    other = (chosen >> np.arange(16) & 1).astype(bool).reshape(4, 4)
    assert cost(figure(evidence, np.zeros((4, 4, 3), np.float32), 1.0)) <= cost(other) + 1e-6


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
    assert main(['--data', str(pairs), '--out', str(tmp_path / 'cold'), '--score']) == 0
    values = re.fullmatch(r'mask mAP (\S+), AP50 (\S+), AP75 (\S+)\n', capsys.readouterr().out)
    assert float(values[2]) > 0.6 and float(values[3]) > 0.5
    images, labels = (np.load(tmp_path / 'cold' / f'cold0000.{part}.npy')
                      for part in ('image', 'label'))
    assert images.shape == (12, 3, 256, 256) and labels.shape == (12, 256, 256) and labels.max()
    run = tmp_path / 'cold_0'
    train(['--data', str(tmp_path / 'cold'), '--run', str(run), '--minutes', '0.001', '--batch',
           '2', '--movable'])
    results = evaluate_runs([run], pairs, None)
    assert list(results) == ['cold'] and set(results['cold'][0]) == set(COLUMNS)


def test_the_truth_can_be_cached_instead_and_shards_stay(pairs, tmp_path):
    made_by = {'teacher': 'truth'}
    cache(PairSet(pairs), tmp_path, by_truth(PairSet(pairs)), made_by)
    path = tmp_path / 'cold0000.label.npy'
    labels, written = np.load(path), path.stat().st_mtime_ns
    ids = np.load(pairs / 'ids.npy')
    np.testing.assert_array_equal(labels[0, ::2, ::2] > 0, ids[0, 1] > 0)
    cache(PairSet(pairs), tmp_path, by_truth(PairSet(pairs)), made_by)
    assert path.stat().st_mtime_ns == written


def test_a_cache_of_another_teacher_or_other_data_is_refused(pairs, tmp_path, capsys):
    pack_pairs(replace(THESIS, frames=3), 1, tmp_path / 'others')
    truth = ['--out', str(tmp_path / 'out'), '--truth', '--data']
    assert main([*truth, str(pairs)]) == 0
    path = tmp_path / 'out' / 'cold0000.label.npy'
    labels = path.read_bytes()
    assert main([*truth, str(tmp_path / 'others')]) == 1
    assert main(['--data', str(pairs), '--out', str(tmp_path / 'out')]) == 1
    assert 'give another --out' in capsys.readouterr().err
    assert main([*truth, str(pairs)]) == 0 and path.read_bytes() == labels
    next((tmp_path / 'out').glob('*.json')).unlink()
    assert main([*truth, str(pairs)]) == 1
    assert 'does not say' in capsys.readouterr().err


@pytest.mark.parametrize('asked', [['--out', 'out'], ['--score']])
def test_videos_of_two_frames_are_refused(tmp_path, capsys, monkeypatch, asked):
    monkeypatch.chdir(tmp_path)
    pack_pairs(replace(THESIS, frames=2), 1, tmp_path / 'two')
    assert main(['--data', 'two', *asked]) == 1
    assert 'have 2 frames' in capsys.readouterr().err and not (tmp_path / 'out').exists()


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


def test_cached_labels_are_learned_from_instead_of_the_truth(tmp_path):
    """Of the truth's cache they are the truth, numbered by size."""
    preset = replace(THESIS, size=(64, 64), frames=4, objects=(2, 3), object_px=(12, 24))
    pack_pairs(preset, 2, tmp_path / 'set', seed=5)
    pack_pairs(preset, 2, tmp_path / 'other', seed=6)
    pairs = PairSet(tmp_path / 'set')
    cache(pairs, tmp_path / 'cache', by_truth(pairs), {'teacher': 'truth'})
    found = labelled(pairs, tmp_path / 'cache')
    assert (found.videos, found.pairs) == (2, 1) and found.about.endswith('labels: truth')
    np.testing.assert_array_equal(found.frames, pairs.frames[:, 1:-1])
    batch, truth = found.batch(np.array([(1, 0)])), pairs.batch(np.array([(1, 1)]))
    assert torch.equal(batch.flow, truth.flow)
    assert ({mask.numpy().tobytes() for mask in batch.masks[0]}
            == {mask.numpy().tobytes() for mask in truth.masks[0]})
    with pytest.raises(DatasetError, match='asked for are those of'):
        labelled(PairSet(tmp_path / 'other'), tmp_path / 'cache')
    with pytest.raises(DatasetError, match='make them of the same set'):
        pairs.with_ids(pairs.ids, 'truth')
    for file in (tmp_path / 'cache').glob('*.label.npy'):
        file.unlink()
    with pytest.raises(DatasetError, match=r'has no \*.label.npy'):
        labelled(pairs, tmp_path / 'cache')
    pack_pairs(replace(preset, frames=3), 1, tmp_path / 'short')
    short = PairSet(tmp_path / 'short')
    with pytest.raises(DatasetError, match='the videos have 3 frames'):
        short.with_ids(short.ids[:, 1:-1], 'truth')
