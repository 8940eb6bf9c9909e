"""What the referring tracker sees: made-up instances, and what must hold for any."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_perception.datatypes import Instances
from mos_perception.masks import mask_boxes
from mos_perception.tracking.tokens import (
    LOOKS,
    PAIR,
    SHAPE,
    Tokens,
    box_iou,
    first_guess,
    looks_of,
    mask_iou,
    pairs,
    places,
    shape_of,
    tokens,
    unit,
    width,
)

SIZE = (60, 80)
sides = st.tuples(*[st.floats(0.01, 0.5)] * 2)
corners = st.tuples(*[st.floats(-0.2, 1)] * 2)
boxes = st.builds(lambda low, side: np.array([*low, low[0] + side[0], low[1] + side[1]],
                                             np.float32), corners, sides)


def several(rows) -> Tokens:
    count = len(rows)
    looks = np.zeros((count, LOOKS), np.float32)
    looks[np.arange(count), np.arange(count)] = 1
    return Tokens(np.zeros((count, 3), np.float32), looks,
                  np.ones((count, SHAPE, SHAPE), np.float32),
                  np.array(rows, np.float32).reshape(-1, 4), np.ones(count, np.float32))


def test_tokens_of_a_frame():
    masks = np.zeros((2, *SIZE), bool)
    masks[0, 10:20, 10:30] = masks[1, 40:50, 60:80] = True
    image = np.zeros((*SIZE, 3), np.uint8)
    image[masks[0]] = 255, 0, 0
    image[10:15, 10:30] = 0, 255, 0
    embeddings = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    ones = np.ones(2, np.float32)
    found = Instances(masks, mask_boxes(masks), ones, ones, ones.astype(bool), embeddings)
    made = tokens(found, image)
    assert made.embeddings.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]
    assert made.boxes[0].tolist() == pytest.approx([10 / 80, 10 / 60, 30 / 80, 20 / 60])
    red, green = 3 * 16, 3 * 4
    assert made.looks[0, [red, green]] == pytest.approx([0.5 ** 0.5] * 2)
    assert made.looks[1, 0] == 1 and (made.looks[1, -3:] == -1).all()
    assert made.vectors().shape == (2, width(2)) and made.vectors()[:, -1].tolist() == [1, 1]
    for other in (None, image[::2]):
        blind = tokens(found, other)
        assert not blind.looks.any() and not blind.vectors()[:, -1].any()


@given(one=boxes, other=boxes)
def test_iou_is_a_share_and_symmetric(one, other):
    iou = float(box_iou(one, other))
    assert 0 <= iou <= 1 + 1e-5 and iou == pytest.approx(float(box_iou(other, one)))
    assert float(box_iou(one, one)) == pytest.approx(1, abs=1e-4)


@given(there=boxes, here=boxes)
def test_filled_masks_overlap_as_their_boxes(there, here):
    one, other = several([there]), several([here])
    iou = mask_iou(one.shapes, one.boxes, other)[0, 0]
    assert iou == pytest.approx(float(box_iou(there, here)), abs=0.15)  # of whole cells
    assert mask_iou(one.shapes, one.boxes, one)[0, 0] == pytest.approx(1, abs=1e-3)


def test_overlap_is_that_of_the_masks():
    masks = np.zeros((3, *SIZE), bool)
    masks[0, 10:42, 10:26] = masks[1, 10:26, 10:42] = masks[2, 20:52, 20:36] = True
    masks[0, 10:26, 10:42] = masks[2, 20:36, 20:52] = True  # an L, one of its arms, the L elsewhere
    ones = np.ones(3, np.float32)
    made = tokens(Instances(masks, mask_boxes(masks), ones, ones, ones.astype(bool),
                            np.zeros((3, 2), np.float32)), None)
    found = mask_iou(made.shapes, made.boxes, made)
    flat = masks.reshape(3, -1).astype(float)
    common = flat @ flat.T
    areas = flat.sum(1)
    assert found == pytest.approx(common / (areas[:, None] + areas - common), abs=0.03)
    # where it is expected is what counts, not where it was
    assert mask_iou(made.shapes[:1], made.boxes[2:], made)[0, 2] == pytest.approx(1, abs=0.03)


@given(there=st.lists(boxes, max_size=4), here=st.lists(boxes, max_size=4),
       unseen=st.floats(0, 60))
def test_relations_are_finite_and_bounded(there, here, unseen):
    seen, now = several(there), several(here)
    age = np.full(len(seen), unseen)
    table = pairs(seen, seen.boxes, age, now)
    assert table.shape == (len(seen), len(now), PAIR) and table.dtype == np.float32
    assert np.isfinite(table).all() and (np.abs(table) < 10).all()
    made = places(seen.boxes, age, np.ones(len(seen), bool))
    assert np.isfinite(made).all() and len(made) == len(seen)
    guess = first_guess(table)
    used = guess[guess >= 0]
    assert len(set(used)) == len(used) and (guess < len(now)).all()


def test_the_same_again_is_guessed_whatever_the_order():
    rows = [[0.1, 0.1, 0.2, 0.2], [0.5, 0.5, 0.7, 0.7], [0.8, 0.1, 0.9, 0.3]]
    seen, order = several(rows), [2, 0, 1]
    table = pairs(seen, seen.boxes, np.zeros(3), several(rows).take(order))
    assert first_guess(table).tolist() == [1, 2, 0]
    far = pairs(seen, seen.boxes, np.zeros(3), several([[0.4, 0.9, 0.41, 0.91]]))
    assert first_guess(far[1:]).tolist() == [-1, -1]


@given(pixels=st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=30))
def test_looks_have_length_one(pixels):
    looks = looks_of(np.array(pixels, np.uint8))
    assert np.linalg.norm(looks[:-3]) == pytest.approx(1, abs=1e-5)
    assert (np.abs(looks[-3:]) <= 1).all()
    assert not looks_of(np.zeros((0, 3), np.uint8)).any()


def test_lengths():
    assert np.linalg.norm(unit(np.array([[3.0, 4.0], [0, 0]])), axis=1).tolist() == [
        pytest.approx(1), 0]
    assert shape_of(np.array([0.0, 0.0, 1.0, 1.0])).tolist() == [0, 0, 0, 0]
