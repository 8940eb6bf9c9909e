"""The flow between answers, and masks moved along it, on fields whose motion is known."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_perception.datatypes import Frame, SyncedInput
from mos_perception.masks import mask_box
from mos_perception.motion.backward_flow import MAX_GAP_NS, BackwardFlow, flow_size
from mos_perception.motion.flow import pixel_grid
from mos_perception.tracking.carry import CarriedMask, carry, fit_similarity

SIZE = (96, 128)
MS = 1_000_000
OUTLINE = np.array([[0, 0], [30, 4], [22, 26], [12, 18], [2, 28]])


def blob(x: int, y: int, size=SIZE) -> np.ndarray:
    """(H, W) bool: a notched polygon 31 px wide, its corner at (x, y); clipped to the image."""
    around = 200  # px of margin in which the whole outline fits
    tall, wide = size[0] + 2 * around, size[1] + 2 * around
    canvas = cv2.fillPoly(np.zeros((tall, wide), np.uint8), [OUTLINE + [x + around, y + around]], 1)
    return canvas[around:-around, around:-around].astype(bool)


def cut(mask):
    """The mask along its box, and the box."""
    x0, y0, x1, y1 = mask_box(mask)
    return mask[y0:y1, x0:x1], np.array([x0, y0, x1, y1], np.float32)


def whole(carried: CarriedMask, size=SIZE) -> np.ndarray:
    image = np.zeros(size, bool)
    x0, y0, x1, y1 = carried.box.astype(int)
    image[y0:y1, x0:x1] = carried.mask
    return image


def textured(size, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, size).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.clip(128 + 5 * (smooth - smooth.mean()), 0, 255).astype(np.uint8)


def sample(image, stamp_ns):
    frame = Frame(stamp_ns, np.repeat(image[..., None], 3, 2))
    return SyncedInput(stamp_ns, '', frame, None, frame.size)


@settings(max_examples=80)
@given(st.integers(0, 97), st.integers(0, 67), st.integers(-40, 40), st.integers(-40, 40),
       st.integers(1, 4))
def test_a_whole_shift_moves_a_mask_exactly(x, y, dx, dy, steps):
    """Backward flow: the pixel x now stood at x - shift. What leaves the image is cut off."""
    mask = blob(x, y)
    flow = np.broadcast_to(np.float32([-dx, -dy]), (*SIZE, 2)).copy()
    carried = CarriedMask.seen(*cut(mask))
    for step in range(1, steps + 1):
        (found,) = carry([(carried.mask, carried.box)], flow, np.zeros(SIZE, np.float32), SIZE)
        wanted = blob(x + step * dx, y + step * dy)
        if found is None:
            assert np.count_nonzero(wanted) < 4
            return
        assert found.support == pytest.approx(
            wanted.sum() / whole(carried).sum(), abs=1e-9)
        carried = carried.moved(found.motion, SIZE)
        assert (whole(carried) == wanted).all()


def test_a_larger_image_moves_as_its_small_flow_says():
    """Flow of half the size: shifts there are twice as long here."""
    mask = blob(60, 40, (192, 256))
    flow = np.broadcast_to(np.float32([-3, 2]), (*SIZE, 2)).copy()
    carried = CarriedMask.seen(*cut(mask))
    (found,) = carry([(carried.mask, carried.box)], flow, np.zeros(SIZE, np.float32), (192, 256))
    moved = whole(carried.moved(found.motion, (192, 256)), (192, 256))
    assert (moved == blob(66, 36, (192, 256))).all()


@settings(max_examples=40)
@given(st.floats(-0.1, 0.1), st.floats(0.9, 1.1), st.floats(-20, 20), st.floats(-20, 20),
       st.integers(0, 2**32 - 1))
def test_the_similarity_is_found_among_outliers(angle, scale, dx, dy, seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 60, (300, 2))
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = points.mean(0)
    flow = (points - centre) @ (turn - np.eye(2)).T + [dx, dy]
    small = np.abs(turn - np.eye(2)).max() * 45 < 1  # within what one step of flow shows
    wrong = rng.random(300) < 0.2
    flow[wrong] += [9, -7]
    matrix, agree = fit_similarity(points, flow)
    if small:
        assert not (agree & wrong).any() and agree[~wrong].all()
        there = points @ matrix[:2, :2].T + matrix[:2, 2]
        assert np.abs(there - points - flow)[~wrong].max() < 0.05


def test_what_stands_out_of_its_surroundings_went_a_way():
    """The object goes 2 px right while the camera shifts the picture 3 px left."""
    mask = blob(40, 40)
    flow = np.full((*SIZE, 2), np.float32(0))
    flow[..., 0] = 3
    flow[blob(42, 40)] = [-2, 0]
    (found,) = carry([cut(mask)], flow, np.zeros(SIZE, np.float32), SIZE)
    assert found.support == 1
    assert found.against == pytest.approx([5 / SIZE[1], 0])


def test_support_counts_what_differs_covers_and_leaves():
    flow, mask = np.zeros((*SIZE, 2), np.float32), blob(40, 40)
    error = np.zeros(SIZE, np.float32)
    error[:, :52] = 90
    (found,) = carry([cut(mask)], flow, error, SIZE)
    assert found.support == pytest.approx(mask[:, 52:].sum() / mask.sum(), abs=0.01)
    above = np.zeros(SIZE, bool)
    above[40:54, 30:90] = True
    below, _ = carry([cut(mask), cut(above)], flow, np.zeros(SIZE, np.float32), SIZE)
    assert below.support == pytest.approx((mask & ~above).sum() / mask.sum(), abs=0.01)
    assert carry([cut(mask)], flow + 500, np.zeros(SIZE, np.float32), SIZE) == [None]


def test_noise_of_the_whole_frame_is_no_difference():
    flow, mask = np.zeros((*SIZE, 2), np.float32), blob(40, 40)
    (found,) = carry([cut(mask)], flow, np.full(SIZE, 40, np.float32), SIZE)
    assert found.support == 1


def test_flow_leads_back_to_the_last_answer():
    wide = textured((240, 360))
    backward = BackwardFlow()
    views = [wide[20:212, 40 + 2 * n:296 + 2 * n] for n in range(4)]  # content goes 2 px left
    first = backward.attach(sample(views[0], 0))
    assert first.flow is None and first.flow_error is None
    backward.answered(first)
    skipped = backward.attach(sample(views[1], 33 * MS))  # gets no answer
    found = backward.attach(sample(views[2], 66 * MS))
    ratio = found.flow.shape[1] / 256
    assert np.median(skipped.flow[..., 0]) == pytest.approx(2 * ratio, abs=0.2)
    assert np.median(found.flow[..., 0]) == pytest.approx(4 * ratio, abs=0.2)
    assert found.flow.shape == (*flow_size((192, 256)), 2) and found.flow.dtype == np.float32
    assert found.flow_error.shape == found.flow.shape[:2] and np.median(found.flow_error) < 3
    # the picture one flow back is the picture now
    before = cv2.resize(views[0], found.flow.shape[1::-1], interpolation=cv2.INTER_AREA)
    now = cv2.resize(views[2], found.flow.shape[1::-1], interpolation=cv2.INTER_AREA)
    there = cv2.remap(before, pixel_grid(before.shape) + found.flow, None, cv2.INTER_LINEAR)
    assert np.median(np.abs(there[20:-20, 20:-20].astype(int) - now[20:-20, 20:-20])) < 3


def test_no_flow_after_reset_pause_or_an_answer_without_frame():
    image, backward = textured((96, 128)), BackwardFlow()
    backward.answered(backward.attach(sample(image, 0)))
    assert backward.attach(sample(image, MAX_GAP_NS + 1)).flow is None
    assert backward.attach(sample(image, MAX_GAP_NS)).flow is not None

    def again(stamp_ns):
        return replace(sample(image, stamp_ns), epoch=1)

    assert backward.attach(again(33 * MS)).flow is None
    backward.answered(backward.attach(again(66 * MS)))
    assert backward.attach(again(80 * MS)).flow is not None
    events = replace(SyncedInput.nothing((96, 128)), stamp_ns=99 * MS, epoch=1)
    assert backward.attach(events) is events
    backward.answered(events)
    assert backward.attach(again(132 * MS)).flow is None


@pytest.mark.parametrize('size, wanted', [((480, 640), (168, 224)), ((720, 1280), (128, 224)),
                                          ((120, 160), (120, 160)), ((48, 64), (64, 64))])
def test_flow_is_small(size, wanted):
    assert flow_size(size) == wanted
