"""Tracks: identities, states and seconds on made-up rectangles."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_perception.config import Config
from mos_perception.datatypes import Instances, TrackState
from mos_perception.errors import SyncError
from mos_perception.tracking import lifecycle
from mos_perception.tracking.hungarian import HungarianTracker, assign, similarity

MS = 1_000_000
SIZE = (120, 160)


def instances(*boxes, looks=None) -> Instances:
    """Filled rectangles (x0, y0, x1, y1); `looks` gives one embedding each."""
    masks = np.zeros((len(boxes), *SIZE), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes):
        mask[y0:y1, x0:x1] = True
    count = len(boxes)
    return Instances(
        masks,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.ones(count, np.float32),
        np.ones(count, np.float32),
        np.ones(count, bool),
        np.zeros((count, 0), np.float32) if looks is None else np.array(looks, np.float32),
    )


def update(tracker, frame, stamp_ns):
    """The tracks after a frame of events alone."""
    return tracker.update(frame, stamp_ns)[1]


def run(tracker, frames, step_ms=33):
    return [update(tracker, frame, n * step_ms * MS) for n, frame in enumerate(frames)]


def test_moving_objects_keep_their_ids():
    frames = [
        instances((10 + 3 * n, 10, 40 + 3 * n, 40), (100 - 3 * n, 60, 130 - 3 * n, 90))
        for n in range(12)
    ]
    swapped = [
        frame if n % 2 else instances(*frame.boxes[::-1].astype(int))
        for n, frame in enumerate(frames)
    ]

    results = run(HungarianTracker(Config()), swapped)

    for n, tracks in enumerate(results):
        assert tracks.ids.tolist() == [1, 2]
        assert tracks.instance.tolist() == ([1, 0] if n % 2 else [0, 1])
    last = results[-1]
    assert last.velocities == pytest.approx(np.array([[-3 / 0.033, 0], [3 / 0.033, 0]]), abs=0.1)
    assert last.ages_s == pytest.approx([0.363, 0.363])
    assert last.boxes[1].tolist() == [43, 10, 73, 40]


def test_weak_instances_continue_tracks_but_start_none():
    tracker = HungarianTracker(Config(track_birth_score=0.5))
    scores = [0.3, 0.6, 0.2, 0.2]
    thing = instances((10, 10, 40, 40))
    frames = [dataclasses.replace(thing, scores=np.array([score], np.float32)) for score in scores]

    assert [tracks.instance.tolist() for tracks in run(tracker, frames)] == [[], [0], [0], [0]]


def test_life_in_seconds():
    """Seen for 0.1 s: confirmed; unseen: lost; unseen for 0.2 s: dead; back after that: a new id.
    """
    tracker, thing = (
        HungarianTracker(Config(track_confirm_s=0.1, track_lost_s=0.2)),
        instances((10, 10, 40, 40)),
    )
    seen = [True, True, True, False, False, True, False, False, False, False, True]

    states = [[(int(i), TrackState(s).name) for i, s in zip(tracks.ids, tracks.states)]
              for tracks in run(tracker, [thing if there else instances() for there in seen], 50)]

    assert states == [
        [(1, 'TENTATIVE')],
        [(1, 'TENTATIVE')],
        [(1, 'CONFIRMED')],
        [(1, 'LOST')],
        [(1, 'LOST')],
        [(1, 'CONFIRMED')],
        [(1, 'LOST')],
        [(1, 'LOST')],
        [(1, 'LOST')],
        [],
        [(2, 'TENTATIVE')],
    ]


def test_frame_rate_does_not_matter():
    for step_ms in (5, 10, 20, 50, 100):
        results = run(
            HungarianTracker(Config()),
            [instances((10, 10, 40, 40))] * (200 // step_ms + 1),
            step_ms,
        )
        first = next(
            n for n, tracks in enumerate(results) if tracks.states[0] == TrackState.CONFIRMED
        )
        assert first * step_ms == 100


def test_time_unseen_is_not_time_watched():
    tracker, thing = HungarianTracker(Config(track_confirm_s=0.1)), instances((10, 10, 40, 40))
    blinking = run(tracker, [thing if n % 2 == 0 else instances() for n in range(9)], 60)
    assert all(TrackState.CONFIRMED not in tracks.states for tracks in blinking)


def test_long_pause_kills_every_track():
    tracker, thing = HungarianTracker(Config()), instances((10, 10, 40, 40))
    update(tracker, thing, 0)
    assert update(tracker, thing, 3_000 * MS).ids.tolist() == [2]


def test_lost_s_zero_forgets_at_once_but_still_tracks():
    tracker, thing = HungarianTracker(Config(track_lost_s=0.0)), instances((10, 10, 40, 40))
    ids = [tracks.ids.tolist() for tracks in run(tracker, [thing, thing, instances(), thing])]
    assert ids == [[1], [1], [], [2]]


def test_occluded_object_is_found_where_it_should_be():
    """Moving 6 px per frame, hidden for 8 frames: 48 px later nothing overlaps its last mask.

    Whether it is held meanwhile makes no difference.
    """
    frames = [
        instances((6 * n, 50, 20 + 6 * n, 70)) if not 6 <= n < 14 else instances()
        for n in range(18)
    ]
    held = run(HungarianTracker(Config()), frames)
    results = run(HungarianTracker(Config(track_hold_s=0.0)), frames)
    assert all(tracks.ids.tolist() == [1] for tracks in held + results)
    assert results[10].states.tolist() == [TrackState.LOST] and results[10].instance.tolist() == [
        -1
    ]


def test_small_fast_object_never_overlaps_itself():
    results = run(
        HungarianTracker(Config()), [instances((8 * n, 50, 8 * n + 7, 57)) for n in range(15)]
    )
    assert {int(i) for tracks in results for i in tracks.ids} == {1}


def test_far_away_or_other_sized_is_another_object():
    tracker = HungarianTracker(Config())
    assert update(tracker, instances((0, 0, 10, 10)), 0).ids.tolist() == [1]
    assert update(tracker, instances((100, 100, 110, 110)), 33 * MS).ids.tolist() == [1, 2]
    tracker.reset()
    update(tracker, instances((0, 0, 10, 10)), 0)
    assert update(tracker, instances((12, 0, 42, 30)), 33 * MS).ids.tolist() == [1, 2]


def test_looks_decide_where_overlap_cannot():
    """Both objects half over both places: identical IoU, told apart by embedding."""
    a, b = (10, 10, 30, 30), (20, 10, 40, 30)
    for weight, same in ((0.0, None), (0.9, True)):
        tracker = HungarianTracker(Config(track_embedding_weight=weight))
        update(tracker, instances(a, b, looks=[[1, 0], [0, 1]]), 0)
        tracks = update(tracker, instances(a, b, looks=[[0, 1], [1, 0]]), 33 * MS)
        assert tracks.instance.tolist() == ([1, 0] if same else [0, 1])


def test_confirm_at_once():
    assert (
        update(HungarianTracker(Config(track_confirm_s=0.0)), instances((0, 0, 9, 9)), 0).states[0]
        == 1
    )


def test_time_going_back_and_reset():
    tracker, thing = HungarianTracker(Config()), instances((10, 10, 40, 40))
    update(tracker, thing, 100 * MS)
    with pytest.raises(SyncError, match='99000000 ns after 100000000 ns: reset'):
        update(tracker, thing, 99 * MS)
    assert update(tracker, thing, 100 * MS).velocities.tolist() == [[0, 0]]
    tracker.reset()
    tracks = update(tracker, thing, 0)
    assert tracks.ids.tolist() == [1] and tracks.ages_s.tolist() == [0]


def test_70000_births_in_one_epoch():
    """A track that outlives all the values of the mono16 image still shares none of them."""
    store = lifecycle.TrackStore(Config(track_lost_s=0.001))
    places = [(x, y) for y in range(10, 110, 10) for x in range(10, 150, 10)]
    frame = instances((0, 0, 9, 9), *[(x, y, x + 3, y + 3) for x, y in places])
    born = 0
    for n in range(500):  # the first stays, the others are new in every frame
        store.advance(n * 33 * MS, SIZE, None, None)
        _, tracks = store.apply([(0, 0)] if n else [], frame)
        ids = tracks.instance_ids(len(frame))
        assert ids[0] == 1 and ids[1:].min() > born and len(set(ids)) == len(ids)
        if n % 25 == 24:
            values = np.unique(frame.id_image(ids))
            assert len(values) == len(ids) + 1 and values[1] == 1
        born = int(ids.max())
    assert born >= 70_000


def test_before_the_messages_ids_end_a_new_epoch_is_due():
    tracker = HungarianTracker(Config())
    tracker.store._last_id = lifecycle.LAST_ID - 2 * lifecycle.IMAGE_IDS
    assert not tracker.store.used_up
    ids = update(tracker, instances((0, 0, 9, 9)), 0).ids
    assert ids.astype(np.uint32).tolist() == ids.tolist() and tracker.store.used_up
    tracker.reset()
    assert not tracker.store.used_up
    assert update(tracker, instances((0, 0, 9, 9)), 0).ids.tolist() == [1]


@pytest.mark.fault(26, 'more objects than tracks may live',
                   'the lowest score gives way, counted')
def test_where_there_are_too_many_the_lowest_score_gives_way(monkeypatch):
    monkeypatch.setattr(lifecycle, 'MOST_TRACKS', 2)
    tracker = HungarianTracker(Config())
    frame = instances((0, 0, 9, 9), (20, 0, 29, 9), (40, 0, 49, 9))
    frame = dataclasses.replace(frame, scores=np.array([0.9, 0.6, 0.8], np.float32))
    tracks = update(tracker, frame, 0)
    assert tracks.ids.tolist() == [1, 3] and tracks.of_instances(3).tolist() == [0, -1, 1]
    assert tracker.store.report() == {'tracks that gave way': 1}


def test_two_trackers_share_nothing():
    one, two = HungarianTracker(Config()), HungarianTracker(Config())
    update(one, instances((0, 0, 9, 9)), 0)
    assert update(two, instances((0, 0, 9, 9)), 0).ids.tolist() == [1]


def test_configure_while_running():
    tracker = HungarianTracker(Config())
    update(tracker, instances((10, 10, 40, 40)), 0)
    tracker.configure(Config(track_confirm_s=0.0))
    tracks = update(tracker, instances((10, 10, 40, 40)), MS)
    assert tracks.states.tolist() == [TrackState.CONFIRMED]


def test_similarity_is_mask_iou():
    rng = np.random.default_rng(0)
    tracker = HungarianTracker(Config())
    whole = rng.integers(0, 4, (2, *SIZE))

    def frame(labels):
        masks = np.stack([labels == n for n in (1, 2, 3)])
        masks[:, :20] = False
        boxes = [(x.min(), y.min(), x.max() + 1, y.max() + 1) for y, x in map(np.nonzero, masks)]
        return Instances(
            masks,
            np.array(boxes, np.float32),
            *(np.ones(3, np.float32),) * 2,
            np.ones(3, bool),
            np.zeros((3, 0), np.float32),
        )

    a, b = frame(whole[0]), frame(whole[1])
    update(tracker, a, 0)
    table = similarity(tracker.store.tracks, b, 33 * MS, 0.0, 0.0)
    want = [[(m & n).sum() / (m | n).sum() for n in b.masks] for m in a.masks]
    assert table == pytest.approx(np.array(want))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.one_of(st.just(-np.inf), st.floats(0, 1)), min_size=3, max_size=3),
        min_size=1,
        max_size=4,
    )
)
def test_assignment_is_the_best_of_all(rows):
    table = np.array(rows)
    pairs = assign(table)
    assert all(np.isfinite(table[pair]) for pair in pairs)
    worth = np.where(np.isfinite(table), table, 0)
    m, n = table.shape
    best = max(
        sum(worth[i, j] for i, j in zip(rows, columns))
        for k in (min(m, n),)
        for rows in itertools.permutations(range(m), k)
        for columns in itertools.combinations(range(n), k)
    )
    assert sum(table[pair] for pair in pairs) == pytest.approx(best, abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 140), st.integers(0, 100)), max_size=4), max_size=12)
)
def test_invariants_on_anything(frames):
    tracker, known, dead = HungarianTracker(Config(track_lost_s=0.1)), set(), set()
    for n, places in enumerate(frames):
        tracks = update(tracker,
            instances(*[(x, y, x + 15, y + 15) for x, y in places]), n * 40 * MS
        )
        ids, used = set(tracks.ids.tolist()), tracks.instance[tracks.instance >= 0]
        assert (
            len(ids) == len(tracks) and not ids & dead and sorted(used) == list(range(len(places)))
        )
        assert ((tracks.states == TrackState.LOST) == (tracks.instance < 0)).all()
        assert not ids - known or min(ids - known) > max(known, default=0)
        dead |= known - ids
        known |= ids
        assert np.isfinite(tracks.velocities).all() and (tracks.ages_s >= 0).all()
