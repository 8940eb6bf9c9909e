"""VPQ, STQ and mVC against numbers worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mos_perception.errors import DatasetError
from mos_perception.evaluation.video_metrics import Panoptic, Stq, Vpq, video_consistency

SKY, CAR, VOID = 0, 1, -1


def video(*frames) -> Panoptic:
    """Rows of pixels as text: `.` sky, a letter a car of that name, `?` void."""
    classes = [[[SKY if c == '.' else VOID if c == '?' else CAR for c in row]] for row in frames]
    segments = [[[ord(c) if c.isalpha() else 0 for c in row]] for row in frames]
    return Panoptic(np.array(classes), np.array(segments))


def vpq(truth, found, windows=(1, 2)):
    made = Vpq(windows)
    made.add(truth, found)
    return made


def test_vpq_of_a_changed_id():
    """Frame by frame the two cars are perfect; a tube of two frames has neither half."""
    truth, found = video('..aa', '..aa'), video('..aa', '..bb')
    assert vpq(truth, found).by_class(1) == {SKY: 1, CAR: 1}
    made = vpq(truth, found)  # car: IoU .5 with either, not above: 1 missed, 2 false
    assert made.by_class(2) == {SKY: 1, CAR: 0}
    assert made.score() == pytest.approx((1 + 0.5) / 2)


def test_vpq_counts_shares_misses_and_alarms():
    truth = video('....aaa.bb')
    found = video('....aa..c.')  # a: 2 / 3; b is half there: no match, one missed and one false
    made = vpq(truth, found, (1,)).by_class(1)
    assert made[CAR] == pytest.approx(2 / 3 / (1 + 0.5 + 0.5))
    assert made[SKY] == pytest.approx(5 / 7)


def test_void_is_nobodys_fault():
    truth = video('..aa????')
    assert vpq(truth, video('..aaa...'), (1,)).by_class(1) == {SKY: 1, CAR: 1}
    assert vpq(truth, video('..aa.bb.'), (1,)).by_class(1) == {SKY: 1, CAR: 1}
    assert vpq(truth, video('.baa.b..'), (1,)).by_class(1)[CAR] == 1 / 1.5  # not mostly in void


def test_stq_of_a_changed_id():
    """AQ: two halves of 4 pixels, each share 2 x 2 / 4 of its track, (1 + 1) / 4 = .5; SQ 1."""
    made = Stq(frozenset({CAR}))
    made.add(video('..aa', '..aa'), video('..aa', '..bb'))
    assert made.scores() == {'STQ': pytest.approx(0.5 ** 0.5), 'AQ': 0.5, 'SQ': 1}


def test_stq_of_a_missed_half():
    """AQ: 2 common of 4, track inside: 2 x 2 / 4 / 4 = .25; SQ: car 2 / 4, sky 4 / 6."""
    made = Stq(frozenset({CAR}))
    made.add(video('..aa', '..aa'), video('..aa', '....'))
    scores = made.scores()
    assert scores['AQ'] == 0.25 and scores['SQ'] == pytest.approx((0.5 + 4 / 6) / 2)
    assert scores['STQ'] == pytest.approx((0.25 * scores['SQ']) ** 0.5)


def test_consistency_looks_at_what_is_constant_in_truth():
    truth = np.array([[[0, 0, 1, 1]], [[0, 0, 1, 0]], [[0, 0, 1, 0]]])
    found = np.array([[[0, 0, 1, 1]], [[0, 2, 1, 1]], [[0, 2, 1, 1]]])
    assert video_consistency(truth, found, 2) == pytest.approx((2 / 3 + 4 / 4) / 2)
    assert video_consistency(truth, found, 3) == pytest.approx(2 / 3)
    assert np.isnan(video_consistency(truth, found, 4))
    assert np.isnan(video_consistency(np.full((2, 1, 1), VOID), np.zeros((2, 1, 1)), 2))


@given(classes=arrays(np.int64, (3, 2, 4), elements=st.integers(-1, 2)),
       segments=arrays(np.int64, (3, 2, 4), elements=st.integers(0, 3)))
def test_the_truth_itself_is_perfect(classes, segments):
    truth = Panoptic(classes, segments)
    made, stq = vpq(truth, truth, (1, 2, 3)), Stq(frozenset({1, 2}))
    stq.add(truth, truth)
    if (classes >= 0).any():
        assert made.score() == pytest.approx(1) and stq.scores()['SQ'] == pytest.approx(1)
    if (classes > 0).any():
        assert stq.scores()['AQ'] == pytest.approx(1)


def test_sizes_must_agree():
    with pytest.raises(DatasetError, match='scale one to the other'):
        vpq(video('..'), video('...'))
    with pytest.raises(DatasetError, match='must be equal'):
        Panoptic(np.zeros((1, 2, 2)), np.zeros((1, 2, 3)))
