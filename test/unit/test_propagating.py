"""GMOS' propagator as the node's tracker: ids, motion, rest and loss, in seconds."""

import numpy as np
import pytest

from bench.propagation import SIZE, stream
from mos_perception.config import Config
from mos_perception.datatypes import Frame, Instances, SyncedInput, TrackState
from mos_perception.errors import SyncError
from mos_perception.masks import mask_boxes
from mos_perception.motion.backward_flow import BackwardFlow
from mos_perception.tracking import load_tracker

PERIOD_NS = 40_000_000
MASK = (slice(20, 60), slice(30, 80))


def instances(*parts, motion=0.9, quality=0.9, size=(96, 128)):
    masks = np.zeros((len(parts), *size), bool)
    for mask, part in zip(masks, parts):
        mask[part] = True
    ones = np.ones(len(parts), np.float32)
    return Instances(masks, mask_boxes(masks), ones * motion * quality, ones * motion,
                     ones * motion > 0.5, np.zeros((len(parts), 3), np.float32))


def tracker(**given):
    return load_tracker(Config(tracker='propagation_flow', **given))


def run(made, answers, start=0):
    """The (instances, tracks) of answers one period after the other, the camera at rest."""
    return [made.update(found, (start + n) * PERIOD_NS) for n, found in enumerate(answers)]


def test_an_object_is_carried_while_it_is_proposed_and_while_it_rests():
    made = tracker(track_hold_s=0.4, track_lost_s=0.2, track_confirm_s=0.1)
    found = run(made, [instances(MASK)] * 5 + [instances()] * 20)
    shown, tracks = found[0]
    assert tracks.ids.tolist() == [1] and tracks.states.tolist() == [TrackState.TENTATIVE]
    assert shown.moving.tolist() == [True] and shown.motion_scores.tolist() == [1]
    np.testing.assert_array_equal(shown.masks[0], instances(MASK).masks[0])
    assert found[4][1].states.tolist() == [TrackState.CONFIRMED]
    assert found[4][1].ages_s[0] == pytest.approx(0.16)
    rest = [(len(shown), shown.moving.tolist(), tracks.states.tolist()) for shown, tracks in
            found[5:]]
    # it moved until 0.16 s: shown until 0.56 s, lost from then on, gone 0.2 s later
    assert rest[:10] == [(1, [False], [TrackState.CONFIRMED])] * 10
    assert rest[10:14] == [(0, [], [TrackState.LOST])] * 4
    assert rest[14:] == [(0, [], [])] * 6
    assert not made.store.objects


def test_ids_are_not_used_again_until_a_reset():
    made = tracker(track_hold_s=0.0, track_lost_s=0.05)
    answers = ([instances(MASK)] * 2 + [instances()] * 4) * 3
    found = run(made, answers)
    assert [tracks.ids.tolist() for _, tracks in found[::6]] == [[1], [2], [3]]
    made.reset()
    assert made.update(instances(MASK), 0)[1].ids.tolist() == [1]


def test_proposals_that_rest_or_are_poor_begin_no_object():
    made = tracker()
    for found in (instances(MASK, motion=0.4), instances(MASK, quality=0.6), instances()):
        shown, tracks = made.update(found, 0)
        assert len(shown) == len(tracks) == 0 and shown.embeddings.shape == (0, 3)


def test_velocity_is_that_of_the_centre():
    made = tracker()
    for n in range(12):
        part = (slice(20, 60), slice(10 + 4 * n, 60 + 4 * n))
        shown, tracks = made.update(instances(part), n * PERIOD_NS)
        if n == 1:  # the first measured one is known at once, as from every tracker
            np.testing.assert_allclose(tracks.velocities[0], [4 / 0.04, 0], rtol=0.3, atol=1)
    np.testing.assert_allclose(tracks.velocities[0], [4 / 0.04, 0], rtol=0.05, atol=1)
    assert tracks.ids.tolist() == [1] and shown.boxes[0].tolist() == [54, 20, 104, 60]


def test_time_does_not_run_backwards_and_sizes_stay():
    made = tracker()
    made.update(instances(MASK), PERIOD_NS)
    with pytest.raises(SyncError, match='reset it when time'):
        made.update(instances(MASK), 0)
    with pytest.raises(SyncError, match='reset the node'):
        made.update(instances(MASK, size=(100, 128)), 2 * PERIOD_NS)


def test_the_last_ids_ask_for_a_new_epoch():
    made = tracker()
    made.update(instances(MASK), 0)
    assert not made.store.used_up and made.store.report() == {'propagated objects': 1}
    made.store.last_number = 2 ** 16 - 2
    assert made.store.used_up


def test_along_the_flow_of_a_moving_scene():
    """Four squares, hidden and back, over a second and a half: no id twice, masks where they are.
    """
    made, backward, ended, last = tracker(track_lost_s=0.3), BackwardFlow(), set(), set()
    for n, (picture, proposals) in enumerate(stream(45)):
        stamp = n * PERIOD_NS
        sample = backward.attach(SyncedInput(stamp, '', Frame(stamp, picture), None, SIZE))
        given = Instances(proposals.masks, mask_boxes(proposals.masks),
                          proposals.motion * proposals.quality, proposals.motion,
                          proposals.motion > 0.5, np.zeros((len(proposals.masks), 0), np.float32))
        shown, tracks = made.update(given, stamp, sample.flow, sample.flow_error)
        backward.answered(sample)
        now = set(tracks.ids.tolist())
        ended |= last - now
        assert not ended & now and shown.masks.sum(0, dtype=int).max(initial=0) <= 1
        last = now
    union = shown.masks[shown.moving].any(0)
    wanted = proposals.masks.any(0)
    assert (union & wanted).sum() > 0.9 * (union | wanted).sum()
