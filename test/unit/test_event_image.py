"""An image drawn of events, and inputs that have it in place of a frame."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_perception.datatypes import Events, EventWindow, Frame, SyncedInput
from mos_perception.motion.backward_flow import BackwardFlow
from mos_perception.motion.event_image import event_image
from mos_perception.motion.evidence import EvidenceSpec
from mos_perception.motion.flow import DenseFlow, FlowSettings, grey
from mos_perception.motion.neighbours import Neighbours

MS = 1_000_000
SIZE = (48, 64)
FADE_MS = 50.0
SPEC = EvidenceSpec(size=(64, 96), fade_ms=FADE_MS)


def window(at_ms, x=(), y=(), p=(), age_ms=()):
    t = at_ms * MS - np.round(np.asarray(age_ms, float) * MS).astype(np.int64)
    order = np.argsort(t, kind='stable')
    parts = (np.asarray(values, kind)[order] for values, kind in
             ((x, np.uint16), (y, np.uint16), (p, np.uint8), (t, np.int64)))
    return EventWindow(Events(*parts), (at_ms - 100) * MS, at_ms * MS, *SIZE)


def bar(at_ms, with_frame=False):
    """A bar that goes right by 1 px each 10 ms, as its two edges' events of the last 100 ms."""
    ages, rows = np.meshgrid(np.arange(0, 100, 2.5), np.arange(10, 38))
    right = 16 + (at_ms - ages) / 10
    x = np.concatenate([right, right - 8]).ravel()
    y, age = (np.concatenate([values, values]).ravel() for values in (rows, ages))
    p = np.repeat([1, 0], rows.size)
    frame = Frame(at_ms * MS, np.zeros((*SIZE, 3), np.uint8)) if with_frame else None
    return SyncedInput(at_ms * MS, '', frame, window(at_ms, x, y, p, age), SIZE)


def test_an_image_is_grey_without_events_and_fades_with_their_age():
    assert (event_image(window(200), FADE_MS) == 128).all()
    spots = [event_image(window(200, [20], [30], [1], [age]), FADE_MS)[30, 20, 0] - 128.0
             for age in (0, 25, 50, 99)]
    assert spots[0] > spots[1] > spots[2] > spots[3] > 0
    # far from saturation the level follows e^(-age / fade); it is rounded to a whole grey
    np.testing.assert_allclose(spots[2], spots[0] * np.exp(-1), atol=1.0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 63), st.integers(0, 47), st.integers(0, 1),
                          st.floats(0, 99.9)), max_size=60))
def test_the_other_polarity_draws_the_negative(events):
    x, y, p, age = (list(column) for column in zip(*events)) if events else ([],) * 4
    image = event_image(window(200, x, y, p, age), FADE_MS).astype(int)
    negative = event_image(window(200, x, y, [1 - one for one in p], age), FADE_MS).astype(int)
    assert image.shape == (*SIZE, 3) and (image == image[..., :1]).all()
    assert np.abs(image + negative - 256).max() <= 1  # a half is rounded to the even grey


def test_the_level_of_many_events_is_that_of_their_sum():
    """Against the definition, event by event in float64."""
    rng = np.random.default_rng(0)
    x, y, p = rng.integers(0, 64, 500), rng.integers(0, 48, 500), rng.integers(0, 2, 500)
    age = rng.integers(0, 100, 500)
    total = np.zeros(SIZE)
    for one in zip(x, y, p, age):
        total[one[1], one[0]] += (2 * one[2] - 1) * np.exp(-one[3] / FADE_MS)
    found = event_image(window(200, x, y, p, age), FADE_MS)[..., 0].astype(float)
    k = np.exp(-0.5 * (np.arange(-3, 4) / 0.7) ** 2)
    k /= k.sum()
    padded = np.pad(total, 3, mode='reflect')
    smooth = sum(k[i] * k[j] * padded[i:i + 48, j:j + 64] for i in range(7) for j in range(7))
    np.testing.assert_allclose(found, 128 + 127 * np.tanh(smooth / 2), atol=1.0)


def test_inputs_without_a_frame_get_an_image_and_neighbours():
    neighbours = Neighbours(SPEC)
    stamps = range(200, 560, 40)
    found = neighbours.push([bar(at) for at in stamps])
    assert [sample.stamp_ns // MS for sample in found] == list(stamps)[:-3]
    found += neighbours.flush([])
    assert [sample.stamp_ns // MS for sample in found] == list(stamps)
    assert all(sample.frame is None and sample.picture is sample.drawn for sample in found)
    assert found[4].missing_gaps == 0 and found[0].missing_gaps == 2


def test_flow_follows_what_the_images_show():
    now, before = (grey(event_image(bar(at).window, FADE_MS), SIZE) for at in (360, 320))
    flow = DenseFlow(FlowSettings((96, 128), 'medium', 0))(
        *(cv2.resize(image, (128, 96)) for image in (now, before)), (96, 128))
    bar_px = flow[30:66, 84:108, 0] / 2  # at twice the size: from 42 to 54
    assert abs(np.median(bar_px) + 4) < 1


def test_a_model_of_frames_alone_draws_nothing():
    found = Neighbours(EvidenceSpec()).push([bar(200)])
    assert found[0].picture is None


def test_frames_and_images_are_not_neighbours():
    """A camera falls silent and comes back: each kind is compared with its own."""
    neighbours, flow = Neighbours(SPEC), BackwardFlow()
    inputs = [*(bar(at, True) for at in (200, 240, 280)), *(bar(at) for at in (600, 640, 680)),
              *(bar(at, True) for at in (720, 760))]
    found = neighbours.push(inputs) + neighbours.flush([])
    assert [sample.stamp_ns for sample in found] == [sample.stamp_ns for sample in inputs]
    for sample in found:
        kind = sample.frame is None
        stamps = {other.stamp_ns // MS for other in sample.neighbours}
        assert stamps <= ({600, 640, 680} if kind else {200, 240, 280, 720, 760})
    known = []
    for sample in found:
        known.append(flow.attach(sample).flow is not None)
        flow.answered(sample)
    assert known == [False, True, True, False, True, True, False, True]


@pytest.mark.parametrize('back', [True, False])
def test_what_waits_among_images_is_released(back):
    neighbours = Neighbours(SPEC)
    assert not neighbours.push([bar(600), bar(640)])
    found = neighbours.push([bar(680, True)]) if back else neighbours.flush([])
    assert [sample.stamp_ns // MS for sample in found] == [600, 640]
    neighbours.push([bar(720)])
    neighbours.reset()
    assert not neighbours.flush([])
