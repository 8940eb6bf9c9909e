"""The referring tracker with the shipped network, on made-up squares; its card; its refusals."""

import dataclasses
import itertools
import json
import shutil

import numpy as np
import pytest

from bench.propagation import TrackerMember, measure
from mos_perception.config import Config
from mos_perception.datatypes import Instances, TrackState
from mos_perception.engine.card import load_card
from mos_perception.engine.model_files import find_model
from mos_perception.engine.ort import OrtEngine
from mos_perception.errors import EngineError, SyncError
from mos_perception.masks import mask_boxes
from mos_perception.tracking import load_tracker
from mos_perception.tracking.referring import (
    ReferringTracker,
    expected,
    load_referring,
    probabilities,
)
from mos_perception.tracking.tracker_card import load_tracker_card

SIZE = (96, 128)
MS = 1_000_000
CONFIG = Config(tracker='referring')
RED, GREEN, BLUE = (220, 30, 20), (20, 200, 40), (30, 40, 230)


def frame_of(*squares):
    """Instances and image of (x, y, colour) squares of 16 px, the first in front."""
    masks = np.zeros((len(squares), *SIZE), bool)
    image = np.full((*SIZE, 3), 128, np.uint8)
    for mask, (x, y, colour) in reversed(list(zip(masks, squares))):
        mask[max(0, y):y + 16, max(0, x):x + 16] = True
        image[mask] = colour
    ones = np.ones(len(squares), np.float32)
    return Instances(masks, mask_boxes(masks), ones, ones, ones.astype(bool),
                     np.zeros((len(squares), 0), np.float32)), image


def ids(tracker, squares, n):
    found, image = frame_of(*squares)
    shown, tracks = tracker.update(found, n * 33 * MS, image=image)
    return tracks.instance_ids(len(shown))[:len(found)].tolist()


def test_what_appears_elsewhere_is_not_what_vanished():
    """Four squares, of which one hides at a time: when one goes, another comes."""
    assert measure(TrackerMember('referring'), 200)['ids'] == 4


def test_ids_do_not_depend_on_the_order_of_instances():
    for order in itertools.permutations(range(3)):
        tracker = load_tracker(CONFIG)
        squares = [(10, 10, RED), (50, 50, GREEN), (90, 10, BLUE)]
        assert ids(tracker, squares, 0) == [1, 2, 3]
        for n in range(1, 6):
            moved = [(x + 2 * n, y + n, colour) for x, y, colour in squares]
            assert ids(tracker, [moved[k] for k in order], n) == [k + 1 for k in order]


def test_looks_tell_who_came_out_from_behind():
    tracker = load_tracker(CONFIG)
    for n in range(10):
        assert ids(tracker, [(10 + 4 * n, 40, RED), (90, 42, GREEN)], n) == [1, 2]
    for n in range(10, 13):  # the green one is hidden
        assert ids(tracker, [(10 + 4 * n, 40, RED)], n) == [1]
    assert ids(tracker, [(92, 41, GREEN), (62, 40, RED)], 13) == [2, 1]


def test_where_a_covered_object_is_expected():
    tracker = load_tracker(CONFIG)
    for n in range(5):
        ids(tracker, [(10 + 4 * n, 40, RED)], n)
    track, at = tracker.store.tracks[0], 5 * 33 * MS
    track.carried = track.carried.moved(np.array([[1, 0, 0], [0, 1, 20], [0, 0, 1]], float), SIZE)

    def corner():
        return (expected([track], SIZE, at)[0, :2] * [SIZE[1], SIZE[0]]).tolist()

    track.hidden = True  # while it moved: it goes on
    assert corner() == pytest.approx([30, 40], abs=0.01)
    track.forgotten = True
    assert corner() == pytest.approx([26, 60], abs=0.01)
    track.forgotten, track.shown_ns = False, track.seen_ns + 33 * MS  # it was held: at rest
    assert corner() == pytest.approx([26, 60], abs=0.01)
    track.carried = None
    assert corner() == pytest.approx([30, 40], abs=0.01)


def test_life_is_the_lifecycles():
    tracker = load_tracker(dataclasses.replace(CONFIG, track_lost_s=0.2, track_confirm_s=0.1))
    states = []
    for n in range(5):
        found, image = frame_of((10, 10, RED))
        states.append(tracker.update(found, n * 33 * MS, image=image)[1].states[0])
    assert states[0] == TrackState.TENTATIVE and states[-1] == TrackState.CONFIRMED
    assert ids(tracker, [], 5) == [] and len(tracker.store.tracks) == 1
    assert ids(tracker, [], 40) == [] and tracker.store.tracks == [] and not tracker._slots
    assert ids(tracker, [(10, 10, RED)], 41) == [2]
    with pytest.raises(SyncError, match='reset'):
        ids(tracker, [(10, 10, RED)], 40)
    tracker.reset()
    assert ids(tracker, [(10, 10, RED)], 0) == [1]


def test_one_run_after_a_reset_is_as_the_first():
    tracker = load_tracker(CONFIG)
    runs = []
    for _ in range(2):
        rng = np.random.default_rng(0)
        squares = [[(20 * n, y, RED) for n, y in enumerate(rng.integers(0, 70, count).tolist())]
                   for count in rng.integers(0, 4, 20)]
        runs.append([ids(tracker, listed, n) for n, listed in enumerate(squares)])
        tracker.reset()
    assert runs[0] == runs[1]


def test_memory_stays_flat():
    tracker = load_tracker(dataclasses.replace(CONFIG, track_lost_s=0.05))
    rng = np.random.default_rng(1)
    for n in range(300):
        ids(tracker, [(int(x), 10, RED) for x in rng.integers(0, 100, 1)], n)
        assert len(tracker._slots) == len(tracker.store.tracks) <= 20


def test_probabilities():
    made = probabilities(np.array([[3.0, 0.0, -5.0], [0.0, 0.0, 9.0]]))
    assert made[0, 0] == pytest.approx(0.95, abs=0.01)
    assert made[0, 1] == -np.inf and (made[1] == -np.inf).all()


def test_embeddings_of_another_size_are_refused():
    for name in ('gmos_nano', 'dimos_light', 'gmos_s_nano'):  # the last has none
        assert load_referring(CONFIG, load_card(find_model(name)))
    with pytest.raises(EngineError, match='of 96 channels, the model gives 64: set tracker to hun'):
        load_tracker(CONFIG, load_card(find_model('dimos_nano')))


def test_files_that_are_not_its_own_are_refused(tmp_path):
    path = find_model('referring_nano', 'trackers')
    with pytest.raises(EngineError, match='known models: referring_nano'):
        load_tracker(dataclasses.replace(CONFIG, tracker_model='x'))
    copy = tmp_path / 'a.onnx'
    shutil.copy(path, copy)
    with pytest.raises(EngineError, match='card .*a.json cannot be read'):
        load_tracker_card(copy)
    values = json.loads(path.with_suffix('.json').read_text())
    (tmp_path / 'a.json').write_text(json.dumps({**values, 'sha256': '0' * 64}))
    with pytest.raises(EngineError, match='sha256 .* its card says 0000'):
        load_tracker_card(copy)
    (tmp_path / 'a.json').write_text(json.dumps({**values, 'wdith': 3}))
    with pytest.raises(EngineError, match="'wdith'; did you mean 'width'"):
        load_tracker_card(copy)
    (tmp_path / 'a.json').write_text(json.dumps({**values, 'embeddings': 64}))
    card = load_tracker_card(copy)
    with pytest.raises(EngineError, match='inputs are .* the card stands for .*: export'):
        ReferringTracker(CONFIG, OrtEngine(copy, 1), card, 64)
