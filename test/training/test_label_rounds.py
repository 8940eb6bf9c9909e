"""Labels that frames agree on, and what a student's pictures add: toy videos known by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from training.datasets.frame_pairs import PairSet, pack_pairs
from training.evaluate_mosis import COLUMNS, Found
from training.evaluate_mosis import main as evaluate
from training.label_rounds import Agreement, by_agreement, combined, main
from training.moving_objects import Part
from training.nets.gmos_nano import MOVABLE, GmosNanoConfig
from training.recipes_mosis import MOSIS_RECIPES
from training.scenes.moving_shapes import THESIS
from training.state import save, start
from training.train_video import Run

SIZE = (40, 80)
CAMERA = np.array([2.0, -1.0])  # px a frame by which the background moves
OWN = np.array([3.0, 1.0])      # and a thing beside it


class Toy:
    """A video of which only the camera counts."""

    frames = np.zeros((9, *SIZE, 3), np.uint8)

    def camera(self, t, side):
        return np.broadcast_to(np.float32(side * CAMERA), (*SIZE, 2))


def square(x, y, side=8):
    mask = np.zeros(SIZE, bool)
    mask[y:y + side, x:x + side] = True
    return mask


def part(mask, gain=10.0, own=OWN):
    return Part(mask, gain, {side: side * own for side in (-1, 1)})


def moving(t):
    """A square that moves with the camera and by itself: (5, 0) px a frame."""
    return square(4 + 5 * t, 10)


def agreed(masks):
    return Agreement(Toy(), [[part(mask) for mask in frame] for frame in masks]).labels()


def test_what_all_frames_show_stays_as_it_is():
    masks = [[moving(t)] for t in range(7)]
    for found, (mask,) in zip(agreed(masks), masks, strict=True):
        np.testing.assert_array_equal(found[0].mask, mask)
        assert len(found) == 1 and found[0].gain == 10


def test_missed_is_filled_in_and_noise_is_not_kept():
    masks = [[moving(t)] for t in range(7)]
    masks[2] = masks[3] = []
    masks[5] = [moving(5), square(60, 28)]
    found = agreed(masks)
    assert [len(parts) for parts in found] == [1] * 7
    for t in (2, 3, 5):
        np.testing.assert_array_equal(found[t][0].mask, moving(t))


def test_too_long_a_gap_is_two_things():
    masks = [[moving(t)] if t in (0, 1, 2, 6) else [] for t in range(7)]
    assert [len(parts) for parts in agreed(masks)] == [1, 1, 1, 0, 0, 0, 0]


def test_masks_are_voted():
    masks = [[moving(t)] for t in range(5)]
    masks[2] = [moving(2) & (np.arange(SIZE[1]) < 20)]     # 6 of 8 columns
    masks[3] = [moving(3) | square(19, 16, 3)]
    found = agreed(masks)
    for t in (2, 3):
        np.testing.assert_array_equal(found[t][0].mask, moving(t))


def test_what_enters_the_picture_keeps_its_newest_strip():
    """Where it is now the frames before do not show."""
    entering = [square(0, 10, 20) & (np.arange(SIZE[1]) < 10 + 5 * t) for t in range(3)]
    for found, mask in zip(agreed([[mask] for mask in entering]), entering, strict=True):
        np.testing.assert_array_equal(found[0].mask, mask)


def test_of_two_voters_each_frame_has_its_own_mask():
    masks = [moving(0) & (np.arange(SIZE[1]) < 8), moving(1)]
    for found, mask in zip(agreed([[mask] for mask in masks]), masks, strict=True):
        np.testing.assert_array_equal(found[0].mask, mask)


def test_a_short_video_needs_all_its_frames():
    assert [len(parts) for parts in agreed([[moving(0)], [moving(1), square(60, 28)]])] == [1, 1]


def seen(*things):
    masks = np.stack([mask for mask, _ in things]) if things else np.zeros((0, *SIZE), bool)
    return Found(masks, np.array([score for _, score in things], np.float32),
                 np.zeros((len(things), 4)))


def test_what_stands_still_comes_from_the_picture():
    still, whole = square(50, 20), part(moving(0))
    found = combined([whole], seen((still, 0.9), (moving(0), 0.9)))
    assert len(found) == 2
    rest = next(one for one in found if one.mask[22, 52])
    np.testing.assert_array_equal(rest.mask, still)
    assert rest.score == pytest.approx(0.9) and not any(map(np.any, rest.shifts.values()))


def test_a_thing_that_pauses_is_kept_and_one_that_never_moves_is_not():
    """It rests in frames 2 to 4, so that it goes with the camera: (2, -1) px a frame."""
    resting = {t: square(14 + 2 * (t - 2), 10 - (t - 2)) for t in range(2, 5)}
    never = [square(50 + 2 * t, 28 - t) for t in range(5)]
    masks = [moving(0), moving(1), *resting.values()]
    frames = [[part(masks[t])] if t < 2 else [] for t in range(5)]
    frames = [combined(parts, seen(*([(resting[t], 0.8)] if t in resting else []),
                                   (never[t], 0.9))) for t, parts in enumerate(frames)]
    found = Agreement(Toy(), frames).labels()
    assert [len(parts) for parts in found] == [1] * 5
    for t in (3, 4):
        np.testing.assert_array_equal(found[t][0].mask, resting[t])


def test_motion_says_that_an_object_is_whole():
    """Neither its half nor a wider view of it counts."""
    whole = part(square(20, 10, 16))
    for mask in (square(20, 10, 16) & (np.arange(SIZE[1]) < 27), square(12, 2, 32)):
        found = combined([whole], seen((mask, 0.95)))
        assert len(found) == 1
        np.testing.assert_array_equal(found[0].mask, whole.mask)


def test_the_picture_parts_what_motion_merged():
    left, right = square(20, 10), square(28, 10)
    found = combined([part(left | right)], seen((left, 0.9), (right, 0.8)))
    assert sorted(int(one.mask.argmax()) for one in found) == sorted(
        int(mask.argmax()) for mask in (left, right))
    assert all(one.mask.sum() == 64 for one in found)
    assert len(combined([part(left | right)], seen((left, 0.9)))) == 1


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pairs')
    pack_pairs(replace(THESIS, frames=5), 1, folder, 3)
    return folder


def test_commands(pairs, tmp_path, capsys):
    torch.manual_seed(0)
    Run(tmp_path / 'student', MOVABLE, 1e-3, None).save()
    out = tmp_path / 'out'
    assert main(['--data', str(pairs), '--out', str(out)]) == 0
    labels, found = np.load(out / 'cold0000.label.npy'), by_agreement(PairSet(pairs), None)(0)
    assert labels.shape == (3, 256, 256) and labels[0].any()
    np.testing.assert_array_equal(labels[1, ::2, ::2] > 0,
                                  np.any([one.mask for one in found[1]], 0))
    assert main(['--data', str(pairs), '--student', str(tmp_path / 'student'), '--score']) == 0
    assert 'AP75' in capsys.readouterr().out
    student = ['--data', str(pairs), '--student', str(tmp_path / 'student'), '--out', str(out)]
    assert main(student) == 1 and 'give another --out' in capsys.readouterr().err
    arguments = ['--cut', '--json', '--runs', str(tmp_path / 'student'), '--data', str(pairs)]
    assert evaluate(arguments) == 0
    assert set(json.loads(capsys.readouterr().out)['student'][0]) == set(COLUMNS)


def test_a_student_sees_single_pictures(pairs, tmp_path, capsys):
    config = GmosNanoConfig(stem=4, widths=(4, 6, 8, 8, 8), appearance=(4, 4, 4), width=8)
    Run(tmp_path, config, 1e-3, None).save()
    assert main(['--data', str(pairs), '--score', '--student', str(tmp_path)]) == 1
    assert 'on motion evidence' in capsys.readouterr().err


def test_a_student_of_another_trainer_is_refused(pairs, tmp_path, capsys):
    recipe = MOSIS_RECIPES['mosis_supervised_nano']
    save(start(recipe), recipe, tmp_path, {})
    assert main(['--data', str(pairs), '--score', '--student', str(tmp_path)]) == 1
    assert 'train_video --movable' in capsys.readouterr().err
