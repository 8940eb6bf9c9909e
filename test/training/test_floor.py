"""The classical floor finds what moves against a plain camera motion, and says nothing where nothing does."""

import cv2
import numpy as np
import pytest

from mos_perception.datatypes import Frame
from mos_perception.errors import FrameError
from training.floor import FloorModel, floor_masks, score_floor
from training.scenes import render_clip


def scene(shift, object_x, object_y=40):
    """(120, 160, 3) uint8: a textured ground moved by `shift` px and, if asked, a textured square."""
    rng = np.random.default_rng(1)
    ground = cv2.resize(rng.integers(0, 256, (40, 60, 3), np.uint8), (240, 160), interpolation=cv2.INTER_CUBIC)
    square = cv2.resize(rng.integers(0, 256, (8, 8, 3), np.uint8), (32, 32), interpolation=cv2.INTER_CUBIC)
    image = ground[20:140, 40 + shift:200 + shift].copy()
    if object_x is not None:
        image[object_y:object_y + 32, object_x:object_x + 32] = square
    return image


@pytest.mark.parametrize('shift', [0, 2])
def test_a_moving_square_is_found(shift):
    masks = floor_masks(scene(0, 60), scene(shift, 65))
    truth = np.zeros((120, 160), bool)
    truth[40:72, 65:97] = True
    assert len(masks) == 1
    assert (masks[0] & truth).sum() / (masks[0] | truth).sum() > 0.7


@pytest.mark.parametrize('shift', [0, 3])
def test_camera_motion_alone_is_nothing(shift):
    quiet = floor_masks(scene(0, None), scene(shift, None))
    assert quiet.shape == (0, 120, 160)


def test_model_remembers_and_resets():
    model = FloorModel()
    first, second = Frame(0, scene(0, 60)), Frame(1, scene(0, 65))
    assert len(model.update(first)) == 0
    found = model.update(second)
    assert len(found) == 1 and found.moving.all()
    rows, columns = np.nonzero(found.masks[0])
    assert found.boxes[0].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    model.reset()
    assert len(model.update(first)) == 0


def test_size_change_is_refused():
    with pytest.raises(FrameError, match='reset the floor model'):
        floor_masks(np.zeros((20, 30, 3), np.uint8), np.zeros((20, 40, 3), np.uint8))


def test_floor_is_fair_on_easy_clips():
    summary = score_floor([render_clip('easy', seed, 'val') for seed in range(4)]).summary()
    assert summary['frames'] == 28
    assert summary['parity']['mIoU01'] > 0.5
