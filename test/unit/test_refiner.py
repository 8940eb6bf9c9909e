"""Windows of the Temporal Refiner, names over their borders, and the shipped network."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_perception.engine.model_files import find_model
from mos_perception.errors import EngineError
from mos_perception.tracking.referring import Tracked
from mos_perception.tracking.refiner import (
    OVERLAP,
    WINDOW,
    NamedWindows,
    Refined,
    load_refiner,
    refiner_tensors,
)
from mos_perception.tracking.tokens import LOOKS, SHAPE, Tokens
from mos_perception.tracking.tracker_card import load_tracker_card
from mos_perception.tracking.windows import RELATION, STATE, window_inputs

WIDTH, PERIOD_NS = 64, 33_000_000


def tokens(boxes, looks=()):
    made = np.zeros((len(boxes), LOOKS), np.float32)
    for row, look in enumerate(looks or range(len(boxes))):
        made[row, look] = 1
    return Tokens(np.zeros((len(boxes), 96), np.float32), made,
                  np.ones((len(boxes), SHAPE, SHAPE), np.float32),
                  np.array(boxes, np.float32).reshape(-1, 4), np.ones(len(boxes), np.float32))


def frame(at, boxes, ids, instance, looks=()):
    """A frame of the tracker's; slots hold their id."""
    slots = np.tile(np.array(ids, np.float32)[:, None], WIDTH)
    return Tracked(at * PERIOD_NS, tokens(boxes, looks), np.ones((len(boxes), WIDTH), np.float32),
                   np.array(ids, np.int64), slots, np.array(instance, np.int64))


def box(x):
    return [x, 0.4, x + 0.1, 0.5]


class Echo:
    """A refiner that believes the tracker."""

    def refine(self, frames):
        ids, seen, _ = window_inputs(frames)
        return Refined(ids, seen, np.full(len(ids), 0.5))


def test_where_a_slot_is_expected_is_told_by_before_and_after():
    frames = [frame(0, [box(0.1)], [7], [0]), frame(1, [box(0.6)], [7], [-1]),
              frame(2, [box(0.3)], [7], [0])]
    ids, seen, inputs = window_inputs(frames)
    assert ids.tolist() == [7] and seen[:, 0].tolist() == [0, -1, 0]
    centre = inputs['state'][:, 0, 0]
    assert centre[1] == pytest.approx(2 * 0.25 - 1)  # halfway, not where the instance is
    assert centre[0] == pytest.approx(2 * 0.35 - 1)  # the first frame knows the later one alone
    assert inputs['state'][:, 0, -3:].tolist() == [[0, 1, 1], [1, 1, 0], [1, 0, 1]]
    assert inputs['relations'][:, 0, 0, -1].tolist() == [1, 0, 1]  # what the tracker said


def test_shapes_and_tracks_that_are_never_seen():
    frames = [frame(0, [box(0.1), box(0.5)], [3, 9], [0, -1]), frame(1, [], [3], [-1])]
    ids, seen, inputs = window_inputs(frames)
    assert ids.tolist() == [3] and seen.tolist() == [[0], [-1]]
    assert {name: value.shape for name, value in inputs.items()} == {
        'queries': (2, 2, WIDTH), 'padding': (2, 2), 'slots': (2, 1, WIDTH), 'state': (2, 1, STATE),
        'relations': (2, 1, 2, RELATION)}
    assert inputs['padding'].tolist() == [[0, 0], [1, 1]] and inputs['slots'][1, 0, 0] == 3
    for empty in ([frame(0, [], [], [])], [frame(0, [box(0.1)], [], [])]):
        assert window_inputs(empty)[0].tolist() == []


frames_of_boxes = st.lists(st.lists(st.floats(0, 0.9), max_size=4), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(places=frames_of_boxes, seed=st.integers(0, 99))
def test_numbers_are_finite_and_names_say_nothing(places, seed):
    rng = np.random.default_rng(seed)

    def made(offset):
        found = []
        for at, row in enumerate(places):
            instance = [n if keep else -1 for n, keep in enumerate(kept[at])]
            found.append(frame(at, [box(x) for x in row], [offset + n for n in range(len(row))],
                               instance))
        return window_inputs(found)

    kept = [rng.random(len(row)) < 0.7 for row in places]
    ids, seen, inputs = made(1)
    other_ids, other_seen, others = made(50)
    assert (ids + 49 == other_ids).all() and (seen == other_seen).all()
    for name, values in inputs.items():
        assert np.isfinite(values).all() and values.dtype == np.float32
        if name != 'slots':
            np.testing.assert_array_equal(values, others[name])


@pytest.mark.parametrize('count', [1, WINDOW - 1, WINDOW, WINDOW + 1, 200])
def test_frames_come_out_once_in_order_under_one_name(count):
    windows, given_out = NamedWindows(Echo()), []
    for at in range(count):
        # seen in two of three frames; its id of the tracker's changes in the middle of a window
        row = 0 if at % 3 else -1
        given_out += windows.push(frame(at, [box(0.4)], [5 if at < 70 else 6], [row]))
        assert len(windows._frames) < WINDOW
    assert len(given_out) >= count - WINDOW
    given_out += windows.flush()
    assert len(given_out) == count and not windows._frames
    tracks = [int(named.track[0]) for named in given_out]
    assert tracks == [(1 if at < 70 else 2) if at % 3 else 0 for at in range(count)]
    assert [named.track[0] for named in windows.push(frame(0, [box(0.1)], [1], [0]))] == []
    assert windows.flush()[0].track.tolist() == [1]  # names begin anew


def test_a_track_mended_in_one_window_keeps_its_name_in_the_next():
    """The refiner puts the tracker's 2, which began when 1 was lost, into 1 while it sees both."""

    class Mends(Echo):
        def refine(self, frames):
            refined = super().refine(frames)
            if refined.ids.tolist() == [1, 2]:
                joined = np.where(refined.instance[:, :1] >= 0, refined.instance[:, :1],
                                  refined.instance[:, 1:])
                none = np.full_like(joined, -1)
                return Refined(refined.ids, np.concatenate([joined, none], 1), refined.scores)
            return refined

    windows, names = NamedWindows(Mends()), []
    for at in range(240):
        first = at < 40
        names += windows.push(frame(at, [box(0.4)], [1 if first else 2], [0]))
    names += windows.flush()
    assert {int(named.track[0]) for named in names} == {1}
    assert OVERLAP > 0 and len(names) == 240


def shipped():
    return load_refiner('refiner_nano',
                        load_tracker_card(find_model('referring_nano', 'trackers')))


def test_the_shipped_network_leaves_plain_tracks_alone():
    frames = [frame(at, [box(0.1 + 0.01 * at), box(0.8 - 0.01 * at)], [1, 2], [0, 1])
              for at in range(20)]
    refined = shipped().refine(frames)
    assert refined.ids.tolist() == [1, 2]
    assert (refined.instance == [0, 1]).all()
    assert ((refined.scores > 0) & (refined.scores < 1)).all()
    nobody = shipped().refine([frame(0, [], [], [])])
    assert nobody.instance.shape == (1, 0) and len(nobody.scores) == 0


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    path = find_model('refiner_nano', 'trackers')
    card = load_tracker_card(find_model('referring_nano', 'trackers'))
    with pytest.raises(EngineError, match='trained behind a tracker of sha256 .* train one behind'):
        load_refiner('refiner_nano', dataclasses.replace(card, sha256='0' * 64))
    copy = tmp_path / 'a.onnx'
    shutil.copy(path, copy)
    values = json.loads(path.with_suffix('.json').read_text())
    (tmp_path / 'a.json').write_text(json.dumps({**values, 'sha256': '0' * 64}))
    with pytest.raises(EngineError, match='sha256 .* its card says 0000'):
        load_refiner(str(copy), card)
    (tmp_path / 'a.json').write_text(json.dumps({**values, 'width': 32}))
    with pytest.raises(EngineError, match='inputs are .* the card stands for'):
        load_refiner(str(copy), card)
    with pytest.raises(EngineError, match='embeddings'):
        load_refiner('referring_nano', card)  # a tracker's card is no refiner's
    assert len(refiner_tensors(64)[0]) == 5
