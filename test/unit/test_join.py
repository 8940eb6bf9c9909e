"""GMOS: parts that move alike become one instance, others stay apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_perception.datatypes import Instances
from mos_perception.masks import mask_boxes
from mos_perception.models.gmos.join import joined
from mos_perception.motion.camera_motion import CameraMotion
from mos_perception.motion.evidence import EvidenceSpec, Pair, assemble, pair_evidence

SIZE, FRAME = (64, 96), (128, 192)  # of the evidence, of the frame: twice as fine
LEFT, RIGHT = (slice(20, 60), slice(20, 60)), (slice(20, 60), slice(60, 90))
FAR, BELOW = (slice(20, 60), slice(150, 180)), (slice(90, 120), slice(20, 60))
AT_REST = CameraMotion(np.eye(3), 1.0, 0.5)


def instances(*places: tuple[slice, slice]) -> Instances:
    masks = np.zeros((len(places), *FRAME), bool)
    for mask, place in zip(masks, places):
        mask[place] = True
    scores = np.linspace(0.9, 0.5, len(places)).astype(np.float32)
    return Instances(masks, mask_boxes(masks), scores, scores, scores > 0,
                     np.arange(len(places), dtype=np.float32)[:, None])


def evidence(*motions: tuple[tuple[slice, slice], tuple[float, float]],
             gaps: tuple[bool, ...] = (True,) * 4,
             known: tuple[int, ...] = (0, 1, 2, 3)) -> np.ndarray:
    """Of flow that is so many px within places of the frame and 0 elsewhere, over every gap the
    same; over those that are False nothing moves, those that are not known have no frame.
    """
    flow = np.zeros((*SIZE, 2), np.float32)
    for (rows, columns), motion in motions:
        flow[rows.start // 2:rows.stop // 2, columns.start // 2:columns.stop // 2] = motion
    grey = np.zeros(SIZE, np.uint8)
    turns = [there * (1.1 if at > 1 else -1) for at, there in enumerate(gaps)]  # it speeds up
    pairs = [Pair(pair_evidence(grey, grey, flow * turn, -flow * turn, AT_REST), flow, AT_REST)
             for turn in turns]
    return assemble([pair if at in known else None for at, pair in enumerate(pairs)],
                    EvidenceSpec(SIZE))


def test_two_parts_of_one_motion_are_one():
    parts = instances(LEFT, RIGHT)
    found = joined(parts, evidence((LEFT, (3, 1)), (RIGHT, (3.2, 1.1))))
    assert len(found) == 1
    np.testing.assert_array_equal(found.masks[0], parts.masks.any(0))
    np.testing.assert_array_equal(found.boxes, [[20, 20, 90, 60]])
    assert found.embeddings[0, 0] == 0 and found.scores[0] == parts.scores[0]


def test_the_rest_is_that_of_the_largest_part():
    found = joined(instances(RIGHT, LEFT), evidence((LEFT, (3, 1)), (RIGHT, (3, 1))))
    np.testing.assert_array_equal(found.embeddings, [[1]])


@pytest.mark.parametrize('left, right, gaps', [
    ((3, 0), (-3, 0), (True,) * 4),
    ((3, 0), (1.5, 0), (True,) * 4),                # one is faster
    ((0.5, 0), (0.5, 0), (True,) * 4),              # too slow to tell
    ((3, 0), (3, 0), (True, False, False, False)),  # alike over one gap alone
])
def test_what_moves_otherwise_stays_apart(left, right, gaps):
    of_both = evidence((LEFT, left), (RIGHT, right), gaps=gaps)
    assert len(joined(instances(LEFT, RIGHT), of_both)) == 2


@pytest.mark.parametrize('known, count', [
    ((1,), 2), ((0, 1), 1), ((0, 2), 1), ((), 2)])
def test_a_gap_without_a_frame_tells_nothing(known, count):
    """It is its opposite turned round."""
    of_both = [(LEFT, (3, 0)), (RIGHT, (3, 0))]
    assert len(joined(instances(LEFT, RIGHT), evidence(*of_both, known=known))) == count


def test_what_is_far_off_stays_apart():
    assert len(joined(instances(LEFT, FAR), evidence((LEFT, (3, 0)), (FAR, (3, 0))))) == 2


def test_a_chain_of_parts_is_one_and_the_rest_keep_their_order():
    middle, end = (slice(20, 60), slice(60, 90)), (slice(20, 60), slice(90, 120))
    found = joined(instances(BELOW, LEFT, middle, end),
                   evidence(*((part, (0, 4)) for part in (LEFT, middle, end)), (BELOW, (3, 0))))
    assert len(found) == 2
    np.testing.assert_array_equal(found.boxes, [[20, 90, 60, 120], [20, 20, 120, 60]])


def test_specks_have_no_motion():
    speck = (slice(61, 62), slice(20, 22))
    assert len(joined(instances(LEFT, speck), evidence((LEFT, (3, 0)), (speck, (3, 0))))) == 2


def test_without_evidence_nothing_is_joined():
    parts = instances(LEFT, RIGHT)
    assert joined(parts, np.zeros((32, *SIZE), np.float32)) is parts


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 150), st.integers(1, 38),
                          st.integers(1, 42), st.floats(-4, 4), st.floats(-4, 4)),
                min_size=1, max_size=6))
def test_no_pixel_comes_or_goes(places):
    slices = [(slice(y, y + h), slice(x, x + w)) for y, x, h, w, _, _ in places]
    parts = instances(*slices)
    taken = np.zeros(FRAME, bool)
    for mask in parts.masks:  # disjoint, as a model's are
        mask &= ~taken
        taken |= mask
    found = joined(parts, evidence(*((place, (u, v)) for place, (*_, u, v) in zip(slices, places))))
    np.testing.assert_array_equal(found.masks.sum(0), parts.masks.sum(0))
    assert len(found) <= len(parts)
