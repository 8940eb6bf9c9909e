"""Boxes of masks against a search for the edges, run lengths against pycocotools and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from mos_perception import masks
from mos_perception.errors import DatasetError

QUICK = settings(max_examples=40, deadline=None)


@st.composite
def stacks(draw):
    """(N, H, W) bool masks, sparse, full and empty ones, some not contiguous in memory."""
    side = st.integers(1, 40)
    count, height, width = draw(st.integers(0, 4)), draw(side), draw(side)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shares = draw(st.lists(st.sampled_from([0.0, 0.01, 0.5, 1.0]), min_size=count, max_size=count))
    found = rng.random((count, height, width)) < np.array(shares).reshape(-1, 1, 1)
    return found.transpose(0, 2, 1) if draw(st.booleans()) else found


def searched_box(mask):
    """Pixel by pixel."""
    pixels = [(x, y) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x]]
    if not pixels:
        return 0, 0, 0, 0
    columns, rows = zip(*pixels)
    return min(columns), min(rows), max(columns) + 1, max(rows) + 1


@QUICK
@given(stacks())
def test_boxes_are_the_outermost_pixels(found):
    boxes = masks.mask_boxes(found)
    assert boxes.dtype == np.float32 and boxes.shape == (len(found), 4)
    assert boxes.tolist() == [list(searched_box(mask)) for mask in found]
    assert masks.mask_boxes(list(found)).tolist() == boxes.tolist()
    assert [masks.mask_box(mask) for mask in found] == [tuple(box) for box in boxes.tolist()]


@QUICK
@given(stacks(), st.integers(1, 65532))
def test_boxes_of_objects_are_those_of_their_masks(found, first):
    ids = np.zeros(found.shape[1:], np.uint16)
    for object_id, mask in enumerate(found, first):
        ids[mask] = object_id
    boxes = masks.object_boxes(ids)
    assert list(boxes) == sorted({int(value) for value in ids.flat} - {0})
    for object_id, box in boxes.items():
        assert box == searched_box(ids == object_id)
        assert all(type(side) is int for side in box)  # they go into JSON


def test_start_length_pairs_and_their_off_by_one():
    from_zero = '3 2'  # the generator's: pixels 3 and 4
    as_meant = masks.mask_from_pairs(from_zero, (3, 4), base=0)
    assert np.flatnonzero(as_meant.T).tolist() == [3, 4]
    as_loaders_have_it = masks.mask_from_pairs(from_zero, (3, 4))
    assert np.flatnonzero(as_loaders_have_it.T).tolist() == [2, 3]
    one_pixel_lost_none_wrapped = masks.mask_from_pairs('0 2', (3, 4))
    assert np.flatnonzero(one_pixel_lost_none_wrapped.T).tolist() == [0]
    for bad in ('1', '1 2 3', 'a 1', '12 2', '-1 1', '1 -1'):
        with pytest.raises(DatasetError):
            masks.mask_from_pairs(bad, (3, 4))


@QUICK
@given(stacks())
def test_run_lengths_equal_pycocotools(found):
    codes = masks.coco_codes(found)
    assert len(codes) == len(found)
    for mask, code in zip(found, codes):
        oracle = coco.encode(np.asfortranarray(mask, np.uint8))
        assert code == oracle['counts']
        record = masks.coco_from_mask(mask)
        assert record == {'size': list(mask.shape), 'counts': oracle['counts'].decode()}
        listed = masks.coco_from_mask(mask, compressed=False)
        assert coco.frPyObjects(listed, *mask.shape)['counts'] == oracle['counts']
        assert np.array_equal(masks.mask_from_coco(record), mask)
        assert np.array_equal(masks.mask_from_coco(listed), mask)


@QUICK
@given(stacks())
def test_pairs_paint_the_mask(found):
    for mask in found:
        assert np.array_equal(masks.mask_from_pairs(masks.pairs_from_mask(mask), mask.shape), mask)
        flat, pairs = mask.T.ravel(), masks.pairs_from_mask(mask, 0).split()
        painted = np.zeros_like(flat)
        for start, length in zip(pairs[::2], pairs[1::2]):
            painted[int(start):int(start) + int(length)] = True
        assert np.array_equal(painted, flat)
